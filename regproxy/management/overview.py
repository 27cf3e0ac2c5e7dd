"""The proxy and its registries in numbers, for people: what every room knows, put together."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from attrs import asdict, frozen
from twisted.internet.interfaces import IReactorTime

from regproxy import __version__
from regproxy.config.model import Config, RegistrySection
from regproxy.management.loop_delay import LoopDelay
from regproxy.management.store_numbers import store_numbers
from regproxy.management.tally import NONE, Served, Traffic
from regproxy.management.values import (
    CAValue,
    RateLimitValue,
    RegistryValue,
    Stats,
    StoreValue,
)
from regproxy.oci.errors import HostInvalid
from regproxy.oci.names import Host
from regproxy.policy.interception import OTHER
from regproxy.registry.backoff import BackOff
from regproxy.store.housekeeping import Housekeeping
from regproxy.store.store import Store
from regproxy.upstream.ledger import Ledger
from regproxy.upstream.rate_limits import RateLimits


@frozen
class Rooms:
    """Who knows what.

    Attributes:
        connections: how many of clients are open.
        ca: the certificate authority, as it is now.
    """

    traffic: Traffic
    ledger: Ledger
    rate_limits: RateLimits
    backoff: BackOff
    store: Store
    housekeeping: Housekeeping
    loop_delay: LoopDelay
    connections: Callable[[], int]
    ca: Callable[[], CAValue]


class Overview:
    """Puts numbers together.

    Args:
        clock: the one by which the rooms count.
        now: seconds since the epoch.
    """

    def __init__(
        self, rooms: Rooms, config: Config, clock: IReactorTime, now: Callable[[], float]
    ) -> None:
        self._rooms = rooms
        self._config = config
        self._clock = clock
        self._now = now
        self._started = self._time(now())

    def follow(self, config: Config) -> None:
        """Tell of the registries of *config* from now on."""
        self._config = config

    async def stats(self) -> Stats:
        """The proxy in numbers; without the store's if it does not tell them."""
        rooms = self._rooms
        store = await store_numbers(rooms.housekeeping, self._clock)
        served = sum(rooms.traffic.served().values(), Served())
        fetched = rooms.ledger.bytes
        return Stats(
            version=__version__,
            started_at=self._started,
            requests=served.requests,
            hits=served.hits,
            hit_ratio=served.hits / served.requests if served.requests else None,
            bytes_to_clients=served.bytes,
            bytes_from_upstream=fetched,
            bytes_saved=max(0, served.bytes - fetched),
            store=None if store is None else StoreValue(**asdict(store)),
            rate_limits=self.rate_limits(),
            fills=rooms.store.fills,
            connections=rooms.connections(),
            loop_delay_p99=rooms.loop_delay.p99,
            ca=rooms.ca(),
        )

    def rate_limits(self) -> tuple[RateLimitValue, ...]:
        """What registries have last said of how much they still let be asked."""
        # The clock may be any; what it says is told by the one that people have.
        offset = self._now() - self._clock.seconds()
        return tuple(
            RateLimitValue(
                registry=str(host),
                login=str(speaker),
                limit=reading.limit,
                remaining=reading.remaining,
                window=reading.window,
                seen_at=self._time(reading.seen_at + offset),
            )
            for (host, speaker), reading in self._rooms.rate_limits.readings().items()
        )

    def registries(self) -> tuple[RegistryValue, ...]:
        """Those with a section in the configuration, and those that were asked for, by name."""
        rooms = self._rooms
        served = rooms.traffic.served()
        figures = rooms.ledger.figures
        names = {*map(str, self._config.registries), *served, *figures} - {NONE, OTHER}
        resting: dict[str, float] = {}
        for host, left in rooms.backoff.resting().items():
            name = rooms.traffic.name_of(host)
            resting[name] = max(left, resting.get(name, 0.0))
        return tuple(
            self._registry(name, served.get(name, Served()), resting.get(name, 0.0))
            for name in sorted(names)
        )

    def _registry(self, name: str, served: Served, resting: float) -> RegistryValue:
        try:
            host = Host.parse(name)
        except HostInvalid:
            # A pattern: its registries have no section.
            host = None
        section = RegistrySection() if host is None else self._config.registry(host)
        figures = self._rooms.ledger.figures.get(name)
        mishap = None if figures is None else figures.last_error
        return RegistryValue(
            name=name,
            upstream=section.upstream,
            auth=str(section.effective_auth),
            access=str(section.effective_access),
            push=str(section.push),
            requests=served.requests,
            hits=served.hits,
            bytes_to_clients=served.bytes,
            bytes_from_upstream=0 if figures is None else figures.bytes,
            errors=0 if figures is None else figures.errors.total(),
            last_error=None if mishap is None else mishap.message,
            last_error_at=None if mishap is None else self._time(mishap.time),
            backoff_seconds=round(resting, 3),
            latency_p50=None if figures is None else figures.latency,
        )

    def _time(self, seconds: float) -> datetime:
        return datetime.fromtimestamp(seconds, UTC)
