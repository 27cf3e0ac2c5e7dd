"""Work that several wait for, done once."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Flights(Generic[K, T]):
    """Work under way, by what it is for.

    It belongs to no one who waits: it goes on when one of them is cancelled, or all.
    """

    def __init__(self) -> None:
        self._waiting: dict[K, list[Deferred[T]]] = {}

    def join(self, key: K, begin: Callable[[], Coroutine[Deferred[Any], Any, T]]) -> Deferred[T]:
        """The result of the work for *key*, which *begin* starts if it is not under way.

        A failure is everybody's who waits; the next one begins anew.
        """
        waiting = self._waiting.get(key)
        if waiting is not None:
            return _waiter(waiting)
        waiting = self._waiting[key] = []
        waiter = _waiter(waiting)
        Deferred.fromCoroutine(begin()).addBoth(self._landed, key)
        return waiter

    def _landed(self, result: T | Failure, key: K) -> None:
        for waiter in self._waiting.pop(key):
            if isinstance(result, Failure):
                waiter.errback(result)
            else:
                waiter.callback(result)


def _waiter(waiting: list[Deferred[T]]) -> Deferred[T]:
    waiter: Deferred[T] = Deferred(waiting.remove)
    waiting.append(waiter)
    return waiter
