"""Waiting for work that does not belong to the one who waits."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, ensureDeferred

from regproxy.store.disk import shielded

T = TypeVar("T")


class Leaders:
    """Who is already asking a question. The rest waits, then looks again."""

    def __init__(self) -> None:
        self._waiting: dict[object, list[Deferred[object]]] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._waiting

    def led(self, key: object) -> Deferred[object]:
        """What the one who asks *key* now gets, to be looked at: it is another's to use."""
        waiter: Deferred[object] = Deferred()
        self._waiting[key].append(waiter)
        return waiter

    async def lead(
        self, key: object, work: Coroutine[Any, Any, T], unwanted: Callable[[T], None]
    ) -> T:
        """Do *work* as the one who asks *key*.

        When the caller is cancelled the work goes on, and *unwanted* gets its result.
        """
        self._waiting[key] = []

        def over(result: Any) -> Any:
            for waiter in self._waiting.pop(key):
                if not waiter.called:
                    waiter.callback(result)
            return result

        return await shielded(ensureDeferred(work).addBoth(over), unwanted)
