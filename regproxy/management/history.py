"""What went on in the last hour, in steps of ten seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from attrs import frozen

from regproxy.management.values import Sample

#: Seconds from one sample to the next.
STEP: Final = 10.0
#: How many samples are kept.
KEPT: Final = 360


@frozen
class Totals:
    """What there has been since the start of the process. See :class:`Sample`."""

    bytes_to_clients: int
    bytes_from_upstream: int
    requests: int
    hits: int


class History:
    """Keeps by how much the totals grew.

    Args:
        totals: reads them.
        now: seconds since the epoch.
        monotonic: seconds on a clock that nobody sets.
    """

    def __init__(
        self,
        totals: Callable[[], Totals],
        now: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._totals = totals
        self._now = now
        self._monotonic = monotonic
        self._samples: deque[Sample] = deque(maxlen=KEPT)
        self._last: tuple[float, Totals] | None = None

    def tick(self) -> None:
        """A sample ends and the next one begins; to be called each STEP, and at the start."""
        ended, totals = self._monotonic(), self._totals()
        if self._last is not None:
            begun, before = self._last
            seconds = ended - begun
            self._samples.append(
                Sample(
                    time=datetime.fromtimestamp(self._now(), UTC) - timedelta(seconds=seconds),
                    seconds=seconds,
                    bytes_to_clients=totals.bytes_to_clients - before.bytes_to_clients,
                    bytes_from_upstream=totals.bytes_from_upstream - before.bytes_from_upstream,
                    requests=totals.requests - before.requests,
                    hits=totals.hits - before.hits,
                )
            )
        self._last = ended, totals

    def samples(self) -> tuple[Sample, ...]:
        """The last KEPT, the oldest first."""
        return tuple(self._samples)
