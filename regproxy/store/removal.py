"""Content is removed: its file, then its row.

In this order: on a full disk SQLite could not delete a row before there is room again. A
crash between the two leaves a row without a file, which the reconciliation at the next start
removes. Who has the file open reads on.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from twisted.logger import Logger

from regproxy.policy.integrity import ContentRecord
from regproxy.store import disk
from regproxy.store.inventory import Inventory

#: Files that one call of a worker removes: to unlink a large one takes milliseconds.
BATCH: Final = 32


class Removal:
    """Removes content."""

    _log = Logger()

    def __init__(
        self, directory: disk.BlobDirectory, inventory: Inventory, workers: disk.Workers
    ) -> None:
        self._directory = directory
        self._inventory = inventory
        self._workers = workers

    async def remove(self, records: list[ContentRecord]) -> list[ContentRecord]:
        """Remove the files and rows of *records*; those that could be.

        Raises:
            IndexFailed: files are gone whose rows are not.
        """
        gone: list[ContentRecord] = []
        for start in range(0, len(records), BATCH):
            batch = records[start : start + BATCH]
            removed, failed = await self._workers.run(partial(self._unlink, batch))
            for record, error in failed:
                self._log.error(
                    "{digest} cannot be removed: {reason}",
                    digest=str(record.digest),
                    reason=error.strerror,
                )
            await self._inventory.forget(removed)
            gone += removed
        return gone

    def _unlink(
        self, records: list[ContentRecord]
    ) -> tuple[list[ContentRecord], list[tuple[ContentRecord, OSError]]]:
        # In a worker thread.
        removed, failed = [], []
        for record in records:
            try:
                self._directory.path(record.digest).unlink(missing_ok=True)
            except OSError as error:
                failed.append((record, error))
            else:
                removed.append(record)
        return removed, failed
