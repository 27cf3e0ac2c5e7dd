"""Many clients at once get blobs that are in the cache: all the same, or each its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from statistics import median

from bench.case import Case, Contestants, Figure, Sample, at_least, at_most
from bench.drain import Drained, at_once, drain
from bench.peers.nginx import nginx
from bench.peers.regproxy import regproxy
from bench.setting import GiB, Peer, Setting, use
from bench.upstreams import file_server


@contextmanager
def begin(setting: Setting) -> Iterator[Contestants]:
    """Have all blobs in every cache."""
    scale = setting.scale
    with ExitStack() as stack:
        upstream = stack.enter_context(file_server(setting))
        digests = [upstream.make_blob(scale.crowd_blob) for _ in range(scale.crowd)]
        peers = setting.start(stack, upstream, regproxy, nginx)
        for peer in peers:
            for digest in digests:
                upstream.fill(peer, digest)
        yield {peer.name: partial(measure, peer, digests) for peer in peers}


def measure(peer: Peer, digests: Sequence[str]) -> Sample:
    """All take the first blob, then each its own."""
    same = _take(peer, [digests[0]] * len(digests))
    different = _take(peer, digests)
    return {f"same_{name}": value for name, value in same.items()} | {
        f"different_{name}": value for name, value in different.items()
    }


def _take(peer: Peer, digests: Sequence[str]) -> Sample:
    drained: list[Drained] = []

    def work() -> None:
        drained.extend(at_once([partial(drain, peer.way, peer.way.blob(each)) for each in digests]))

    used = use(peer, work)
    size = sum(each.size for each in drained)
    seconds = [each.seconds for each in drained]
    return {
        "rate": size / 1e6 / used.seconds,
        "cpu": used.server * GiB / size,
        "spread": max(seconds) / median(seconds),
    }


def _figures(which: str) -> tuple[Figure, ...]:
    return (
        Figure(f"{which}_rate", f"{which}: throughput", "MB/s", 0),
        Figure(f"{which}_cpu", f"{which}: CPU of the server", "s/GiB"),
        Figure(f"{which}_spread", f"{which}: slowest client's time", "x the median"),
    )


CASE = Case(
    name="crowd",
    title="warm, 16 clients at once, 128 MiB each, same and different blobs",
    figures=(*_figures("same"), *_figures("different")),
    targets=(
        at_least("same_rate", 1.0, of="nginx"),
        at_most("same_spread", 1.3),
        at_least("different_rate", 1.0, of="nginx"),
        at_most("different_spread", 1.3),
    ),
    begin=begin,
)
