"""Processes of a test: started, watched while they get ready, and always stopped."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final, TextIO

from attrs import frozen

# Seconds. Starting a daemon takes one or two; the rest is for a busy machine.
READY_TIMEOUT: Final = 30.0
# dockerd waits up to 15 s for its containerd to go.
STOP_TIMEOUT: Final = 20.0
COMMAND_TIMEOUT: Final = 60.0
_POLL: Final = 0.02
# Below the range that Linux takes ports of outgoing connections from (32768 on). In any order, so
# that two runs, maybe of two users, seldom meet; each once, as a lock does not keep out its owner.
_untried: Final = iter(random.sample(range(20000, 32000), 12000))
_LOG_TAIL: Final = 6000


class ProcessFailed(AssertionError):
    """A process ended early, or was not ready in time. The message has the end of its log."""


def environment(**changes: str | os.PathLike[str]) -> dict[str, str]:
    """An environment for a child: *changes*, and of this process only what is neutral.

    Proxies, certificates and home directories of whoever runs the tests stay out.
    """
    kept = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return kept | {"PATH": path} | {name: os.fspath(value) for name, value in changes.items()}


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nothing listens, and which no other test gets.

    Lanes of tests run beside one another, and between a look at a port and the listener on it
    there is a while. So each port is claimed, by a lock on the byte of that number in a
    file that all share; the locks go with this process.
    """
    claims = _claims()
    for port in _untried:
        with socket.socket() as probe:
            # As servers do: a port in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                fcntl.lockf(claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is left")


@cache
def _claims() -> TextIO:
    # Never closed: to close it would be to let go of the locks.
    return Path(tempfile.gettempdir(), "regproxy-tests.ports").open("w")


def listens(port: int, address: str = "127.0.0.1") -> bool:
    """Whether *port* of *address* takes connections."""
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0


class Process:
    """A running program whose output goes to a file."""

    def __init__(
        self, name: str, arguments: Sequence[str], *, log: Path, env: Mapping[str, str]
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=log.parent,
                # An interrupt of the terminal is for the test runner, which stops us.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._popen.pid

    def wait_until(self, ready: Callable[[], bool], timeout: float = READY_TIMEOUT) -> None:
        """Return once ``ready()`` is true; it is asked again and again.

        Raises:
            ProcessFailed: the process ended, or *timeout* seconds went by.
        """
        deadline = time.monotonic() + timeout
        while not ready():
            try:
                code = self._popen.wait(_POLL)
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    raise ProcessFailed(
                        f"{self.name} not ready after {timeout} s\n{self.tail()}"
                    ) from None
            else:
                raise ProcessFailed(f"{self.name} ended with {code}\n{self.tail()}")

    def wait(self) -> int:
        """The exit code of a process that is to end by itself.

        Raises:
            subprocess.TimeoutExpired: it does not.
        """
        return self._popen.wait(STOP_TIMEOUT)

    def hang_up(self) -> None:
        """Send SIGHUP."""
        self._popen.send_signal(signal.SIGHUP)

    def freeze(self) -> None:
        """Have it stand still."""
        self._popen.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Have it go on."""
        self._popen.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Terminate, or after a time kill, and wait. Does nothing when it has ended."""
        self._popen.terminate()
        try:
            self._popen.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill at once, as a crash would."""
        self._popen.kill()
        self._popen.wait()

    def read_log(self, start: int = 0) -> str:
        """What the process wrote, from byte *start* on."""
        with self.log.open("rb") as file:
            file.seek(start)
            return file.read().decode("utf-8", "replace")

    def tail(self, start: int = 0) -> str:
        """The end of :meth:`read_log`, under a heading."""
        return f"--- {self.name}: {self.log}\n{self.read_log(start)[-_LOG_TAIL:]}"


@frozen
class Result:
    """What a finished command left."""

    command: str
    code: int
    output: str

    def check(self) -> str:
        """The output, stdout and stderr together.

        Raises:
            ProcessFailed: the command did not end with 0.
        """
        if self.code != 0:
            raise ProcessFailed(f"{self}")
        return self.output

    def __str__(self) -> str:
        return f"$ {self.command}\n{self.output}\n[ended with {self.code}]"


def run(
    *arguments: str,
    env: Mapping[str, str],
    timeout: float = COMMAND_TIMEOUT,
    stdin: str = "",
) -> Result:
    """Run a command to its end.

    Raises:
        ProcessFailed: it takes longer than *timeout* seconds; it is killed then.
    """
    command = " ".join(arguments)
    try:
        done = subprocess.run(
            arguments,
            input=stdin.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=env,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        output = (expired.stdout or b"").decode("utf-8", "replace")
        raise ProcessFailed(f"$ {command}\n{output}\n[killed after {timeout} s]") from None
    return Result(command, done.returncode, done.stdout.decode("utf-8", "replace"))
