"""What ``/metrics`` shows, in the format that Prometheus reads.

Every room keeps plain numbers of its own; here they are read and given their names, when
somebody asks. Names, units and types follow Prometheus's "Metric and label naming". What
each means is told in ``docs/reference/metrics.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import accumulate
from typing import Final, TypeVar

from attrs import frozen
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.utils import floatToGoString
from twisted.internet.interfaces import IReactorTime

from regproxy import __version__
from regproxy.figures import Histogram
from regproxy.management.connections import Connections
from regproxy.management.loop_delay import LoopDelay
from regproxy.management.store_numbers import store_numbers
from regproxy.management.tally import Traffic
from regproxy.policy.interception import OTHER
from regproxy.registry.backoff import BackOff
from regproxy.store.housekeeping import Housekeeping, StoreStats
from regproxy.store.store import Store
from regproxy.tls.leaves import LeafCache
from regproxy.tls.server import Handshakes
from regproxy.upstream.ledger import Ledger
from regproxy.upstream.rate_limits import RateLimits

#: What counts as an error of a registry: the reasons of ``UpstreamError``, and statuses. Each is
#: there from the start: Prometheus sees no rise in what begins with 1.
UPSTREAM_REASONS: Final = (
    *("unresolved", "unreachable", "parent-proxy", "tls", "timeout", "broken", "incomplete"),
    *("head-too-large", "too-large", "server-error", "rate-limited", "login", "address"),
    *("redirect", "other"),
)
#: Why transfers fail: the reasons of ``FillFailed``, and those.
FILL_REASONS: Final = (
    "digest",
    "size",
    "disk",
    "abandoned",
    "unsent",
    "stopped",
    *UPSTREAM_REASONS,
)

_Family = TypeVar("_Family", CounterMetricFamily, GaugeMetricFamily)
# The values of the labels, in the order of their names.
_Labels = TypeVar("_Labels", bound=tuple[str, ...])


@frozen
class Sources:
    """Where the numbers are.

    Attributes:
        ca_expires: gives when the first certificate of the CA's chain does.
    """

    traffic: Traffic
    ledger: Ledger
    rate_limits: RateLimits
    backoff: BackOff
    store: Store
    housekeeping: Housekeeping
    connections: Connections
    handshakes: Handshakes
    leaves: LeafCache
    loop_delay: LoopDelay
    ca_expires: Callable[[], datetime]


class Metrics:
    """Renders all metrics.

    Args:
        clock: the reactor.
    """

    def __init__(self, sources: Sources, clock: IReactorTime) -> None:
        self._sources = sources
        self._clock = clock
        self._process = CollectorRegistry()
        for collector in ProcessCollector, PlatformCollector, GCCollector:
            collector(registry=self._process)

    async def page(self, accept: str) -> tuple[str, bytes]:
        """The media type that fits the Accept field *accept* best, and the page in it.

        Without the store's numbers if it does not tell them.
        """
        stats = await store_numbers(self._sources.housekeeping, self._clock)
        try:
            encode, media_type = choose_encoder(accept)
        except TypeError:
            # prometheus_client compares the version with numbers, whatever it is.
            encode, media_type = choose_encoder("")
        return media_type, encode(_Collected((*self._process.collect(), *self._collect(stats))))

    def _collect(self, stats: StoreStats | None) -> Iterator[Metric]:
        sources = self._sources
        yield _gauge("build_info", "The version that runs.", {(__version__,): 1}, "version")
        yield from _traffic(sources.traffic)
        yield from _clients(sources)
        yield from _upstream(sources.ledger)
        yield from _restraint(sources)
        yield from _fills(sources.store)
        if stats is not None:
            yield from _store(stats)
        yield from _loop(sources.loop_delay)


@frozen
class _Collected:
    """What an encoder takes."""

    metrics: Iterable[Metric]

    def collect(self) -> Iterable[Metric]:
        return self.metrics


def _traffic(traffic: Traffic) -> Iterator[Metric]:
    yield _counter(
        "requests_total",
        "Requests and tunnels that ended.",
        traffic.requests(),
        *("way", "registry", "kind", "cache", "status"),
    )
    yield _counter(
        "sent_bytes_total",
        "Bytes of bodies to clients.",
        traffic.sent(),
        *("way", "registry", "cache"),
    )
    yield _histogram(
        "request_duration_seconds",
        "From the head of a request to the end of its answer.",
        traffic.durations(),
        *("way", "kind", "cache"),
    )


def _clients(sources: Sources) -> Iterator[Metric]:
    yield _gauge(
        "open_connections",
        "Connections of clients.",
        {(way,): count for way, count in sources.connections.open.items()},
        "listener",
    )
    handshakes = sources.handshakes
    yield _counter(
        "tls_handshakes_total",
        "TLS handshakes with clients that ended.",
        {
            ("completed",): handshakes.completed,
            ("untrusted",): handshakes.untrusted,
            ("failed",): handshakes.failed,
        },
        "result",
    )
    leaves = sources.leaves
    yield _counter("tls_leaves_issued_total", "Certificates made.", {(): leaves.issued})
    yield _gauge("tls_leaves_kept", "Certificates at hand.", {(): len(leaves)})
    yield _gauge(
        "ca_expiry_timestamp_seconds",
        "When the CA's certificate expires.",
        {(): sources.ca_expires().timestamp()},
    )


def _upstream(ledger: Ledger) -> Iterator[Metric]:
    figures = ledger.figures.items()
    yield _counter(
        "upstream_received_bytes_total",
        "Bytes of bodies from registries.",
        {(name,): each.bytes for name, each in figures},
        "registry",
    )
    yield _histogram(
        "upstream_first_byte_seconds",
        "From a question to a registry to the beginning of its answer.",
        {(name,): each.first_byte for name, each in figures},
        "registry",
    )
    yield _counter(
        "upstream_errors_total",
        "Questions to registries without a whole answer.",
        {
            (name, reason): each.errors[reason]
            for name, each in figures
            for reason in UPSTREAM_REASONS
        },
        *("registry", "reason"),
    )


def _restraint(sources: Sources) -> Iterator[Metric]:
    # Of several hosts that count under one name, the latest is shown. The others are servers
    # that registries have redirected to: what they count is no pulls.
    readings = {
        (name, str(speaker)): reading
        for (host, speaker), reading in sources.rate_limits.readings().items()
        if (name := sources.traffic.name_of(host)) != OTHER
    }
    limits = {key: each.limit for key, each in readings.items() if each.limit is not None}
    yield _gauge(
        "upstream_ratelimit_limit",
        "Requests that the registry allows in a window.",
        limits,
        "registry",
        "login",
    )
    yield _gauge(
        "upstream_ratelimit_remaining",
        "Requests that the registry still allows.",
        {key: each.remaining for key, each in readings.items()},
        "registry",
        "login",
    )
    rests: dict[tuple[str], float] = {}
    for host, left in sources.backoff.resting().items():
        key = (sources.traffic.name_of(host),)
        rests[key] = max(left, rests.get(key, 0.0))
    yield _gauge(
        "upstream_backoff_seconds",
        "For how long the registry, which answered 429, is left alone yet.",
        rests,
        "registry",
    )


def _fills(store: Store) -> Iterator[Metric]:
    counts = store.fill_counts
    yield _gauge("fills_in_flight", "Transfers under way.", {(): store.fills})
    yield _counter("fills_started_total", "Transfers begun.", {(): counts.started})
    yield _counter("fills_resumed_total", "Times one was gone on with.", {(): counts.resumed})
    yield _counter(
        "fills_failed_total",
        "Transfers that came to nothing.",
        {(reason,): counts.failed[reason] for reason in FILL_REASONS},
        "reason",
    )


def _store(stats: StoreStats) -> Iterator[Metric]:
    yield _gauge("store_bytes", "Bytes of stored content.", {(): stats.bytes})
    yield _gauge("store_blobs", "Stored blobs and manifests.", {(): stats.blobs})
    yield _gauge("store_limit_bytes", "Bytes that may be stored.", {(): stats.limit})
    yield _gauge("store_free_bytes", "Bytes free on its file system.", {(): stats.free})
    yield _counter("store_evicted_blobs_total", "Blobs evicted.", {(): stats.evicted})
    yield _counter("store_evicted_bytes_total", "Bytes evicted.", {(): stats.evicted_bytes})
    yield _counter("store_quarantined_blobs_total", "Blobs found damaged.", {(): stats.quarantined})
    yield _counter("store_disk_full_total", "Times the disk had no room.", {(): stats.disk_full})


def _loop(delay: LoopDelay) -> Iterator[Metric]:
    yield _histogram("loop_delay_seconds", "How late timers fired.", {(): delay.delays})
    p99 = delay.p99
    yield _gauge(
        "loop_delay_p99_seconds",
        "The 99th percentile of the last minute.",
        {} if p99 is None else {(): p99},
    )


def _counter(
    name: str, text: str, values: Mapping[_Labels, float], *labels: str
) -> CounterMetricFamily:
    return _filled(CounterMetricFamily(f"regproxy_{name}", text, labels=labels), values)


def _gauge(
    name: str, text: str, values: Mapping[_Labels, float], *labels: str
) -> GaugeMetricFamily:
    return _filled(GaugeMetricFamily(f"regproxy_{name}", text, labels=labels), values)


def _filled(family: _Family, values: Mapping[_Labels, float]) -> _Family:
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _histogram(
    name: str, text: str, values: Mapping[_Labels, Histogram], *labels: str
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(f"regproxy_{name}", text, labels=labels)
    for label_values, histogram in values.items():
        family.add_metric(label_values, _buckets(histogram), histogram.sum)
    return family


def _buckets(histogram: Histogram) -> Sequence[tuple[str, float]]:
    bounds = map(floatToGoString, (*histogram.bounds, float("inf")))
    return list(zip(bounds, accumulate(histogram.counts), strict=True))
