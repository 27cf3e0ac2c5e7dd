"""A transfer in flight: written once, read by everybody who waits for it.

What it has and where it stands is :class:`~regproxy.policy.filling.FillState`; here are
the disk and those who wait. Bytes are readable as soon as they are on disk. Whoever sends
them on holds back the last one until ``verified`` is true.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from regproxy.interfaces import IBlob
from regproxy.oci.names import Digest
from regproxy.policy.filling import FillState, Phase, WrongSize
from regproxy.policy.spans import Spans
from regproxy.store import disk
from regproxy.store.errors import DigestMismatch, DiskFailed, SizeMismatch
from regproxy.store.partial import Partial, joined

# What waits in memory for the disk, at most plus one read from each socket; above
# HIGH the sources are paused, below LOW they go on.
HIGH: Final = 4 << 20
LOW: Final = 1 << 20
# One worker call hashes at most this much of what is on disk already.
HASH_STEP: Final = 8 << 20
# The side-car is written anew after this many bytes: what a kill loses at most.
SIDE_CAR_STEP: Final = 8 << 20


class Recorder(Protocol):
    """Told of content that has become durable, before anybody learns that it has."""

    def __call__(self, digest: Digest, size: int) -> Deferred[None]:
        """Record *digest*, *size* bytes long."""


Demand = Callable[[int, int | None], None]


class Fill:
    """One transfer of the content named *digest*.

    Attributes:
        digest: what the bytes must hash to.
        state: what is here and what is missing.
        failure: what ended it, in phase FAILED.
        demand: called with offset and end of what a reader waits for.
        deserted: called when the last reader has left.
    """

    _log = Logger()

    def __init__(
        self,
        directory: disk.BlobDirectory,
        workers: disk.Workers,
        record: Recorder,
        digest: Digest,
        partial_file: Partial,
        size: int | None,
    ) -> None:
        self.digest = digest
        # Another size than the one noted makes it other content: what is there is of no use.
        fits = size is None or partial_file.size in (None, size)
        self.state = FillState(
            size if not fits or size is not None else partial_file.size,
            partial_file.stored if fits else (),
        )
        self.failure: Failure | None = None
        self.demand: Demand | None = None
        self.deserted: Callable[[], None] | None = None
        self._directory = directory
        self._workers = workers
        self._record = record
        self._partial = partial_file
        self._descriptor = disk.Descriptor(partial_file.descriptor)
        self._hash = hashlib.new(digest.algorithm)
        self._queue: list[tuple[int, bytes]] = []
        self._queued = 0
        self._unnoted = 0
        self._working = False
        self._sources: set[IPushProducer] = set()
        self._paused = False
        self._readers = 0
        self._keep = False
        self._changed: list[Deferred[None]] = []
        self._ended: list[Deferred[None]] = []

    # What the sources call.

    def attach(self, source: IPushProducer) -> None:
        """Have *source* paused while the disk is behind."""
        self._sources.add(source)
        if self._paused:
            source.pauseProducing()

    def detach(self, source: IPushProducer) -> None:
        """*source* produces no more."""
        self._sources.discard(source)

    def write(self, offset: int, data: bytes) -> None:
        """Take bytes from *offset* on. Ignored once the fill is over."""
        if self.state.phase is not Phase.RECEIVING:
            return
        try:
            new = self.state.take(offset, len(data))
        except WrongSize as error:
            self.fail(Failure(SizeMismatch(str(error))))
            return
        for start, end in new:
            piece = data if end - start == len(data) else data[start - offset : end - offset]
            self._queue.append((start, piece))
            self._queued += len(piece)
        if self._queued > HIGH and not self._paused:
            self._paused = True
            for source in tuple(self._sources):
                source.pauseProducing()
        self._work_on()

    def announce(self, size: int) -> None:
        """The size of the whole has become known."""
        if self.state.phase is not Phase.RECEIVING:
            return
        try:
            self.state.announce(size)
        except WrongSize as error:
            self.fail(Failure(SizeMismatch(str(error))))
            return
        self._work_on()
        self._notify()

    def fail(self, failure: Failure, *, keep: bool = False) -> None:
        """No more bytes will come. Ignored once all of them are here and right.

        Args:
            keep: leave what has come so that a later transfer may go on from there.
        """
        if self.state.phase is Phase.RECEIVING:
            self._end(failure, keep)

    def _end(self, failure: Failure, keep: bool = False) -> None:
        self.state.fail()
        self.failure = failure
        self._queue.clear()
        self._keep = keep
        if not self._working:
            self._dispose()
        self._notify()

    # What the readers call.

    def reader(self) -> FillReader:
        """A new reader, for the caller to close.

        Raises:
            ValueError: the fill is over.
        """
        reader = FillReader(self, self._workers, self._descriptor.hold())
        self._readers += 1
        return reader

    def left(self) -> None:
        """A reader was closed."""
        self._readers -= 1
        if self._readers == 0 and self.deserted is not None and not self.state.over:
            self.deserted()

    def when_changed(self) -> Deferred[None]:
        """Fires at the next bytes or change of phase; fails when the fill does."""
        return self._wait(self._changed, over=False)

    def when_ended(self) -> Deferred[None]:
        """Fires when the content is durable and indexed; fails when the fill does."""
        return self._wait(self._ended, over=self.state.phase is Phase.COMMITTED)

    # The work: one worker call at a time.

    def _wait(self, waiters: list[Deferred[None]], over: bool) -> Deferred[None]:
        deferred: Deferred[None] = Deferred()
        if self.failure is not None:
            deferred.errback(self.failure)
        elif over:
            deferred.callback(None)
        else:
            waiters.append(deferred)
        return deferred

    def _work_on(self) -> None:
        state = self.state
        if self._working or state.phase is not Phase.RECEIVING:
            return
        pieces, self._queue = self._queue, []
        stored = joined(state.stored, pieces)
        target = min(stored.run(0), state.hashed + HASH_STEP)
        if pieces or target > state.hashed:
            note = self._unnoted + self._queued >= SIDE_CAR_STEP
            self._working = True
            self._workers.run(
                partial(self._store, pieces, state.hashed, target, stored if note else None)
            ).addCallbacks(self._stored, self._disk_failed, (pieces, target, note))
        elif state.whole:
            self._check()

    def _store(
        self,
        pieces: list[tuple[int, bytes]],
        hashed: int,
        target: int,
        note: Spans | None,
    ) -> None:
        # In a worker thread.
        self._partial.write(pieces)
        for chunk in self._partial.read_back(dict(pieces), hashed, target):
            self._hash.update(chunk)
        if note is not None:
            self._partial.note(self.state.size, note)

    def _stored(self, _: None, pieces: list[tuple[int, bytes]], target: int, noted: bool) -> None:
        self._working = False
        size = sum(len(data) for _, data in pieces)
        self._queued -= size
        self._unnoted = 0 if noted else self._unnoted + size
        if self.state.over:
            self._dispose()
            return
        self.state.wrote((start, start + len(data)) for start, data in pieces)
        self.state.hashed = target
        if self._paused and self._queued < LOW:
            self._paused = False
            for source in tuple(self._sources):
                source.resumeProducing()
        self._work_on()
        self._notify()

    def _disk_failed(self, failure: Failure) -> None:
        self._working = False
        if self.state.over:
            self._dispose()
            return
        self._log.error(
            "The disk failed under the transfer of {digest}: {reason}",
            digest=str(self.digest),
            reason=failure.getErrorMessage(),
        )
        self._end(Failure(DiskFailed(failure.getErrorMessage())))

    def _check(self) -> None:
        actual = Digest(self.digest.algorithm, self._hash.hexdigest())
        if actual != self.digest:
            self.fail(Failure(DigestMismatch(self.digest, actual)))
            return
        self.state.conclude(right=True)
        self._notify()
        self._working = True
        size = self.state.hashed
        self._workers.run(
            lambda: self._directory.commit(self._partial, self.digest, size)
        ).addCallback(lambda _: self._record(self.digest, size)).addCallbacks(
            self._committed, self._disk_failed
        )

    def _committed(self, _: None) -> None:
        self._working = False
        self.state.commit()
        self._descriptor.release()
        self._notify()

    def _dispose(self) -> None:
        # Once, and with no worker at the file. The worker has a descriptor of its own:
        # it carries the lock to the end, and frees the blocks when it is the last.
        last = os.dup(self._descriptor.number)
        self._descriptor.release()
        kept = self.state.stored if self._keep else None

        def put_away() -> None:
            try:
                self._partial.put_away(self.state.size, kept)
            finally:
                os.close(last)

        self._workers.run(put_away).addErrback(
            lambda failure: self._log.failure(
                "A partial transfer could not be put away: {path}", failure, path=self._partial.path
            )
        )

    def _notify(self) -> None:
        waiters, self._changed = self._changed, []
        if self.state.over:
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
        return self._fill.state.size

    @property
    def verified(self) -> bool:
        """Whether all bytes are here and hash to the digest."""
        return self._fill.state.verified

    def readable(self, offset: int) -> int:
        """How many bytes can be read from *offset* on."""
        return self._fill.state.readable(offset)

    def when_readable(self, offset: int, end: int | None) -> Deferred[None]:
        """See :class:`~regproxy.interfaces.IBlob`."""
        if self._fill.demand is not None and self.readable(offset) == 0:
            self._fill.demand(offset, end)
        return self._fill.when_changed()

    def read(self, offset: int, length: int) -> Deferred[bytes]:
        """See :class:`~regproxy.interfaces.IBlob`."""
        return disk.read(self._workers, self._descriptor, length, offset)

    def close(self) -> None:
        """Let go of it."""
        if self._open:
            self._open = False
            self._descriptor.release()
            self._fill.left()
