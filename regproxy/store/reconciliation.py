"""Files and index brought together again, at start, while requests are served.

The files are the truth. Blobs that the index does not know get a row, so that a lost index
is built anew, and content is not fetched twice; rows without a file go.

One directory after the other: its names are read, then the digests that the index has for it.
Only where the two differ a file is looked at, so that it takes seconds for a million. What came or
went between the two shows when it is looked at: content that goes leaves the directory before
the index, content that comes is there before.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

from attrs import evolve, frozen
from twisted.logger import Logger

from regproxy.oci.errors import RegistryError
from regproxy.oci.names import ALGORITHMS, Digest
from regproxy.policy.integrity import ContentRecord
from regproxy.store import disk
from regproxy.store.inventory import Inventory

# Files that one call of a worker looks at.
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
    """Goes through all directories, and then through the rows of those that are not there.

    Args:
        pause: waits a while, so that others get their turn.
    """

    _log = Logger()

    def __init__(
        self,
        directory: disk.BlobDirectory,
        inventory: Inventory,
        workers: disk.Workers,
        pause: Callable[[], Awaitable[None]],
    ) -> None:
        self._directory = directory
        self._root = directory.root / "blobs"
        self._inventory = inventory
        self._workers = workers
        self._pause = pause

    async def run(self) -> Reconciled:
        """Do it.

        Raises:
            IndexFailed: the index takes nothing.
            OSError: the directory cannot be read.
        """
        result = Reconciled()
        absent = {f"{algorithm}/{n:02x}" for algorithm in ALGORITHMS for n in range(256)}
        directories = _walk(self._root)
        while found := await self._workers.run(lambda: next(directories, None)):
            directory, names = found
            if directory in absent:
                absent.remove(directory)
                result = await self._compare(result, directory, names)
            else:
                result = await self._adopt(result, directory, names)
            await self._pause()
        for directory in sorted(absent):
            result = await self._compare(result, directory, set())
        if result != Reconciled():
            self._log.info(
                "The index was brought up to date: {adopted} blobs added, {forgotten} removed",
                adopted=result.adopted,
                forgotten=result.forgotten,
            )
        return result

    async def _compare(self, result: Reconciled, directory: str, names: set[str]) -> Reconciled:
        algorithm, _, beginning = directory.partition("/")
        unknown, lost = await self._inventory.compare(algorithm, beginning, names)
        result = await self._adopt(result, directory, unknown)
        # What was adopted may have left before it was.
        return await self._forget(result, algorithm, unknown | lost)

    async def _adopt(self, result: Reconciled, directory: str, names: set[str]) -> Reconciled:
        """Record files of a directory; set aside those that are no blobs."""
        for batch in _batches(names):
            found = await self._workers.run(partial(self._look, self._root / directory, batch))
            blobs = [each for each in found if isinstance(each, ContentRecord)]
            strange = [each for each in found if isinstance(each, Path)]
            for each in strange:
                self._log.error(
                    "{path} is no blob; it is in {quarantine} now",
                    path=str(each),
                    quarantine=str(self._directory.quarantine),
                )
            result = evolve(
                result,
                adopted=result.adopted + await self._inventory.adopt(blobs),
                strange=result.strange + len(strange),
            )
        return result

    async def _forget(self, result: Reconciled, algorithm: str, names: set[str]) -> Reconciled:
        """Remove the records of those files that are not there."""
        for batch in _batches(names):
            digests = [f"{algorithm}:{name}" for name in batch]
            records = await self._inventory.records(digests)
            lost = await self._workers.run(partial(self._lost, records))
            if lost:
                await self._inventory.forget(lost)
                result = evolve(result, forgotten=result.forgotten + len(lost))
        return result

    # In a worker thread.

    def _look(self, directory: Path, names: list[str]) -> list[ContentRecord | Path]:
        """The records of the files that are blobs, and the paths of what was set aside."""
        found: list[ContentRecord | Path] = []
        for name in names:
            path = directory / name
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            digest = self._digest_of(path)
            if digest is None or (stat.st_size == 0 and digest != _empty(digest)):
                if self._directory.set_aside(path, stat):
                    found.append(path)
            else:
                # The last use is known as well as the file system tells it.
                used = max(stat.st_atime, stat.st_mtime)
                found.append(ContentRecord(digest, stat.st_size, stat.st_mtime, used, 0.0, 0))
        return found

    def _digest_of(self, path: Path) -> Digest | None:
        algorithm = path.relative_to(self._root).parts[0]
        try:
            digest = Digest.parse(f"{algorithm}:{path.name}")
        except RegistryError:
            return None
        return digest if self._directory.path(digest) == path else None

    def _lost(self, records: list[ContentRecord]) -> list[ContentRecord]:
        return [each for each in records if not self._directory.has(each.digest)]


def _walk(root: Path, directory: str = "") -> Iterator[tuple[str, set[str]]]:
    """*directory* and all below it, and the names of their regular files; no link is followed.

    Directories are relative to *root*.
    """
    names, below = set(), []
    with os.scandir(root / directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                below.append(entry.name)
            elif entry.is_file(follow_symlinks=False):
                names.add(entry.name)
    yield directory, names
    for name in below:
        yield from _walk(root, f"{directory}/{name}" if directory else name)


def _batches(names: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(names)
    while batch := list(islice(rest, BATCH)):
        yield batch


def _empty(like: Digest) -> Digest:
    return Digest.of(b"", like.algorithm)
