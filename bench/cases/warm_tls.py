"""One client gets a large blob that is in the cache, through CONNECT and TLS 1.3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from bench.case import CLIENT, CPU_PER_GIB, RATE, Case, Contestants, Sample, at_most
from bench.drain import drain
from bench.peers.nginx import nginx
from bench.peers.regproxy import regproxy
from bench.peers.squid import squid
from bench.peers.static_file import static_file
from bench.setting import GiB, Peer, Setting, use
from bench.upstreams import file_server

# How often the blob is taken in one run: a run of half a second would be at the mercy of others.
_TIMES = 2


@contextmanager
def begin(setting: Setting) -> Iterator[Contestants]:
    """Have the blob in every cache."""
    with ExitStack() as stack:
        upstream = stack.enter_context(file_server(setting))
        digest = upstream.make_blob(setting.scale.blob)
        peers = setting.start(stack, upstream, regproxy, nginx, squid, static_file)
        for peer in peers:
            upstream.fill(peer, digest)
        yield {peer.name: partial(measure, peer, digest) for peer in peers}


def measure(peer: Peer, digest: str) -> Sample:
    """Take the blob."""
    size = 0

    def work() -> None:
        nonlocal size
        for _ in range(_TIMES):
            size += drain(peer.way, peer.way.blob(digest)).size

    used = use(peer, work)
    return {
        "cpu_per_gib": used.server * GiB / size,
        "rate": size / 1e6 / used.seconds,
        "client": 100 * used.client_share,
    }


CASE = Case(
    name="warm_tls",
    title="warm 512 MiB blob, CONNECT + TLS 1.3",
    figures=(CPU_PER_GIB, RATE, CLIENT),
    targets=(at_most("cpu_per_gib", 1.0, of="nginx"),),
    begin=begin,
)
