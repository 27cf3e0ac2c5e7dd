"""The store of one cache directory: whole content, transfers in flight, and the index."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Final

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from regproxy.interfaces import IBlob
from regproxy.oci.names import Digest
from regproxy.store import disk
from regproxy.store.errors import IndexFailed
from regproxy.store.fill import Fill
from regproxy.store.index import Index
from regproxy.store.partial import Partial, resumable

# Seconds without a write after which a file below fills/ is nobody's any more.
ABANDONED: Final = 24 * 3600.0


class Store:
    """Content by digest.

    Args:
        directory: where it is.
        index: its index.
        workers: runs what blocks on the disk; several calls at a time.
        now: seconds since the epoch.

    Attributes:
        index: the index, for what is known about tags and repositories.
    """

    _log = Logger()

    def __init__(
        self,
        directory: disk.BlobDirectory,
        index: Index,
        workers: disk.Workers,
        now: Callable[[], float],
    ) -> None:
        self.index = index
        self._directory = directory
        self._workers = workers
        self._now = now
        self._fills: dict[Digest, Fill] = {}
        self._used: dict[Digest, float] = {}

    def open(self, digest: Digest) -> StoredBlob | None:
        """Whole content, for the caller to close; None when it is not here."""
        found = self._directory.open(digest)
        if found is None:
            return None
        self._used[digest] = self._now()
        return StoredBlob(self._workers, digest, *found)

    def has(self, digest: Digest) -> bool:
        """Whether the whole content is here."""
        return self._directory.path(digest).exists()

    def filling(self, digest: Digest) -> Fill | None:
        """The transfer of *digest* that is in flight."""
        fill = self._fills.get(digest)
        return None if fill is None or fill.state.over else fill

    def resumable(self, digest: Digest) -> Deferred[int]:
        """From which byte on an earlier transfer of *digest* may be gone on with; 0 for none."""
        return self._workers.run(partial(resumable, self._directory.fills, digest))

    async def begin(self, digest: Digest, size: int | None) -> Fill:
        """Start a transfer of *digest*, *size* bytes long if that is known.

        The caller sees to it that there is one at a time.

        Raises:
            OSError: the disk does not take it.
        """
        partial_file = await disk.shielded(
            self._workers.run(partial(Partial.open, self._directory.fills, digest)), self._leave
        )
        fill = Fill(self._directory, self._workers, self._record, digest, partial_file, size)
        self._fills[digest] = fill
        fill.when_ended().addErrback(self._log_failed, digest).addCallback(
            lambda _: self._forget(digest, fill)
        )
        return fill

    async def put(self, digest: Digest, content: bytes) -> None:
        """Store *content*.

        Raises:
            DigestMismatch: it is not what *digest* names.
            OSError: the disk does not take it.
        """
        fill = await self.begin(digest, len(content))
        fill.write(0, content)
        await fill.when_ended()

    def flush_access_times(self) -> Deferred[None]:
        """Write to the index when content was last used."""
        used, self._used = self._used, {}
        return self.index.touch(used).addErrback(self._not_flushed) if used else succeed(None)

    def sweep(self) -> Deferred[int]:
        """Remove what transfers of a process that is gone have left; how many files.

        A transfer under way, be it another process's, has been written to lately.
        """
        return self._workers.run(
            partial(disk.sweep, self._directory.fills, self._now() - ABANDONED)
        )

    def _leave(self, unwanted: Partial) -> None:
        kept = unwanted.stored if unwanted.stored.total else None
        unwanted.put_away(unwanted.size, kept)
        os.close(unwanted.descriptor)

    def _record(self, digest: Digest, size: int) -> Deferred[None]:
        return self.index.put_content(digest, size, self._now())

    def _not_flushed(self, failure: Failure) -> None:
        # What is lost is some of the order in which content is evicted.
        failure.trap(IndexFailed)
        self._log.error("The times of last use are lost: {reason}", reason=str(failure.value))

    def _log_failed(self, failure: Failure, digest: Digest) -> None:
        self._log.warn(
            "The transfer of {digest} came to nothing: {reason}",
            digest=digest,
            reason=failure.getErrorMessage(),
        )

    def _forget(self, digest: Digest, fill: Fill) -> None:
        if self._fills.get(digest) is fill:
            del self._fills[digest]


@implementer(IBlob)
class StoredBlob:
    """Whole content, open for reading."""

    verified = True

    def __init__(
        self, workers: disk.Workers, digest: Digest, descriptor: int, stat: os.stat_result
    ) -> None:
        self.digest = digest
        self.size: int | None = stat.st_size
        self._length = stat.st_size
        self._workers = workers
        self._descriptor = disk.Descriptor(descriptor)
        self._open = True

    def readable(self, offset: int) -> int:
        """How many bytes can be read from *offset* on."""
        return max(0, self._length - offset)

    def when_readable(self, offset: int, end: int | None) -> Deferred[None]:
        """Nothing changes any more."""
        return succeed(None)

    def read(self, offset: int, length: int) -> Deferred[bytes]:
        """See :class:`~regproxy.interfaces.IBlob`."""
        return disk.read(self._workers, self._descriptor, length, offset)

    def close(self) -> None:
        """Let go of it."""
        if self._open:
            self._open = False
            self._descriptor.release()
