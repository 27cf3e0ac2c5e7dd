"""What has been answered, in numbers: put aside as it happens, counted when somebody asks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import ItemsView, Iterable, Mapping
from functools import cache, lru_cache, partial
from typing import Final

from attrs import Factory, define, frozen

from regproxy.config.model import Config
from regproxy.figures import Histogram
from regproxy.oci.errors import HostInvalid
from regproxy.oci.kinds import RequestKind
from regproxy.oci.names import Host
from regproxy.policy.interception import OTHER, counted_as
from regproxy.web.access_log import AccessRecord, UnderWay
from regproxy.web.channel import CLIENT_LEFT

#: In the place of a registry where none was named.
NONE: Final = "none"
#: Seconds: from a small answer out of the store to a large blob over a slow line.
DURATIONS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
#: What the store is there for.
CONTENT: Final = frozenset({RequestKind.BLOB, RequestKind.MANIFEST, RequestKind.TAG})
#: Cache statuses of content that no registry had to send for it.
HITS: Final = frozenset({"hit", "stale", "collapsed"})
# Outcomes of requests that were given what they asked for. A client that leaves may have enough.
_ANSWERED: Final = frozenset({"2xx", "3xx", str(CLIENT_LEFT)})

# Of the hosts that clients name, as many are remembered with the name that they count under.
_KNOWN: Final = 1024
# Many records in a row cost less than each of them between two answers, and as many take 0.1 ms.
_BATCH: Final = 256


# Way in, registry, kind, cache status, outcome.
_Labels = tuple[str, str, RequestKind, str, str]


@define
class _Series:
    """The records that agree in all labels."""

    requests: int = 0
    sent: int = 0
    durations: Histogram = Factory(lambda: Histogram(DURATIONS))


@frozen
class Served:
    """What clients got.

    Attributes:
        requests: for content, that were answered with it.
        hits: how many of them no registry had to send anything for but a word.
        bytes: of bodies, tunnels not counted.
    """

    requests: int = 0
    hits: int = 0
    bytes: int = 0

    def __add__(self, other: Served) -> Served:
        return Served(
            self.requests + other.requests, self.hits + other.hits, self.bytes + other.bytes
        )


class Traffic:
    """Counts the records of the access log.

    Args:
        under_way: the requests whose records are still to come.
    """

    def __init__(self, config: Config, under_way: Iterable[UnderWay] = ()) -> None:
        self._under_way = under_way
        self._waiting: list[AccessRecord] = []
        self._series: defaultdict[_Labels, _Series] = defaultdict(_Series)
        self.follow(config)

    def follow(self, config: Config) -> None:
        """Know the registries of *config* by name from now on."""
        self._count()
        self._names = lru_cache(_KNOWN)(partial(_name, config))

    def name_of(self, host: Host) -> str:
        """The name under which *host* is counted."""
        return self._names(str(host))

    def record(self, record: AccessRecord) -> None:
        """Count one record."""
        self._waiting.append(record)
        if len(self._waiting) >= _BATCH:
            self._count()

    def requests(self) -> dict[tuple[str, str, str, str, str], int]:
        """How many, by way in, registry, kind, cache status and :func:`outcome`."""
        return {labels: series.requests for labels, series in self._counted()}

    def sent(self) -> Counter[tuple[str, str, str]]:
        """Bytes of bodies, by way in, registry and cache status."""
        sent: Counter[tuple[str, str, str]] = Counter()
        for (way, registry, _, cache_status, _), series in self._counted():
            sent[way, registry, cache_status] += series.sent
        return sent

    def durations(self) -> Mapping[tuple[str, str, str], Histogram]:
        """Seconds, by way in, kind and cache status."""
        durations: defaultdict[tuple[str, str, str], Histogram]
        durations = defaultdict(lambda: Histogram(DURATIONS))
        for (way, _, kind, cache_status, _), series in self._counted():
            durations[way, kind, cache_status].include(series.durations)
        return durations

    def served(self) -> dict[str, Served]:
        """What clients got, by registry, with the bytes of answers that are not whole yet."""
        found: defaultdict[str, Served] = defaultdict(Served)
        for (_, registry, kind, cache_status, status), series in self._counted():
            if registry == NONE or kind is RequestKind.TUNNEL:
                continue
            content = kind in CONTENT and status in _ANSWERED
            found[registry] += Served(
                series.requests if content else 0,
                series.requests if content and cache_status in HITS else 0,
                series.sent,
            )
        for request in self._under_way:
            if (registry := self._names(request.registry)) != NONE:
                found[registry] += Served(bytes=request.sentLength)
        return dict(found)

    def _counted(self) -> ItemsView[_Labels, _Series]:
        self._count()
        return self._series.items()

    def _count(self) -> None:
        waiting, self._waiting = self._waiting, []
        for record in waiting:
            registry, status = self._names(record.registry), outcome(record.status)
            series = self._series[record.way, registry, record.kind, record.cache, status]
            series.requests += 1
            series.sent += record.bytes
            series.durations.add(record.duration)


@cache
def outcome(status: int) -> str:
    """The class of *status*; a client that left is no error of its own or of ours."""
    return str(status) if status == CLIENT_LEFT else f"{status // 100}xx"


def _name(config: Config, host: str | None) -> str:
    if host is None:
        return NONE
    try:
        return counted_as(config, Host.parse(host))
    except HostInvalid:
        # What a client sent in the place of a host, and was refused for.
        return OTHER
