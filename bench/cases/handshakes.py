"""A new connection for each small request: CONNECT, a full TLS 1.3 handshake, one HEAD."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial

from bench.case import Case, Contestants, Figure, Sample, at_least
from bench.cases.small import TAG, warm
from bench.peers.nginx import nginx
from bench.peers.regproxy import regproxy
from bench.setting import Peer, Setting, use
from bench.upstreams import real_registry
from bench.way import Way

# As many connections are open at a time: the server always has something to do.
_AT_ONCE = 8


@contextmanager
def begin(setting: Setting) -> Iterator[Contestants]:
    """Have an image in every cache."""
    with ExitStack() as stack:
        upstream = stack.enter_context(real_registry(setting))
        image = upstream.push_image(TAG, layers=1, size=4096)
        peers = setting.start(stack, upstream, regproxy, nginx)
        for peer in peers:
            warm(peer, image)
        yield {
            peer.name: partial(measure, peer, setting.scale.handshakes, image.digest)
            for peer in peers
        }


def measure(peer: Peer, count: int, digest: str) -> Sample:
    """So many connections."""
    target = peer.way.manifest(digest)

    def work() -> None:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(lambda _: ask(peer.way, target), range(count)):
                pass

    used = use(peer, work)
    return {"per_cpu_second": count / used.server}


def ask(way: Way, target: str) -> None:
    """One connection, one HEAD."""
    with closing(way.open()) as connection:
        connection.send(way.request("HEAD", target))
        connection.take_answer(is_head=True)


CASE = Case(
    name="handshakes",
    title="new CONNECT + TLS 1.3 handshake + HEAD each",
    figures=(Figure("per_cpu_second", "connections of the server", "/CPU s", 0),),
    targets=(at_least("per_cpu_second", 0.6, of="nginx"),),
    begin=begin,
)
