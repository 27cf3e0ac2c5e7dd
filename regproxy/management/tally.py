"""What has been answered, in numbers: counted as it happens, read when somebody asks."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from functools import lru_cache, partial
from typing import Final

from regproxy.config.model import Config
from regproxy.oci.errors import HostInvalid
from regproxy.oci.names import Host
from regproxy.policy.interception import OTHER, counted_as
from regproxy.web.access_log import AccessRecord
from regproxy.web.channel import CLIENT_LEFT

#: In the place of a registry where none was named.
NONE: Final = "none"
#: Seconds: from a small answer out of the store to a large blob over a slow line.
DURATIONS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
# Of the hosts that clients name, as many are remembered with the name that they count under.
_KNOWN: Final = 1024


class Histogram:
    """How many values there were of which size.

    Attributes:
        bounds: the largest value of each bucket, in rising order.
        counts: values in each bucket; the last has what is larger than all bounds.
        sum: of all values.
    """

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """One more."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Traffic:
    """Counts the records of the access log.

    Attributes:
        requests: by way in, registry, cache status and :func:`outcome`.
        sent: bytes of bodies, by way in, registry and cache status.
        durations: seconds, by way in and cache status.
    """

    def __init__(self, config: Config) -> None:
        self.requests: Counter[tuple[str, str, str, str]] = Counter()
        self.sent: Counter[tuple[str, str, str]] = Counter()
        self.durations: dict[tuple[str, str], Histogram] = {}
        self.follow(config)

    def follow(self, config: Config) -> None:
        """Know the registries of *config* by name from now on."""
        self._names = lru_cache(_KNOWN)(partial(_name, config))

    def name_of(self, host: Host) -> str:
        """The name under which *host* is counted."""
        return self._names(str(host))

    def record(self, record: AccessRecord) -> None:
        """Count one record."""
        way, cache = record.way, record.cache
        registry = self._names(record.registry)
        self.requests[way, registry, cache, outcome(record.status)] += 1
        self.sent[way, registry, cache] += record.bytes
        durations = self.durations.get((way, cache))
        if durations is None:
            durations = self.durations[way, cache] = Histogram(DURATIONS)
        durations.add(record.duration)


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
