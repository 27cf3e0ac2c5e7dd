"""The transfers under way, for people to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from twisted.internet.interfaces import IReactorTime

from regproxy.management.values import FillState, FillValue
from regproxy.policy.filling import Phase
from regproxy.store.fill import Fill
from regproxy.store.store import Store

_STATES: Final = {Phase.COMMITTED: FillState.DONE, Phase.FAILED: FillState.FAILED}


class Fills:
    """What the store is being filled with.

    Args:
        clock: the store's.
        now: seconds since the epoch.
    """

    def __init__(self, store: Store, clock: IReactorTime, now: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._now = now

    def running(self) -> Sequence[Fill]:
        """The transfers under way whose origin is known, in the order in which they began."""
        return [fill for fill in self._store.transfers if fill.origin is not None]

    def values(self) -> tuple[FillValue, ...]:
        """The same as values."""
        return tuple(map(self.value, self.running()))

    def value(self, fill: Fill) -> FillValue:
        """How *fill* stands."""
        assert fill.origin is not None
        seconds = self._clock.seconds() - fill.begun
        stored = fill.state.arrived
        return FillValue(
            digest=str(fill.digest),
            registry=str(fill.origin.host),
            repository=str(fill.origin.repository),
            kind=fill.origin.kind,
            state=_STATES.get(fill.state.phase, FillState.RUNNING),
            size=fill.state.size,
            stored=stored,
            readers=fill.readers,
            started_at=datetime.fromtimestamp(self._now() - seconds, UTC),
            bytes_per_second=round((stored - fill.resumed) / seconds, 1) if seconds > 0 else 0.0,
        )
