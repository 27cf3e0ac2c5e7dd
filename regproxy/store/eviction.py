"""The least recently used content leaves when there is too much.

What is known about tags and repositories stays: it is about upstream, and holds whether the
content is here or not.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from twisted.logger import Logger

from regproxy.config.model import CacheSection
from regproxy.policy.eviction import Usage, choose, excess
from regproxy.policy.integrity import ContentRecord
from regproxy.store import disk
from regproxy.store.inventory import Inventory
from regproxy.store.removal import BATCH, Removal
from regproxy.store.uses import Uses


class Eviction:
    """Removes content.

    Attributes:
        evicted: how many files were removed.
        evicted_bytes: their size.
    """

    _log = Logger()

    def __init__(
        self,
        directory: disk.BlobDirectory,
        inventory: Inventory,
        workers: disk.Workers,
        uses: Uses,
        now: Callable[[], float],
    ) -> None:
        self.evicted = 0
        self.evicted_bytes = 0
        self._directory = directory
        self._inventory = inventory
        self._removal = Removal(directory, inventory, workers)
        self._workers = workers
        self._uses = uses
        self._now = now

    async def usage(self) -> Usage:
        """How full it is.

        Raises:
            IndexFailed, OSError: it cannot be known.
        """
        total = await self._inventory.total()
        return Usage(total.bytes, await self.free())

    async def free(self) -> int:
        """How many bytes the file system has left for the store.

        Raises:
            OSError: it cannot be known.
        """
        file_system = await self._workers.run(partial(os.statvfs, self._directory.root))
        return file_system.f_bavail * file_system.f_frsize

    async def run(self, rules: CacheSection, wanted: int | None = None) -> None:
        """Remove what *rules* ask for, and so much that *wanted* bytes find room.

        The index must have been told what was used.

        Args:
            wanted: see :func:`~regproxy.policy.eviction.excess`.

        Raises:
            IndexFailed: the index cannot be read, or does not forget.
            OSError: the file system does not say how full it is.
        """
        needed = excess(rules, await self.usage(), wanted)
        inactive_before = self._now() - rules.inactive
        last: ContentRecord | None = None
        while oldest := await self._inventory.oldest(last, BATCH):
            last = oldest[-1]
            removed = await self._remove(
                choose(oldest, self._uses.__contains__, needed, inactive_before)
            )
            needed -= sum(record.size for record in removed)
            if needed <= 0 and last.last_access >= inactive_before:
                break
        if needed > 0:
            self._log.warn(
                "The store is {excess} bytes over its bounds: what is left is in use or pinned",
                excess=needed,
            )

    async def _remove(self, chosen: list[ContentRecord]) -> list[ContentRecord]:
        if not chosen:
            return []
        removed = await self._removal.remove(chosen)
        size = sum(record.size for record in removed)
        self.evicted += len(removed)
        self.evicted_bytes += size
        self._log.info("{blobs} blobs evicted, {bytes} bytes", blobs=len(removed), bytes=size)
        return removed
