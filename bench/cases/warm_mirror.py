"""One client gets a large blob that is in the cache, from a mirror without TLS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from bench.case import CLIENT, CPU_PER_GIB, RATE, Case, Contestants, at_most
from bench.cases.warm_tls import measure
from bench.peers.docker_registry import docker_registry
from bench.peers.drayage import drayage
from bench.peers.regproxy import Entrance, regproxy
from bench.setting import Setting
from bench.upstreams import file_server


@contextmanager
def begin(setting: Setting) -> Iterator[Contestants]:
    """Have the blob in every cache."""
    with ExitStack() as stack:
        upstream = stack.enter_context(file_server(setting))
        digest = upstream.make_blob(setting.scale.blob)
        mirror = partial(regproxy, entrance=Entrance.MIRROR)
        peers = setting.start(stack, upstream, mirror, docker_registry, drayage)
        for peer in peers:
            upstream.fill(peer, digest)
        yield {peer.name: partial(measure, peer, digest) for peer in peers}


CASE = Case(
    name="warm_mirror",
    title="warm 512 MiB blob, plain mirror",
    figures=(CPU_PER_GIB, RATE, CLIENT),
    targets=(at_most("cpu_per_gib", 1.1, of="docker-registry"),),
    begin=begin,
)
