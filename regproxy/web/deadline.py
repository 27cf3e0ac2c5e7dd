"""A deadline that is moved with each request and hardly ever missed."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Deadline:
    """At most one at a time.

    To move it to a later time, or to do without it, costs nothing: the call that is scheduled
    already finds out when its time comes.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._due: float | None = None
        self._missed: Callable[[], object] = self.cancel
        self._call: IDelayedCall | None = None

    def set(self, seconds: float, missed: Callable[[], object]) -> None:
        """Have *missed* called in so many *seconds*, in the place of what was set before."""
        self._missed = missed
        self._due = self._clock.seconds() + seconds
        if self._call is not None and self._call.getTime() > self._due:
            self._call.cancel()
            self._call = None
        if self._call is None:
            self._call = self._clock.callLater(seconds, self._look)

    def cancel(self) -> None:
        """It does not matter any more."""
        self._due = None

    def end(self) -> None:
        """There will be none again."""
        self._due = None
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        self._call = None
        if self._due is None:
            return
        left = self._due - self._clock.seconds()
        if left > 0:
            self._call = self._clock.callLater(left, self._look)
        else:
            self._due = None
            self._missed()
