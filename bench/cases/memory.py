"""Memory: with nothing to do, with many idle connections, with many slow readers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

from bench.case import Case, Contestants, Figure, Sample, at_most
from bench.peers.regproxy import regproxy
from bench.setting import MiB, Peer, Setting
from bench.upstreams import FileServer, file_server
from bench.way import Connection, Refused

# What the kernel may take for a slow reader.
_RECEIVE_BUFFER = 64 * 1024
# Seconds between two looks at the memory. Slow readers read a record in between.
_INTERVAL = 0.1


@contextmanager
def begin(setting: Setting) -> Iterator[Contestants]:
    """Have a blob."""
    with ExitStack() as stack:
        upstream = stack.enter_context(file_server(setting))
        digest = upstream.make_blob(setting.scale.blob)
        yield {"regproxy": lambda: measure(setting, upstream, digest)}


def measure(setting: Setting, upstream: FileServer, digest: str) -> Sample:
    """Each state in a process of its own: memory that was used once may never come back."""
    sample: Sample = {}
    seconds = setting.scale.watched
    with regproxy(setting, upstream) as peer:
        sample["at_rest"] = watch(peer, seconds)
    with regproxy(setting, upstream) as peer, ExitStack() as stack:
        for connection in connections(peer, setting.scale.idle, stack):
            connection.send(peer.way.request("GET", "/v2/"))
            connection.take_answer(is_head=False)
        sample["idle"] = watch(peer, seconds)
    with regproxy(setting, upstream) as peer, ExitStack() as stack:
        upstream.fill(peer, digest)
        readers = list(connections(peer, setting.scale.slow, stack))
        for reader in readers:
            reader.send(peer.way.request("GET", peer.way.blob(digest)))
        for reader in readers:
            status, _, _ = reader.read_head()
            if status != 200:
                raise Refused(f"a slow reader was answered with {status}")

        def read_a_little() -> None:
            for reader in readers:
                reader.receive()

        sample["slow"] = watch(peer, seconds, read_a_little)
        sample["slow_anonymous"] = peer.memory("RssAnon") / MiB
    return sample


def connections(peer: Peer, count: int, stack: ExitStack) -> Iterator[Connection]:
    """Open so many, one by one; they are closed with *stack*."""
    for _ in range(count):
        yield stack.enter_context(closing(peer.way.open(_RECEIVE_BUFFER)))


def watch(peer: Peer, seconds: float, meanwhile: Callable[[], object] = lambda: None) -> float:
    """The most that *peer* has in memory in the next *seconds*, in MiB."""
    most = 0
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        meanwhile()
        most = max(most, peer.memory())
        time.sleep(_INTERVAL)
    return most / MiB


CASE = Case(
    name="memory",
    title="memory: idle; 1,000 idle connections; 500 slow readers of one warm blob",
    figures=(
        Figure("at_rest", "RSS at rest", "MiB", 0),
        Figure("idle", "RSS, idle connections", "MiB", 0),
        Figure("slow", "RSS, slow readers", "MiB", 0),
        Figure("slow_anonymous", "of it not of files", "MiB", 0),
    ),
    targets=(at_most("at_rest", 80), at_most("idle", 160), at_most("slow", 250)),
    begin=begin,
)
