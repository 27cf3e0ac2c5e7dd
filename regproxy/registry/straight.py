"""Content that the disk does not take: one client's own copy, straight from upstream."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Final

from twisted.internet.defer import Deferred, ensureDeferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IResponse
from zope.interface import implementer

from regproxy.config.model import LimitsSection
from regproxy.interfaces import IBlob, IMirrored
from regproxy.oci.names import Digest
from regproxy.registry.ask import length_of
from regproxy.store.errors import DigestMismatch, DiskFailed
from regproxy.upstream.body import BodyReader, discard
from regproxy.upstream.errors import UpstreamError

# Bytes that wait for the client, at most plus one read from the socket.
HIGH: Final = 512 * 1024


@implementer(IBlob)
class StraightBlob:
    """Content that is verified as it passes, and kept nowhere.

    It is read once, in order; what comes before the first byte that is read or after
    the last is hashed and dropped.

    Args:
        response: a 200 with all of the content.
        limits: how long upstream may be silent, and how slow it may be.
    """

    def __init__(
        self, response: IResponse, digest: Digest, clock: IReactorTime, limits: LimitsSection
    ) -> None:
        self.digest = digest
        self.size = length_of(response)
        self.verified = False
        self._response = response
        self._reader = BodyReader(
            self._receive, clock, limits.upstream_idle, rate=limits.upstream_rate
        )
        self._started = False
        self._paused = False
        self._hash = hashlib.new(digest.algorithm)
        self._received = 0
        # The client's next byte and the end of what it wants; the buffer begins there.
        self._next = 0
        self._end: int | None = None
        self._buffer = bytearray()
        self._waiter: Deferred[None] | None = None
        self._failure: Failure | None = None

    def readable(self, offset: int) -> int:
        """How many bytes can be read from *offset* on."""
        return len(self._buffer) if offset == self._next else 0

    def when_readable(self, offset: int, end: int | None) -> Deferred[None]:
        """See :class:`~regproxy.interfaces.IBlob`."""
        if self._failure is not None:
            return fail(self._failure)
        if self.verified:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._waiter = waiter
        if not self._started:
            self._started = True
            self._next, self._end = offset, end
            self._reader.done.addCallbacks(self._ended, self._broke_off)
            self._response.deliverBody(self._reader)
        return waiter

    def read(self, offset: int, length: int) -> Deferred[bytes]:
        """See :class:`~regproxy.interfaces.IBlob`."""
        data = bytes(self._buffer[:length])
        del self._buffer[:length]
        self._next += len(data)
        if self._paused and len(self._buffer) < HIGH:
            self._paused = False
            self._reader.resumeProducing()
        return succeed(data)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """See :class:`~regproxy.interfaces.IBlob`."""
        return 0

    def file(self) -> None:
        """See :class:`~regproxy.interfaces.IBlob`."""

    def close(self) -> None:
        """Let go of it, and of the upstream if it is not done."""
        if self._started:
            self._reader.stopProducing()
        else:
            discard(self._response)

    def _receive(self, data: bytes) -> None:
        self._hash.update(data)
        first = max(0, self._next + len(self._buffer) - self._received)
        last = len(data) if self._end is None else max(0, self._end - self._received)
        self._buffer += data[first:last]
        self._received += len(data)
        if len(self._buffer) > HIGH:
            self._paused = True
            self._reader.pauseProducing()
        self._notify()

    def _ended(self, _: None) -> None:
        actual = Digest(self.digest.algorithm, self._hash.hexdigest())
        if actual != self.digest:
            self._spoiled(f"it gave {actual} for {self.digest}", wrong=True)
            self._failed(Failure(DigestMismatch(self.digest, actual)))
            return
        self.verified = True
        self.size = self._received
        self._notify()

    def _broke_off(self, failure: Failure) -> None:
        if failure.check(UpstreamError):
            self._spoiled(failure.getErrorMessage(), wrong=False)
        self._failed(failure)

    def _spoiled(self, reason: str, *, wrong: bool) -> None:
        if IMirrored.providedBy(self._response):
            IMirrored(self._response).spoiled(reason, wrong=wrong)

    def _failed(self, failure: Failure) -> None:
        self._failure = failure
        self._buffer.clear()
        self._notify()

    def _notify(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and self._failure is not None:
            waiter.errback(self._failure)
        elif waiter is not None:
            waiter.callback(None)


@implementer(IBlob)
class FallbackBlob:
    """Content of the store for as long as the disk holds, and from upstream from there on.

    Args:
        blob: of the store.
        straight: gets the same content from upstream.
        end: where the reader will stop; None is the content's end.
    """

    _log = Logger()

    def __init__(
        self, blob: IBlob, straight: Callable[[], Awaitable[IBlob]], end: int | None
    ) -> None:
        self.digest = blob.digest
        self._blob = blob
        self._straight = straight
        self._end = end

    @property
    def size(self) -> int | None:
        """Length in bytes; None while it is not known."""
        return self._blob.size

    @property
    def verified(self) -> bool:
        """Whether all bytes are here and hash to the digest."""
        return self._blob.verified

    def readable(self, offset: int) -> int:
        """How many bytes can be read from *offset* on."""
        return self._blob.readable(offset)

    def when_readable(self, offset: int, end: int | None) -> Deferred[None]:
        """See :class:`~regproxy.interfaces.IBlob`."""
        return ensureDeferred(self._when_readable(offset, end))

    def read(self, offset: int, length: int) -> Deferred[bytes]:
        """See :class:`~regproxy.interfaces.IBlob`."""
        return ensureDeferred(self._read(offset, length))

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """See :class:`~regproxy.interfaces.IBlob`."""
        return self._blob.read_into(buffer, offset)

    def file(self) -> int | None:
        """See :class:`~regproxy.interfaces.IBlob`."""
        return self._blob.file()

    def close(self) -> None:
        """Let go of it."""
        self._blob.close()

    async def _when_readable(self, offset: int, end: int | None) -> None:
        try:
            await self._blob.when_readable(offset, end)
        except DiskFailed:
            await self._change_over()

    async def _read(self, offset: int, length: int) -> bytes:
        try:
            data = await self._blob.read(offset, length)
            reason = f"it ends at {offset}"
        except (OSError, DiskFailed) as error:
            data, reason = b"", str(error)
        if data:
            return data
        self._log.error(
            "The disk does not give {digest}, the rest comes from upstream: {reason}",
            digest=str(self.digest),
            reason=reason,
        )
        await self._change_over()
        while not (ready := self._ready(offset, length)) and not self.verified:
            await self._blob.when_readable(offset, self._end)
        return await self._blob.read(offset, ready)

    def _ready(self, offset: int, length: int) -> int:
        """How many of *length* bytes there are, less the last one until the digest is right."""
        ready = min(length, self.readable(offset))
        if self._end is not None and not self.verified:
            ready = min(ready, self._end - offset - 1)
        return ready

    async def _change_over(self) -> None:
        failed, self._blob = self._blob, await self._straight()
        failed.close()


@implementer(IBlob)
class MemoryBlob:
    """A manifest that is in memory whole, and that the disk does not take."""

    verified = True

    def __init__(self, digest: Digest, content: bytes) -> None:
        self.digest = digest
        self.size: int | None = len(content)
        self._content = content

    def readable(self, offset: int) -> int:
        """How many bytes can be read from *offset* on."""
        return max(0, len(self._content) - offset)

    def when_readable(self, offset: int, end: int | None) -> Deferred[None]:
        """Nothing changes any more."""
        return succeed(None)

    def read(self, offset: int, length: int) -> Deferred[bytes]:
        """See :class:`~regproxy.interfaces.IBlob`."""
        return succeed(self._content[offset : offset + length])

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """See :class:`~regproxy.interfaces.IBlob`."""
        return 0

    def file(self) -> None:
        """See :class:`~regproxy.interfaces.IBlob`."""

    def close(self) -> None:
        """There is nothing to let go of."""
