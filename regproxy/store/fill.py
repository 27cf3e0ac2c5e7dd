"""A transfer in flight: written once, read by everybody who waits for it.

Phases::

    RECEIVING --finish()--> CHECKING --digest right--> VERIFIED --commit--> COMMITTED
        |                      |                          |
        +------- fail() -------+--- digest wrong ---------+--- disk -----> FAILED

Bytes are readable as soon as they are on disk, in every phase but FAILED. Whoever
sends them on holds back the last one until ``verified`` is true.
"""

from __future__ import annotations

import hashlib
from enum import Enum, auto
from pathlib import Path
from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from regproxy.interfaces import IBlob
from regproxy.oci.names import Digest
from regproxy.store import disk
from regproxy.store.errors import DigestMismatch, SizeMismatch

# What waits in memory for the disk, at most plus one read from the socket;
# above HIGH the source is paused, below LOW it goes on.
HIGH: Final = 4 << 20
LOW: Final = 1 << 20


class Phase(Enum):
    """Where a fill stands."""

    RECEIVING = auto()
    CHECKING = auto()
    VERIFIED = auto()
    COMMITTED = auto()
    FAILED = auto()


class Recorder(Protocol):
    """Told of content that has become durable, before anybody learns that it has."""

    def __call__(self, digest: Digest, size: int) -> Deferred[None]:
        """Record *digest*, *size* bytes long."""


