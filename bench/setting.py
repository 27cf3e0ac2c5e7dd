"""What all cases share: a directory, the sizes, the cores, and how a server is run."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Final, TypeVar

from attrs import frozen

from bench.machine import Cores, cpu_seconds, memory
from bench.way import ADDRESS, Refused, Way
from tests.support.process import Process, environment, listens
from tests.support.programs import program

MiB: Final = 1 << 20
GiB: Final = 1 << 30

AnyUpstream = TypeVar("AnyUpstream")


@frozen
class Scale:
    """How much is moved. Sizes in bytes, rates in bytes a second, times in seconds.

    Attributes:
        blob: of single transfers.
        crowd: clients at once, and ``crowd_blob`` what each gets.
        herd: clients that want the same new blob, and ``herd_blob``, which comes at ``herd_rate``.
        requests: seconds for which small requests are made.
        handshakes: connections that are opened one after the other.
        image: layers, and ``layer`` what is in each.
        idle, slow: connections that rest, and that read too little.
        watched: seconds for which memory is watched.
        stored: blobs in a large store.
    """

    blob: int = 512 * MiB
    crowd: int = 16
    crowd_blob: int = 128 * MiB
    herd: int = 20
    herd_blob: int = 200 * MiB
    herd_rate: int = 20 * MiB
    requests: float = 5.0
    handshakes: int = 2000
    image: int = 6
    layer: int = 50 * MiB
    idle: int = 1000
    slow: int = 500
    watched: float = 5.0
    stored: int = 1_000_000


FULL: Final = Scale()
#: Everything once, to see whether it works.
TINY: Final = Scale(
    blob=3 * MiB,
    crowd=3,
    crowd_blob=MiB,
    herd=4,
    herd_blob=2 * MiB,
    herd_rate=4 * MiB,
    requests=0.5,
    handshakes=20,
    image=2,
    layer=MiB,
    idle=10,
    slow=5,
    watched=0.3,
    stored=2000,
)


@frozen
class Peer:
    """A server that is measured, and how a client reaches it."""

    name: str
    process: Process
    way: Way

    def cpu(self) -> float:
        """CPU seconds that it has used so far."""
        return cpu_seconds(self.process.pid)

    def memory(self, field: str = "VmRSS") -> int:
        """Bytes of memory that it has now."""
        return memory(self.process.pid, field)


@frozen
class Setting:
    """Where and how large.

    Attributes:
        directory: for everything that is written.
        cores: None to leave it to the kernel what runs where.
        without: peers, as functions of :mod:`bench.peers`, that are left out.
        profile: where regproxy leaves a profile of its reactor's thread, which makes it slower.
    """

    directory: Path
    scale: Scale = FULL
    cores: Cores | None = None
    without: frozenset[Callable[..., object]] = frozenset()
    profile: Path | None = None

    def subdirectory(self, name: str) -> Path:
        """The directory *name*, which is made if need be."""
        directory = self.directory / name
        directory.mkdir(exist_ok=True)
        return directory

    def open_to_others(self) -> None:
        """Let servers in that do not run as the user who started them."""
        self.directory.chmod(0o755)

    def pinned(self, arguments: Sequence[str]) -> list[str]:
        """The command line that runs *arguments* where servers are to run."""
        return list(arguments) if self.cores is None else self.cores.pinned(arguments)

    def start(
        self,
        stack: ExitStack,
        upstream: AnyUpstream,
        *peers: Callable[[Setting, AnyUpstream], AbstractContextManager[Peer]],
    ) -> list[Peer]:
        """Start the *peers* before *upstream*; they are stopped with *stack*."""
        wanted = (peer for peer in peers if peer not in self.without)
        return [stack.enter_context(peer(self, upstream)) for peer in wanted]

    @contextmanager
    def serving(
        self,
        name: str,
        arguments: Sequence[str],
        port: int,
        *,
        measured: bool = True,
        env: dict[str, str] | None = None,
    ) -> Iterator[Process]:
        """Run a server until the end of the block; it begins when *port* takes connections.

        Args:
            measured: it runs on the servers' core; an upstream does not.
        """
        command = self.pinned(arguments) if measured else list(arguments)
        log = self.subdirectory(name) / "log"
        process = Process(name, command, log=log, env=env or environment())
        try:
            process.wait_until(lambda: listens(port))
            yield process
        finally:
            process.stop()


@frozen
class Used:
    """What something took.

    Attributes:
        seconds: by the clock.
        server: CPU seconds of the server.
        client: CPU seconds of this process and of those that it waited for.
    """

    seconds: float
    server: float
    client: float

    @property
    def client_share(self) -> float:
        """How busy the clients were, of 1: at about 1 it is them that are measured."""
        return self.client / self.seconds


def use(peer: Peer, work: Callable[[], object]) -> Used:
    """Do *work*, and see what it takes of *peer* and of this process."""
    server, client, begun = peer.cpu(), _own_cpu(), time.monotonic()
    work()
    seconds = time.monotonic() - begun
    return Used(seconds, peer.cpu() - server, _own_cpu() - client)


def _own_cpu() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def check(way: Way, target: str, digest: str) -> None:
    """Get *target* as any client does, all of it, and see that it is *digest*.

    Raises:
        Refused: it is not.
    """
    command = [program("curl"), "--silent", "--show-error", "--fail", *way.curl_options]
    with subprocess.Popen(
        [*command, way.url(target)], stdout=subprocess.PIPE, env=environment()
    ) as curl:
        assert curl.stdout is not None
        found = "sha256:" + hashlib.file_digest(curl.stdout, "sha256").hexdigest()  # type: ignore[arg-type]
    if curl.returncode != 0:
        raise Refused(
            f"GET {target} on port {way.port} of {ADDRESS}: curl ended with {curl.returncode}"
        )
    if found != digest:
        raise Refused(f"GET {target} on port {way.port} of {ADDRESS} brought {found}")
