"""The store's numbers, for who shows other ones too and does not want to wait for long."""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import TimeoutError as TookTooLong
from twisted.internet.defer import ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from regproxy.store.errors import StoreError
from regproxy.store.housekeeping import Housekeeping, StoreStats

#: Seconds that the store has to tell them. A disk that hangs is when the others are wanted.
PATIENCE: Final = 2.0

_log: Final = Logger()


async def store_numbers(housekeeping: Housekeeping, clock: IReactorTime) -> StoreStats | None:
    """What *housekeeping* tells; None, and a line in the log, when it does not."""
    asking = ensureDeferred(housekeeping.stats())
    try:
        return await asking.addTimeout(PATIENCE, clock)
    except TookTooLong:
        reason = f"no answer within {PATIENCE} s"
    except (StoreError, OSError) as error:
        reason = str(error)
    _log.error("The store does not tell its numbers: {reason}", reason=reason)
    return None
