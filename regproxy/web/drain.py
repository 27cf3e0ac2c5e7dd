"""The end of a process: what is under way comes to its own end first."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from twisted.internet.defer import Deferred

# Seconds between looks: sockets tell nobody when they have sent everything.
_POLL: Final = 0.05


async def drained(reactor: Any, under_way: Collection[object], seconds: float) -> bool:
    """Wait until no answer is under way and all is sent, at most so long.

    Args:
        reactor: its ``getWriters`` are the sockets that have something to send.
        under_way: the requests that are being answered.

    Returns:
        Whether it came to that.
    """
    end = reactor.seconds() + seconds
    while under_way or reactor.getWriters():
        if reactor.seconds() >= end:
            return False
        passed: Deferred[None] = Deferred()
        reactor.callLater(_POLL, passed.callback, None)
        await passed
    return True
