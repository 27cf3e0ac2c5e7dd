"""How late the reactor is.

Everything happens in one thread: whoever holds it makes all connections wait. A timer that
fires late tells for how long.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import ceil
from typing import Final

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from regproxy.figures import Histogram

#: Seconds from one look to the next. What holds the reactor for a shorter time is seen
#: now and then, what does so often is seen often.
INTERVAL: Final = 0.1
#: Seconds.
DELAYS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
#: Of so many delays, those of a minute, the percentile is told.
RECENT: Final = 600


class LoopDelay(Service):
    """Has a timer fire again and again while it runs, and keeps how late it was.

    Args:
        clock: the reactor.
        monotonic: seconds on a clock that nobody sets.

    Attributes:
        delays: in seconds.
    """

    def __init__(self, clock: IReactorTime, monotonic: Callable[[], float]) -> None:
        self.delays = Histogram(DELAYS)
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._clock = clock
        self._monotonic = monotonic
        self._call: IDelayedCall | None = None

    @property
    def p99(self) -> float | None:
        """Seconds that 99 of 100 delays of the last minute were at most; None before the first."""
        if not self._recent:
            return None
        return sorted(self._recent)[ceil(0.99 * len(self._recent)) - 1]

    def startService(self) -> None:
        """Begin."""
        super().startService()
        self._look_again()

    def stopService(self) -> None:
        """End."""
        super().stopService()
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _look_again(self) -> None:
        due = self._monotonic() + INTERVAL
        self._call = self._clock.callLater(INTERVAL, self._fired, due)

    def _fired(self, due: float) -> None:
        delay = max(0.0, self._monotonic() - due)
        self.delays.add(delay)
        self._recent.append(delay)
        self._look_again()
