"""The store of one cache directory: whole content, transfers in flight, and the index."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection
from functools import partial
from typing import Final

from twisted.internet.defer import Deferred, ensureDeferred, gatherResults, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from regproxy.figures import reason_of
from regproxy.interfaces import IBlob
from regproxy.oci.names import Digest
from regproxy.policy.integrity import ContentRecord
from regproxy.store import disk
from regproxy.store.errors import Damaged, IndexFailed, Stopped, disk_full
from regproxy.store.fill import Fill
from regproxy.store.index import Index
from regproxy.store.partial import Partial, resumable, sweep
from regproxy.store.uses import Uses
from regproxy.store.verification import Check, Verification

# Seconds without a write after which a file below fills/ is nobody's any more.
ABANDONED: Final = 24 * 3600.0


class FillCounts:
    """What has become of transfers into the store.

    Attributes:
        started: how many were begun.
        resumed: how many times one went on with what an earlier attempt had left.
        failed: how many came to nothing, by reason.
    """

    def __init__(self) -> None:
        self.started = 0
        self.resumed = 0
        self.failed: Counter[str] = Counter()

    def resume(self) -> None:
        """One goes on."""
        self.resumed += 1


class Store:
    """Content by digest.

    Args:
        directory: where it is.
        index: its index.
        workers: runs what blocks on the disk; several calls at a time.
        clock: paces what readers of a transfer are told.
        now: seconds since the epoch.

    Attributes:
        index: the index, for what is known about tags and repositories.
        uses: which content is in use.
        verification: sees to it that stored content is still right.
        grown: called when content was added.
        fill_counts: what has become of transfers.
        full: called when the disk had no room, with the bytes for which it should have.
    """

    _log = Logger()

    def __init__(
        self,
        directory: disk.BlobDirectory,
        index: Index,
        workers: disk.Workers,
        clock: IReactorTime,
        now: Callable[[], float],
    ) -> None:
        self.index = index
        self._directory = directory
        self._workers = workers
        self._clock = clock
        self._now = now
        self._fills: dict[Digest, Fill] = {}
        self.uses = Uses(now)
        self.verification = Verification(directory, index, workers, self.uses, now)
        self.fill_counts = FillCounts()
        self.grown: Callable[[], None] = lambda: None
        self.full: Callable[[int], None] = lambda wanted: None

    def open(self, digest: Digest) -> StoredBlob | None:
        """Whole content, for the caller to close; None when it is not here."""
        found = self._directory.open(digest)
        if found is None:
            return None
        number, stat = found
        descriptor = disk.Descriptor(number)
        try:
            check = self.verification.check(digest, descriptor, stat)
        except Damaged:
            descriptor.release()
            return None
        except OSError:
            descriptor.release()
            raise
        self.uses.hold(digest)
        self.uses.touch(digest)
        closed = partial(self.uses.release, digest)
        age = self._now() - stat.st_mtime
        return StoredBlob(self._workers, digest, descriptor, stat.st_size, age, check, closed)

    def has(self, digest: Digest) -> bool:
        """Whether the whole content is here."""
        return self._directory.has(digest)

    def filling(self, digest: Digest) -> Fill | None:
        """The transfer of *digest* that is in flight."""
        fill = self._fills.get(digest)
        return None if fill is None or fill.state.over else fill

    @property
    def fills(self) -> int:
        """How many transfers are in flight."""
        return len(self._fills)

    @property
    def transfers(self) -> Collection[Fill]:
        """Those that are in flight, in the order in which they began."""
        return self._fills.values()

    async def resumable(self, digest: Digest) -> int:
        """From which byte on an earlier transfer of *digest* may be gone on with; 0 for none."""
        await self._over(digest)
        return await self._workers.run(partial(resumable, self._directory.fills, digest))

    async def begin(self, digest: Digest, size: int | None, brought_by: str | None = None) -> Fill:
        """Start a transfer of *digest*, *size* bytes long if that is known.

        The caller sees to it that there is one at a time.

        Args:
            brought_by: the address of the client that it is for.

        Raises:
            OSError: the disk does not take it.
        """
        await self._over(digest)
        opening = self._workers.run(partial(Partial.open, self._directory.fills, digest, size))
        try:
            partial_file = await disk.shielded(opening, self._leave)
        except OSError as error:
            self._check_room(error, size)
            raise
        record = partial(self._record, brought_by)
        fill = Fill(self._directory, self._workers, self._clock, record, digest, partial_file)
        self._fills[digest] = fill
        self.fill_counts.started += 1
        if any(partial_file.stored):
            self.fill_counts.resume()
        self.uses.hold(digest)
        fill.when_ended().addCallbacks(lambda _: self.grown(), self._failed, errbackArgs=(fill,))
        fill.when_closed().addCallback(lambda _: self._forget(digest, fill))
        return fill

    async def put(self, digest: Digest, content: bytes, brought_by: str | None = None) -> None:
        """Store *content*; see :meth:`begin`.

        Raises:
            DigestMismatch: it is not what *digest* names.
            OSError: the disk does not take it.
        """
        fill = await self.begin(digest, len(content), brought_by)
        fill.write(0, content)
        await fill.when_ended()

    def flush_access_times(self) -> Deferred[None]:
        """Write to the index when content, and what is known of it, was last used."""
        return ensureDeferred(self._flush())

    async def stop(self) -> None:
        """Leave transfers to a later process, and tell the index what was used."""
        fills = tuple(self._fills.values())
        for fill in fills:
            fill.fail(Failure(Stopped()), keep=True)
        await gatherResults([fill.when_closed() for fill in fills])
        await self.flush_access_times()

    def sweep(self) -> Deferred[int]:
        """Remove what transfers of a process that is gone have left; how many files.

        A transfer under way, be it another process's, has been written to lately.
        """
        return self._workers.run(partial(sweep, self._directory.fills, self._now() - ABANDONED))

    async def _over(self, digest: Digest) -> None:
        """Wait for an earlier transfer that has ended to put its file away."""
        earlier = self._fills.get(digest)
        if earlier is not None and earlier.state.over:
            await earlier.when_closed()

    def _leave(self, unwanted: Partial) -> None:
        try:
            unwanted.put_away(unwanted.size, unwanted.stored)
        finally:
            os.close(unwanted.descriptor)

    def _record(self, brought_by: str | None, digest: Digest, size: int) -> Deferred[None]:
        now = self._now()
        changed = self._directory.path(digest).stat().st_ctime_ns
        record = ContentRecord(digest, size, now, now, now, changed)
        return self.index.put_content(record, brought_by)

    async def _flush(self) -> None:
        try:
            await self.uses.last.tell(self.index.touch)
            await self.index.flush()
        except IndexFailed as error:
            self._log.error("The times of last use have to wait: {reason}", reason=str(error))

    def _check_room(self, error: BaseException | None, wanted: int | None) -> None:
        if disk_full(error):
            self.full(wanted or 0)

    def _failed(self, failure: Failure, fill: Fill) -> None:
        self.fill_counts.failed[reason_of(failure.value)] += 1
        self._log.warn(
            "The transfer of {digest} came to nothing: {reason}",
            digest=str(fill.digest),
            reason=failure.getErrorMessage(),
        )
        self._check_room(failure.value, fill.state.size)

    def _forget(self, digest: Digest, fill: Fill) -> None:
        if self._fills.get(digest) is fill:
            del self._fills[digest]
        # Its readers go on reading the file that it has become.
        fill.when_unread(partial(self.uses.release, digest))


@implementer(IBlob)
class StoredBlob:
    """Whole content, open for reading.

    Args:
        age: seconds since its bytes came.
        check: has to pass before it counts as verified; None: it does.
        closed: called when it is closed.
    """

    def __init__(
        self,
        workers: disk.Workers,
        digest: Digest,
        descriptor: disk.Descriptor,
        size: int,
        age: float,
        check: Check | None,
        closed: Callable[[], None],
    ) -> None:
        self.digest = digest
        self.size: int | None = size
        self.age = age
        self._length = size
        self._workers = workers
        self._descriptor = descriptor
        self._check = check
        self._closed = closed
        self._open = True

    @property
    def verified(self) -> bool:
        """Whether it is known to hash to the digest."""
        return self._check is None or self._check.passed

    def readable(self, offset: int) -> int:
        """How many bytes can be read from *offset* on."""
        return max(0, self._length - offset)

    def when_readable(self, offset: int, end: int | None) -> Deferred[None]:
        """Fires when it is verified: nothing else changes."""
        return succeed(None) if self._check is None else self._check.when_passed()

    def read(self, offset: int, length: int) -> Deferred[bytes]:
        """See :class:`~regproxy.interfaces.IBlob`."""
        reading = disk.read(self._workers, self._descriptor, length, offset)
        return reading if self.verified else reading.addBoth(self._unverified)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """See :class:`~regproxy.interfaces.IBlob`."""
        try:
            return disk.read_into(self._descriptor, buffer, offset)
        except OSError:
            return 0

    def file(self) -> int:
        """See :class:`~regproxy.interfaces.IBlob`."""
        return self._descriptor.number

    def close(self) -> None:
        """Let go of it."""
        if self._open:
            self._open = False
            self._descriptor.release()
            self._closed()

    def _unverified(self, result: bytes | Failure) -> bytes | Failure:
        # What was sent of it may be wrong: nobody is to go on from here with a good copy.
        if not result or (isinstance(result, Failure) and result.check(OSError)):
            raise Damaged(self.digest)
        return result