class Fill:
    """One transfer of the content named *digest*.

    Attributes:
        digest: what the bytes must hash to.
        size: bytes announced, or None when the source did not say.
        phase: where it stands.
        received: bytes on disk.
        verified: whether all bytes are here and right; stays true when the commit
            fails, since its readers have what they were promised.
        failure: what ended it, in phase FAILED.
    """

    _log = Logger()

    def __init__(
        self,
        directory: disk.BlobDirectory,
        workers: disk.Workers,
        record: Recorder,
        digest: Digest,
        size: int | None,
        descriptor: int,
        partial: Path,
    ) -> None:
        self.digest = digest
        self.size = size
        self.phase = Phase.RECEIVING
        self.received = 0
        self.verified = False
        self.failure: Failure | None = None
        self._directory = directory
        self._workers = workers
        self._record = record
        self._descriptor = disk.Descriptor(descriptor)
        self._partial = partial
        self._hash = hashlib.new(digest.algorithm)
        self._queue: list[bytes] = []
        self._queued = 0
        self._writing = False
        self._source: IPushProducer | None = None
        self._source_paused = False
        self._changed: list[Deferred[None]] = []
        self._ended: list[Deferred[None]] = []

    # What the source calls.

    def produced_by(self, source: IPushProducer) -> None:
        """Have *source* paused while the disk is behind."""
        self._source = source

    def write(self, data: bytes) -> None:
        """Take the next bytes. Ignored once the fill has failed."""
        if self.phase is not Phase.RECEIVING:
            return
        total = self.received + self._queued + len(data)
        if self.size is not None and total > self.size:
            self._end(Failure(SizeMismatch(self.size, total)))
            return
        self._queue.append(data)
        self._queued += len(data)
        if self._queued > HIGH and self._source is not None and not self._source_paused:
            self._source_paused = True
            self._source.pauseProducing()
        self._write_on()

    def finish(self) -> None:
        """All bytes have been given to :meth:`write`."""
        if self.phase is Phase.RECEIVING:
            self.phase = Phase.CHECKING
            self._write_on()

    def fail(self, failure: Failure) -> None:
        """No more bytes will come; nothing is kept. Ignored once all of them are here."""
        if self.phase in (Phase.RECEIVING, Phase.CHECKING):
            self._end(failure)

    # What the readers call.

    def reader(self) -> FillReader:
        """A new reader from the first byte on; the caller closes it.

        Raises:
            ValueError: the fill is over.
        """
        return FillReader(self, self._workers, self._descriptor.hold())

    def when_changed(self) -> Deferred[None]:
        """Fires at the next bytes or change of phase; fails when the fill does."""
        return self._wait(self._changed, over=False)

    def when_ended(self) -> Deferred[None]:
        """Fires when the content is durable and indexed; fails when the fill does."""
        return self._wait(self._ended, over=self.phase is Phase.COMMITTED)

    # The work.

    def _wait(self, waiters: list[Deferred[None]], over: bool) -> Deferred[None]:
        deferred: Deferred[None] = Deferred()
        if self.failure is not None:
            deferred.errback(self.failure)
        elif over:
            deferred.callback(None)
        else:
            waiters.append(deferred)
        return deferred

    def _write_on(self) -> None:
        if self._writing:
            return
        if self._queue:
            chunks, self._queue = self._queue, []
            offset = self.received
            self._writing = True
            self._workers.run(lambda: self._store(chunks, offset)).addCallbacks(
                self._stored, self._disk_failed
            )
        elif self.phase is Phase.CHECKING:
            self._check()

    def _store(self, chunks: list[bytes], offset: int) -> int:
        # In a worker thread, one call at a time.
        for chunk in chunks:
            self._hash.update(chunk)
        return disk.write_all(self._descriptor.number, chunks, offset)

    def _stored(self, count: int) -> None:
        self._writing = False
        if self.phase is Phase.FAILED:
            self._dispose()
            return
        self.received += count
        self._queued -= count
        if self._source_paused and self._queued < LOW and self._source is not None:
            self._source_paused = False
            self._source.resumeProducing()
        self._write_on()
        self._notify()

    def _disk_failed(self, failure: Failure) -> None:
        self._writing = False
        if self.phase is Phase.FAILED:
            self._dispose()
            return
        self._log.failure(
            "The disk failed under a transfer of {digest}", failure, digest=self.digest
        )
        self._end(failure)

    def _check(self) -> None:
        actual = Digest(self.digest.algorithm, self._hash.hexdigest())
        if self.size is not None and self.received != self.size:
            self._end(Failure(SizeMismatch(self.size, self.received)))
        elif actual != self.digest:
            self._end(Failure(DigestMismatch(self.digest, actual)))
        else:
            self.phase = Phase.VERIFIED
            self.verified = True
            self.size = self.received
            self._notify()
            self._writing = True
            self._workers.run(
                lambda: self._directory.commit(self._descriptor.number, self._partial, self.digest)
            ).addCallback(lambda _: self._record(self.digest, self.received)).addCallbacks(
                self._committed, self._disk_failed
            )

    def _committed(self, _: None) -> None:
        self._writing = False
        self.phase = Phase.COMMITTED
        self._descriptor.release()
        self._notify()

    def _end(self, failure: Failure) -> None:
        self.phase = Phase.FAILED
        self.failure = failure
        self._queue.clear()
        if not self._writing:
            self._dispose()
        self._notify()

    def _dispose(self) -> None:
        # Once, and with no worker at the file. Closed first, the file's blocks are
        # freed by the worker that unlinks it.
        self._descriptor.release()
        self._workers.run(lambda: self._partial.unlink(missing_ok=True)).addErrback(
            lambda failure: self._log.failure(
                "A partial transfer could not be removed: {path}", failure, path=self._partial
            )
        )

    def _notify(self) -> None:
        waiters, self._changed = self._changed, []
        if self.phase in (Phase.COMMITTED, Phase.FAILED):
            waiters += self._ended
            self._ended = []
        for waiter in waiters:
            if self.failure is not None:
                waiter.errback(self.failure)
            else:
                waiter.callback(None)


@implementer(IBlob)
class FillReader:
    """One reader's view of a fill; it outlives the fill as long as it is open."""

    def __init__(self, fill: Fill, workers: disk.Workers, descriptor: disk.Descriptor) -> None:
        self._fill = fill
        self._workers = workers
        self._descriptor = descriptor
        self._open = True
        self.digest = fill.digest

    @property
    def size(self) -> int | None:
        """Length in bytes; None while it is not known."""
        return self._fill.size

    @property
    def verified(self) -> bool:
        """Whether all bytes are here and hash to the digest."""
        return self._fill.verified

    def readable(self, offset: int) -> int:
        """How many bytes can be read from *offset* on."""
        if self._fill.phase is Phase.FAILED and not self._fill.verified:
            return 0
        return max(0, self._fill.received - offset)

    def when_changed(self) -> Deferred[None]:
        """See :class:`~regproxy.interfaces.IBlob`."""
        return self._fill.when_changed()

    def read(self, offset: int, length: int) -> Deferred[bytes]:
        """See :class:`~regproxy.interfaces.IBlob`."""
        return disk.read(self._workers, self._descriptor, length, offset)

    def close(self) -> None:
        """Let go of it."""
        if self._open:
            self._open = False
            self._descriptor.release()
