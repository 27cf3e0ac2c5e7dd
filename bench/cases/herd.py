"""Many clients want the same new blob within one second, and it comes slowly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from statistics import median

from bench.case import Case, Contestants, Figure, Sample, at_most
from bench.drain import at_once, drain
from bench.peers.nginx import nginx
from bench.peers.regproxy import regproxy
from bench.setting import Peer, Setting, use
from bench.upstreams import FileServer, file_server

# Seconds within which all clients begin.
_SPREAD = 0.9
ALONE = "upstream"


@contextmanager
def begin(setting: Setting) -> Iterator[Contestants]:
    """Have a slow upstream."""
    with ExitStack() as stack:
        upstream = stack.enter_context(file_server(setting, rate=setting.scale.herd_rate))
        peers = setting.start(stack, upstream, regproxy, nginx)
        contestants = {peer.name: partial(measure, setting, upstream, peer) for peer in peers}
        yield {ALONE: partial(alone, setting, upstream), **contestants}


def alone(setting: Setting, upstream: FileServer) -> Sample:
    """One client straight at the upstream: the time that nobody can beat."""
    drained = drain(upstream.way, upstream.way.blob(upstream.make_blob(setting.scale.herd_blob)))
    return {"first": drained.first_after, "wall": drained.seconds, "gets": 1}


def measure(setting: Setting, upstream: FileServer, peer: Peer) -> Sample:
    """All clients take a blob that nobody has taken before."""
    scale = setting.scale
    digest = upstream.make_blob(scale.herd_blob)
    take = partial(drain, peer.way, peer.way.blob(digest))
    drained = []

    def work() -> None:
        drained.extend(at_once([take] * scale.herd, interval=_SPREAD / scale.herd))

    used = use(peer, work)
    begun = min(each.begun for each in drained)
    return {
        "first": median(each.first_after for each in drained),
        "wall": max(each.ended for each in drained) - begun,
        "gets": upstream.gets(digest),
        "cpu": used.server,
    }


CASE = Case(
    name="herd",
    title="cold herd: 20 clients, 200 MiB at 20 MiB/s",
    figures=(
        Figure("first", "first byte, median", "s", 3),
        Figure("wall", "until all have all", "s"),
        Figure("gets", "upstream GETs", "", 0),
        Figure("cpu", "CPU of the server", "s"),
    ),
    targets=(
        at_most("first", 0.1),
        at_most("wall", 1.05, of=ALONE),
        at_most("gets", 1),
    ),
    begin=begin,
)
