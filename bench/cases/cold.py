"""One client gets a large blob that nobody has got before, from an upstream that is fast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from bench.case import CPU_PER_GIB, RATE, Case, Contestants, Sample, at_least
from bench.drain import drain
from bench.machine import back_memory
from bench.peers.nginx import nginx
from bench.peers.regproxy import regproxy
from bench.setting import GiB, Peer, Setting, use
from bench.upstreams import FileServer, file_server


@contextmanager
def begin(setting: Setting) -> Iterator[Contestants]:
    """Have empty caches."""
    with ExitStack() as stack:
        upstream = stack.enter_context(file_server(setting))
        peers = setting.start(stack, upstream, regproxy, nginx)
        yield {peer.name: partial(measure, setting, upstream, peer) for peer in peers}


def measure(setting: Setting, upstream: FileServer, peer: Peer) -> Sample:
    """Take a blob for the first time."""
    size = setting.scale.blob
    digest = upstream.make_blob(size)
    back_memory(3 * size)
    used = use(peer, lambda: drain(peer.way, peer.way.blob(digest)))
    return {"cpu_per_gib": used.server * GiB / size, "rate": size / 1e6 / used.seconds}


CASE = Case(
    name="cold",
    title="cold single 512 MiB from an unthrottled upstream",
    figures=(RATE, CPU_PER_GIB),
    targets=(at_least("rate", 0.8, of="nginx"),),
    begin=begin,
)
