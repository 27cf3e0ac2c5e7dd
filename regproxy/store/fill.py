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

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from regproxy.interfaces import IBlob
from regproxy.oci.names import Digest, Host, Repository
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
# A crowd of readers that is woken for each piece does little else. From CROWD readers on
# the news waits, for this many seconds a reader, and comes with more; LULL at most.
CROWD: Final = 8
PAUSE: Final = 0.0005
LULL: Final = 0.1
# The side-car is written first after FIRST bytes, then when there is twice as much, or so many
# bytes more: what a kill loses at most.
SIDE_CAR_FIRST: Final = 1 << 20
SIDE_CAR_STEP: Final = 8 << 20


@frozen
class Origin:
    """Where content comes from, for people."""

    host: Host
    repository: Repository
    kind: str


class Recorder(Protocol):
    """Told of content that has become durable, before anybody learns that it has."""

    def __call__(self, digest: Digest, size: int) -> Deferred[None]:
        """Record *digest*, *size* bytes long."""


Demand = Callable[[int, int | None], None]


class Fill:
    """One transfer of the content named *digest*.

    Attributes:
        digest: what the bytes must hash to.
        origin: where it comes from, if that was said.
        begun: when, on the clock.
        resumed: bytes that were here already, of an earlier try.
        readers: how many there are.
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
        clock: IReactorTime,
        record: Recorder,
        digest: Digest,
        partial_file: Partial,
    ) -> None:
        self.digest = digest
        self.origin: Origin | None = None
        self.begun = clock.seconds()
        self._clock = clock
        self._quiet_until = 0.0
        self._news: IDelayedCall | None = None
        self.state = FillState(partial_file.size, partial_file.stored)
        self.resumed = self.state.arrived
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
        self.readers = 0
        self._unread: Callable[[], None] | None = None
        self._keep = False
        self._changed: list[Deferred[None]] = []
        self._ended: list[Deferred[None]] = []
        self._closed: list[Deferred[None]] | None = []

    # What the sources call.

    def attach(self, source: IPushProducer) -> None:
        """Have *source* paused while the disk is behind."""
        self._sources.add(source)
        if self._paused:
            source.pauseProducing()
        # What an earlier fill left may be all there is.
        self._work_on()

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
        if self.state.over:
            raise ValueError("the fill is over")
        reader = FillReader(self, self._workers, self._descriptor.hold())
        self.readers += 1
        return reader

    def left(self) -> None:
        """A reader was closed."""
        self.readers -= 1
        if self.readers == 0 and self._unread is not None:
            self._unread()
        elif self.readers == 0 and self.deserted is not None and not self.state.over:
            self.deserted()

    def when_unread(self, call: Callable[[], None]) -> None:
        """Call this once nobody reads it any more; it is over, and gets no new readers."""
        if self.readers == 0:
            call()
        else:
            self._unread = call

    def when_changed(self) -> Deferred[None]:
        """Fires at the next bytes or change of phase; fails when the fill does."""
        return self._wait(self._changed, over=False)

    def when_ended(self) -> Deferred[None]:
        """Fires when the content is durable and indexed; fails when the fill does."""
        return self._wait(self._ended, over=self.state.phase is Phase.COMMITTED)

    def when_closed(self) -> Deferred[None]:
        """Fires when it is over, and nothing is done to its file any more."""
        deferred: Deferred[None] = Deferred()
        if self._closed is None:
            deferred.callback(None)
        else:
            self._closed.append(deferred)
        return deferred

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
            unnoted = self._unnoted + self._queued
            noted = stored.total - unnoted
            note = unnoted >= min(SIDE_CAR_STEP, max(SIDE_CAR_FIRST, noted))
            self._working = True
            self._workers.run(
                partial(self._store, pieces, target, state.size, stored if note else None)
            ).addCallbacks(self._stored, self._disk_failed, (pieces, target, note))
        elif state.whole:
            self._check()

    def _store(
        self,
        pieces: list[tuple[int, bytes]],
        target: int,
        size: int | None,
        note: Spans | None,
    ) -> None:
        # In a worker thread; the reactor's leaves what it reads here alone meanwhile.
        self._partial.write(pieces)
        for chunk in self._partial.read_back(dict(pieces), self.state.hashed, target):
            self._hash.update(chunk)
        if note is not None:
            self._partial.note(size, note)

    def _stored(self, _: None, pieces: list[tuple[int, bytes]], target: int, noted: bool) -> None:
        self._working = False
        size = sum(len(data) for _, data in pieces)
        self._queued -= size
        self._unnoted = 0 if noted else self._unnoted + size
        self.state.wrote((start, start + len(data)) for start, data in pieces)
        self.state.hashed = target
        if self.state.over:
            self._dispose()
            return
        if self._paused and self._queued < LOW:
            self._paused = False
            for source in tuple(self._sources):
                # What one of them brings at once may be enough again.
                if not self._paused:
                    source.resumeProducing()
        self._work_on()
        self._tell()

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
        error = DiskFailed(failure.getErrorMessage())
        error.__cause__ = failure.value
        self._end(Failure(error))

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
        self._close()
        self._notify()

    def _dispose(self) -> None:
        # Once, and with no other worker at the file. It is held, and with it the lock,
        # until it is put away.
        pieces, self._queue = self._queue if self._keep else [], []
        kept = joined(self.state.stored, pieces) if self._keep else Spans()
        needed = self._keep or self.state.verified

        def put_away() -> None:
            self._partial.write(pieces)
            self._partial.put_away(self.state.size, kept)
            if not needed:
                # Its blocks are freed here, not in the reactor thread by the last close.
                os.ftruncate(self._descriptor.number, 0)

        def over(result: Failure | None) -> None:
            if result is not None:
                path = self._partial.path
                self._log.failure("A partial transfer was not put away: {path}", result, path=path)
            self._close()

        self._workers.run(put_away).addBoth(over)

    def _close(self) -> None:
        self._descriptor.release()
        waiters, self._closed = self._closed or [], None
        for waiter in waiters:
            waiter.callback(None)

    def _tell(self) -> None:
        """More bytes are readable: wake the readers, a crowd of them only now and then."""
        left = self._quiet_until - self._clock.seconds()
        if len(self._changed) < CROWD or left <= 0:
            self._notify()
        elif self._news is None:
            self._news = self._clock.callLater(left, self._notify)

    def _notify(self) -> None:
        if self._news is not None and self._news.active():
            self._news.cancel()
        self._news = None
        pause = min(LULL, len(self._changed) * PAUSE)
        self._quiet_until = self._clock.seconds() + pause
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
        # In this order: the bytes may be here before the demand returns.
        changed = self._fill.when_changed()
        if self._fill.demand is not None and self.readable(offset) == 0:
            self._fill.demand(offset, end)
        return changed

    def read(self, offset: int, length: int) -> Deferred[bytes]:
        """See :class:`~regproxy.interfaces.IBlob`."""
        return disk.read(self._workers, self._descriptor, length, offset).addCallback(self._checked)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """See :class:`~regproxy.interfaces.IBlob`."""
        if self._lost:
            return 0
        try:
            return disk.read_into(self._descriptor, buffer, offset)
        except OSError:
            return 0

    def file(self) -> int | None:
        """See :class:`~regproxy.interfaces.IBlob`."""
        return None if self._lost else self._descriptor.number

    @property
    def _lost(self) -> bool:
        # Its file may be cut off.
        return self._fill.failure is not None and not self.verified

    def _checked(self, data: bytes) -> bytes | Failure:
        # It may have failed under the read.
        return self._fill.failure if self._lost and self._fill.failure is not None else data

    def close(self) -> None:
        """Let go of it."""
        if self._open:
            self._open = False
            self._descriptor.release()
            self._fill.left()
