"""Stored content read again, to see whether it is still what its digest says.

That happens at a low rate to all of it, once in a while; and at once, at full speed, to a file
that is to be served while there is doubt about it. Its readers hold back the last byte
until it is known. What is not right is moved to the quarantine, and fetched again
when it is next asked for.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from regproxy.oci.names import Digest
from regproxy.policy.integrity import ContentRecord, Doubt, doubt
from regproxy.store import disk
from regproxy.store.errors import Damaged, IndexFailed
from regproxy.store.index import Index
from regproxy.store.uses import Uses

# What one call of a worker hashes, and one read within it.
STEP: Final = 4 << 20
_READ: Final = 1 << 20

# Each takes some 300 bytes.
MAX_KNOWN: Final = 4096

#: Waits as long as so many bytes are to take.
Pace = Callable[[int], Awaitable[None]]

#: Told of what was read, and of what was wrong with it.
Told = Callable[[ContentRecord, Damaged | OSError | None], object]


class Check:
    """The outcome of reading one file, for all who wait for it.

    Attributes:
        passed: it is what its name says.
    """

    def __init__(self) -> None:
        self.passed = False
        self._failure: Failure | None = None
        self._waiters: list[Deferred[None]] = []

    def when_passed(self) -> Deferred[None]:
        """Fires when it has passed; fails with Damaged, or the OSError of the disk."""
        waiter: Deferred[None] = Deferred()
        if self.passed:
            waiter.callback(None)
        elif self._failure is not None:
            waiter.errback(self._failure)
        else:
            self._waiters.append(waiter)
        return waiter

    def conclude(self, result: object) -> None:
        """It is over; *result* may be a Failure."""
        waiters, self._waiters = self._waiters, []
        if isinstance(result, Failure):
            self._failure = result
            for waiter in waiters:
                waiter.errback(result)
        else:
            self.passed = True
            for waiter in waiters:
                waiter.callback(None)


class Verification:
    """Reads files again.

    Attributes:
        period: seconds after which a file is verified again; 0 for never.
        quarantined: how many files were found damaged.
    """

    _log = Logger()

    def __init__(
        self,
        directory: disk.BlobDirectory,
        index: Index,
        workers: disk.Workers,
        uses: Uses,
        now: Callable[[], float],
    ) -> None:
        self.period = 0.0
        self.quarantined = 0
        self._directory = directory
        self._index = index
        self._workers = workers
        self._uses = uses
        self._now = now
        self._checks: dict[tuple[Digest, int, int], Check] = {}
        # What the index said of files that are asked for again and again: st_ino and st_ctime_ns,
        # and when they were last verified. Whoever changes or replaces one changes these, too.
        self._known: dict[Digest, tuple[tuple[int, int], float]] = {}

    def check(
        self, digest: Digest, descriptor: disk.Descriptor, seen: os.stat_result
    ) -> Check | None:
        """What the reader of an open file has to wait for; None when it may be trusted.

        Raises:
            Damaged: it has been moved to the quarantine.
            OSError: it ought to have been.
        """
        file = seen.st_ino, seen.st_ctime_ns
        known, verified_at = self._known.get(digest, (None, 0.0))
        if known == file and verified_at >= self._due_before():
            return None
        try:
            record = self._index.content(digest)
        except IndexFailed:
            # What cannot be looked up is not known.
            record = None
        match doubt(digest, seen.st_size, seen.st_ctime_ns, record, self._due_before()):
            case None:
                if record is not None:
                    self._remember(digest, file, record.verified_at)
                return None
            case Doubt.SIZE:
                # A length cannot be taken back: this one must not be told to anybody.
                moved = self._directory.set_aside(self._directory.path(digest), seen)
                self._condemned(moved, digest, record)
                raise Damaged(digest)
        key = digest, *file
        check = self._checks.get(key)
        if check is None:
            check = self._checks[key] = Check()
            reading = ensureDeferred(self._read(digest, descriptor, seen, record, None))
            reading.addBoth(check.conclude).addCallback(lambda _: self._checks.pop(key))
        return check

    async def verify(self, digest: Digest, pace: Pace | None = None) -> bool:
        """Read *digest* whatever is known of it; whether it is here, and right.

        Raises:
            OSError: it cannot be read.
            IndexFailed: the index cannot.
        """
        try:
            return await self._examine(digest, pace)
        except Damaged:
            return False

    async def _examine(self, digest: Digest, pace: Pace | None) -> bool:
        """Read *digest*; whether it is here.

        Raises:
            Damaged: it has been moved to the quarantine.
            OSError, IndexFailed: see :meth:`verify`.
        """
        record = self._index.content(digest)
        opening = self._workers.run(partial(self._directory.open, digest))
        found = await disk.shielded(opening, _close)
        if found is None:
            return False
        number, seen = found
        descriptor = disk.Descriptor(number)
        try:
            await self._read(digest, descriptor, seen, record, pace)
        finally:
            descriptor.release()
        return True

    async def verify_before(
        self,
        before: float,
        pace: Pace | None = None,
        told: Told = lambda record, error: None,
    ) -> None:
        """Read all that was last verified *before* (seconds since the epoch), longest ago first.

        Args:
            told: of each, and of what was wrong with it.

        Raises:
            IndexFailed: the index cannot be read.
        """
        last: ContentRecord | None = None
        while found := await self._index.inventory.due(last, before):
            (last,) = found
            wrong: Damaged | OSError | None = None
            try:
                await self._examine(last.digest, pace)
            except Damaged as error:
                wrong = error
            except OSError as error:
                wrong = error
                self._log.error(
                    "{digest} could not be verified: {reason}",
                    digest=str(last.digest),
                    reason=str(error),
                )
            told(last, wrong)

    async def verify_due(self, pace: Pace) -> None:
        """Read all that is due.

        Raises:
            IndexFailed: the index cannot be read.
        """
        await self.verify_before(self._due_before(), pace)

    def _remember(self, digest: Digest, file: tuple[int, int], verified_at: float) -> None:
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[digest] = file, verified_at

    def _due_before(self) -> float:
        return self._now() - self.period if self.period else float("-inf")

    async def _read(
        self,
        digest: Digest,
        descriptor: disk.Descriptor,
        seen: os.stat_result,
        record: ContentRecord | None,
        pace: Pace | None,
    ) -> None:
        descriptor.hold()
        self._uses.hold(digest)
        try:
            if await self._hashes_to(digest, descriptor, pace):
                await self._passed(digest, seen)
                return
            moved = await self._workers.run(
                partial(self._directory.set_aside, self._directory.path(digest), seen)
            )
            self._condemned(moved, digest, record)
            raise Damaged(digest)
        finally:
            self._uses.release(digest)
            descriptor.release()

    async def _hashes_to(
        self, digest: Digest, descriptor: disk.Descriptor, pace: Pace | None
    ) -> bool:
        hasher = hashlib.new(digest.algorithm)
        offset, count = 0, STEP
        while count == STEP:
            try:
                step = partial(_hash_step, hasher, offset)
                count = await disk.with_file(self._workers, descriptor, step)
            except OSError as error:
                if error.errno == errno.EIO:
                    return False
                raise
            offset += count
            if pace is not None:
                await pace(count)
        return hasher.hexdigest() == digest.hex

    async def _passed(self, digest: Digest, seen: os.stat_result) -> None:
        now = self._now()
        try:
            await self._index.inventory.verified(
                ContentRecord(digest, seen.st_size, seen.st_mtime, now, now, seen.st_ctime_ns)
            )
        except IndexFailed as error:
            # It is right all the same, and will be read again.
            self._log.error("The index takes nothing: {reason}", reason=str(error))

    def _condemned(self, moved: bool, digest: Digest, record: ContentRecord | None) -> None:
        if not moved:
            # It was evicted meanwhile, or stored anew.
            return
        self.quarantined += 1
        self._log.error(
            "Stored content {digest} was damaged; it is in {quarantine} now",
            digest=str(digest),
            quarantine=str(self._directory.quarantine),
        )
        if record is not None:
            self._index.inventory.forget([record]).addErrback(self._not_forgotten, digest)

    def _not_forgotten(self, failure: Failure, digest: Digest) -> None:
        failure.trap(IndexFailed)
        self._log.error(
            "{digest} stays in the index: {reason}", digest=str(digest), reason=str(failure.value)
        )


def _hash_step(hasher: hashlib._Hash, offset: int, number: int) -> int:
    """Hash the next bytes of the file *number*; how many, and less than STEP at its end only."""
    done = 0
    while data := os.pread(number, min(_READ, STEP - done), offset + done):
        hasher.update(data)
        done += len(data)
    return done


def _close(found: tuple[int, os.stat_result] | None) -> None:
    if found is not None:
        os.close(found[0])
