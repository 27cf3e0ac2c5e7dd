"""Files and index brought together again, at start, while requests are served.

The files are the truth. Blobs that the index does not know get a row, so that a lost index
is built anew, and content is not fetched twice; rows without a file go. What may have been
evicted between the two is why the files come first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

from attrs import evolve, frozen
from twisted.logger import Logger

from regproxy.oci.errors import RegistryError
from regproxy.oci.names import Digest
from regproxy.policy.integrity import ContentRecord
from regproxy.store import disk
from regproxy.store.inventory import Inventory

# Files, or rows, of one call of a worker.
BATCH: Final = 256


@frozen
class Reconciled:
    """What was done.

    Attributes:
        adopted: files that got a row.
        forgotten: rows that had no file.
        strange: files that are no blobs.
    """

    adopted: int = 0
    forgotten: int = 0
    strange: int = 0


class Reconciliation:
    """Goes through all files, then through all rows."""

    _log = Logger()

    def __init__(
        self, directory: disk.BlobDirectory, inventory: Inventory, workers: disk.Workers
    ) -> None:
        self._directory = directory
        self._inventory = inventory
        self._workers = workers

    async def run(self) -> Reconciled:
        """Do it.

        Raises:
            IndexFailed: the index takes nothing.
            OSError: the directory cannot be read.
        """
        result = await self._forget(await self._adopt())
        if result != Reconciled():
            self._log.info(
                "The index was brought up to date: {adopted} blobs added, {forgotten} removed",
                adopted=result.adopted,
                forgotten=result.forgotten,
            )
        return result

    async def _adopt(self) -> Reconciled:
        result = Reconciled()
        files = self._files()
        while batch := await self._workers.run(lambda: list(islice(files, BATCH))):
            blobs = [found for found in batch if isinstance(found, ContentRecord)]
            strange = [found for found in batch if isinstance(found, Path)]
            for path in strange:
                self._log.error(
                    "{path} is no blob; it is in {quarantine} now",
                    path=str(path),
                    quarantine=str(self._directory.quarantine),
                )
            result = evolve(
                result,
                adopted=result.adopted + await self._inventory.adopt(blobs),
                strange=result.strange + len(strange),
            )
        return result

    async def _forget(self, result: Reconciled) -> Reconciled:
        last: ContentRecord | None = None
        while page := await self._inventory.page(last, BATCH):
            last = page[-1]
            lost = await self._workers.run(partial(self._lost, page))
            if lost:
                await self._inventory.forget(lost)
                result = evolve(result, forgotten=result.forgotten + len(lost))
        return result

    # In a worker thread.

    def _files(self) -> Iterator[ContentRecord | Path]:
        """All files below ``blobs/``: a blob's record; or the path of what was set aside."""
        root = self._directory.root / "blobs"
        for entry in _walk(root):
            path = Path(entry)
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            digest = self._digest_of(path)
            if digest is None or (stat.st_size == 0 and digest != _empty(digest)):
                if self._directory.set_aside(path, stat):
                    yield path
            else:
                # The last use is known as well as the file system tells it.
                used = max(stat.st_atime, stat.st_mtime)
                yield ContentRecord(digest, stat.st_size, stat.st_mtime, used, 0.0, 0)

    def _digest_of(self, path: Path) -> Digest | None:
        algorithm = path.relative_to(self._directory.root / "blobs").parts[0]
        try:
            digest = Digest.parse(f"{algorithm}:{path.name}")
        except RegistryError:
            return None
        return digest if self._directory.path(digest) == path else None

    def _lost(self, page: list[ContentRecord]) -> list[ContentRecord]:
        return [record for record in page if not self._directory.path(record.digest).exists()]


def _walk(directory: Path) -> Iterator[str]:
    """The regular files below *directory*, one after the other; links are left alone."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                yield entry.path


def _empty(like: Digest) -> Digest:
    return Digest.of(b"", like.algorithm)
