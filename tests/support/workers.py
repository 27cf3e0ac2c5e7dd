"""Worker threads that are none: what they are given runs now, or when the test says so."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred, maybeDeferred

T = TypeVar("T")


class Now:
    """Workers that have always just finished."""

    def run(self, call: Callable[[], T]) -> Deferred[T]:
        """See :class:`regproxy.store.disk.Workers`."""
        return maybeDeferred(call)


class Later:
    """Workers that do one call, in the order given, each time :meth:`step` is called.

    As with threads, cancelling the Deferred does not stop the call.
    """

    def __init__(self) -> None:
        self._calls: deque[Callable[[], None]] = deque()

    def __len__(self) -> int:
        return len(self._calls)

    def run(self, call: Callable[[], T]) -> Deferred[T]:
        """See :class:`regproxy.store.disk.Workers`."""
        result: Deferred[T] = Deferred()

        def work() -> None:
            maybeDeferred(call).addBoth(result.callback)

        self._calls.append(work)
        return result

    def step(self) -> bool:
        """Do the next call; whether there was one."""
        if not self._calls:
            return False
        self._calls.popleft()()
        return True

    def clear(self) -> None:
        """The process ends: what is not done will never be."""
        self._calls.clear()

    def all(self) -> None:
        """Do calls until there are none."""
        while self.step():
            pass


async def no_pause() -> None:
    """Between two steps of work in the background."""
