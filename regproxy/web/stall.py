"""A producer whose consumer may be behind, but not for ever."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from zope.interface import implementer


@implementer(IPushProducer)
class StallWatch:
    """Stands between *producer* and its consumer.

    Args:
        seconds: how long the consumer may be behind at one time.
        stalled: called when it has been for as long.
    """

    def __init__(
        self,
        producer: IPushProducer,
        clock: IReactorTime,
        seconds: float,
        stalled: Callable[[], object],
    ) -> None:
        self._producer = producer
        self._clock = clock
        self._seconds = seconds
        self._stalled = stalled
        self._deadline: IDelayedCall | None = None

    def pauseProducing(self) -> None:
        """The consumer is behind: its time runs."""
        if self._deadline is None:
            self._deadline = self._clock.callLater(self._seconds, self._expired)
        self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        """The consumer has caught up."""
        self.stop()
        self._producer.resumeProducing()

    def stopProducing(self) -> None:
        """The consumer is gone."""
        self.stop()
        self._producer.stopProducing()

    def stop(self) -> None:
        """Time does not run any more."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expired(self) -> None:
        self._deadline = None
        self._stalled()
