"""Network namespaces: machines of their own that reach nothing but this one."""

from __future__ import annotations

import random
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.support.process import Result, environment, run
from tests.support.programs import program

# Of the private networks one that is hardly in use anywhere; each namespace has four of it.
_NETWORK: Final = "10.231"


class Namespace:
    """A machine with its own network and resolver, joined to this one by a cable.

    Attributes:
        gateway: this machine's address at the cable. There is no way beyond it.
        address: the other end's.
    """

    def __init__(self, directory: Path, *, hosts: Sequence[str] | None = None) -> None:
        """Make it. The name server of its ``/etc/resolv.conf`` is at *gateway*.

        Args:
            directory: for its files.
            hosts: the names that its ``/etc/hosts`` has, all at *gateway*; by default it
                has the file of this machine.
        """
        self._name = f"e2e-{secrets.token_hex(4)}"
        net = f"{_NETWORK}.{random.randint(0, 255)}.{random.randint(0, 63) * 4}"
        first, _, last = net.rpartition(".")
        self.gateway, self.address = (f"{first}.{int(last) + n}" for n in (1, 2))
        directory.mkdir(parents=True, exist_ok=True)
        # One attempt: a test that has lost its only query should fail, not last.
        resolver = f"nameserver {self.gateway}\noptions timeout:5 attempts:1\n"
        self._files = {Path("/etc/resolv.conf"): directory / "resolv.conf"}
        (directory / "resolv.conf").write_text(resolver)
        if hosts is not None:
            (directory / "hosts").write_text(f"{self.gateway} {' '.join(hosts)}\n")
            self._files[Path("/etc/hosts")] = directory / "hosts"
        self._ip("netns", "add", self._name)
        try:
            here, there = f"{self._name[4:]}h", f"{self._name[4:]}n"
            self._ip(
                *("link", "add", here, "type", "veth"),
                *("peer", "name", there, "netns", self._name),
            )
            self._ip("address", "add", f"{self.gateway}/30", "dev", here)
            self._ip("link", "set", here, "up")
            inside = ("-netns", self._name)
            self._ip(*inside, "address", "add", f"{self.address}/30", "dev", there)
            for link in there, "lo":
                self._ip(*inside, "link", "set", link, "up")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove it; the cable goes with it."""
        self._ip("netns", "delete", self._name)

    def entering(self) -> list[str]:
        """The beginning of a command line: what follows runs there."""
        # ip-netns(8) could do that, but takes the control groups away, which dockerd needs.
        mounts = [f"mount --bind {own} {system}" for system, own in self._files.items()]
        script = " && ".join([*mounts, 'exec "$@"'])
        enter = [program("nsenter"), f"--net=/run/netns/{self._name}"]
        return [*enter, program("unshare"), "--mount", "sh", "-c", script, "sh"]

    def run(self, name: str, *arguments: str) -> Result:
        """Run the program *name* there to its end."""
        return run(*self.entering(), program(name), *arguments, env=environment())

    def _ip(self, *arguments: str) -> None:
        run(program("ip"), *arguments, env=environment()).check()
