"""What is known about upstream is forgotten once nobody has a use for it.

The index knows what tags point to, which repository has which content, and which repositories
anybody may read. Such a row

- stays as long as it is used: whoever can read something here today can tomorrow, upstream
  or no upstream. So it goes when it was not looked up for as long as content may be inactive;
- has less use when its content is not here. A tag is asked for like a new one then, and membership
  is learnt again from the answer that brings the content. What is left is the case that the content
  comes by another way: then one HEAD confirms what the row would have told. So it goes when it
  was not used for a day either: until then it may be the row of content that is on its way, for
  a transfer that broke off is gone on with for as long.

So what only passes by does not fill the disk: the tag of each build, the Accept of each client, the
repositories that are no more. The file does not shrink; what becomes free in it is used again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from twisted.logger import Logger

from regproxy.config.model import DAY
from regproxy.store.index import LAG
from regproxy.store.inventory import KEYS, Inventory, Key

# Rows of one call of the worker, which writes nothing else meanwhile: some milliseconds.
BATCH: Final = 500
# Seconds for which a row is kept whose content is not here.
GRACE: Final = 1 * DAY


class Forgetting:
    """Goes through all rows about tags and repositories.

    Args:
        pause: waits a while, so that others get their turn.
        now: seconds since the epoch.
    """

    _log = Logger()

    def __init__(
        self, inventory: Inventory, pause: Callable[[], Awaitable[None]], now: Callable[[], float]
    ) -> None:
        self._inventory = inventory
        self._pause = pause
        self._now = now

    async def run(self, inactive: float) -> int:
        """Forget what has no use; how many rows.

        The index must have been told what was used, and which files there are.

        Args:
            inactive: seconds without use after which content goes.

        Raises:
            IndexFailed: the index cannot be read or written.
        """
        # A time of last use may be behind by so much.
        now = self._now() - LAG
        forgotten = 0
        for table in KEYS:
            last: Key | None = None
            while True:
                last, count = await self._inventory.forget_useless(
                    table, last, now - inactive, now - GRACE, BATCH
                )
                if last is None:
                    break
                forgotten += count
                await self._pause()
        if forgotten:
            self._log.info("{rows} rows that nobody needs were forgotten", rows=forgotten)
        return forgotten
