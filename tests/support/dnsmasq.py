"""dnsmasq, as a name server of the site that the proxy stands in."""

from __future__ import annotations

from pathlib import Path

from tests.support.dig import dig
from tests.support.process import Process, environment, free_port
from tests.support.programs import program

ADDRESS = "127.0.0.1"


class Dnsmasq:
    """A running dnsmasq, over UDP and TCP on the loopback interface.

    Attributes:
        server: address and port.
        process: its log has every query.
    """

    def __init__(self, directory: Path, *options: str) -> None:
        """*options* are its long ones, without the dashes."""
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.server = f"{ADDRESS}:{self.port}"
        arguments = [
            program("dnsmasq"),
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-hosts",
            "--no-resolv",
            "--pid-file",
            # It would become another user, who may not write the log.
            "--user=root",
            "--log-queries",
            "--log-facility=-",
            f"--listen-address={ADDRESS}",
            "--bind-interfaces",
            f"--port={self.port}",
            *(f"--{option}" for option in options),
        ]
        self.process = Process(
            "dnsmasq", arguments, log=directory / "dnsmasq.log", env=environment()
        )
        try:
            self.process.wait_until(self._answers)
        except BaseException:
            self.process.stop()
            raise

    def _answers(self) -> bool:
        return dig(self.server, "version.bind", "txt", "chaos").status is not None

    def asked(self, start: int = 0) -> list[str]:
        """The names that it was asked for since byte *start* of its log."""
        log = self.process.read_log(start)
        return [line.split()[-3] for line in log.splitlines() if " query[" in line]
