"""The body sender: the only code that moves bytes from content to a connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from regproxy.interfaces import IBlob

# What one reader has in memory at most, besides the transport's own buffer.
SLICE: Final = 128 * 1024


class Outlet(Protocol):
    """Where one body goes. Whoever has it closes it."""

    def opened(self) -> Deferred[None]:
        """Fires when the connection takes bytes; fails with ConnectionAborted when it is gone."""

    def take(self, blob: IBlob, offset: int, limit: int) -> Awaitable[int]:
        """Send between one and *limit* bytes of *blob* from *offset* on, once it is open.

        Returns how many; 0 when the content has none there. Raises what reading it does.
        """

    def close(self) -> None:
        """The body is over, or given up."""


async def send(outlet: Callable[[], Outlet], blob: IBlob, start: int, end: int | None) -> None:
    """Send the bytes of *blob* from *start* to *end* (exclusive; None: to the end).

    While the content is not verified the last byte is held back, so that no client
    ever has a complete response with a wrong byte. If the length is not known the
    response's own end is held back instead: this coroutine does not return before.

    Args:
        outlet: gives the way; called when there are bytes, so that an answer whose
            content never begins can still become another one.

    Raises:
        ConnectionAborted: the client is gone.
        FillFailed, UpstreamError, OSError: the content will never be whole; the
            response must be cut short.
    """
    way: Outlet | None = None
    offset = start
    try:
        while True:
            if end is None and blob.verified:
                end = blob.size
            limit = blob.readable(offset)
            if end is not None:
                limit = min(limit, end - offset - (not blob.verified))
            if limit <= 0 and not blob.verified:
                await blob.when_readable(offset, end)
                continue
            if way is None:
                way = outlet()
            # At the end too: the body is sent when the client has taken it.
            await way.opened()
            if end is not None and offset >= end:
                return
            sent = await way.take(blob, offset, limit) if limit > 0 else 0
            if not sent:
                raise OSError(f"content {blob.digest} ended at {offset}")
            offset += sent
    finally:
        if way is not None:
            way.close()


@implementer(IPushProducer)
class Gate:
    """Open while a consumer takes bytes. It stands for their producer."""

    def __init__(self) -> None:
        self._waiter: Deferred[None] | None = None
        self._open = True
        self._gone = False

    def opened(self) -> Deferred[None]:
        """Fires when it is open; fails with ConnectionAborted when the consumer is gone."""
        if self._gone:
            return fail(ConnectionAborted())
        if self._open:
            return succeed(None)
        self._waiter = Deferred(self._cancelled)
        return self._waiter

    def pauseProducing(self) -> None:
        """The consumer is behind."""
        self._open = False

    def resumeProducing(self) -> None:
        """The consumer has caught up."""
        self._open = True
        waiter = self._forget()
        if waiter is not None:
            waiter.callback(None)

    def stopProducing(self) -> None:
        """The consumer is gone."""
        self._gone = True
        waiter = self._forget()
        if waiter is not None:
            waiter.errback(ConnectionAborted())

    def _cancelled(self, _: object) -> None:
        self._forget()

    def _forget(self) -> Deferred[None] | None:
        waiter, self._waiter = self._waiter, None
        return waiter


class Consumer(Protocol):
    """What takes a body piece by piece: a request, or anything with the same three methods."""

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """Have *producer* paused while the connection is behind."""

    def unregisterProducer(self) -> None:
        """The body is over."""

    def write(self, data: bytes) -> object:
        """Send *data*."""


class Buffered:
    """The way through the buffers of *consumer* and of what is below it."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._gate = Gate()
        consumer.registerProducer(self._gate, True)

    def opened(self) -> Deferred[None]:
        """See :class:`Outlet`."""
        return self._gate.opened()

    async def take(self, blob: IBlob, offset: int, limit: int) -> int:
        """See :class:`Outlet`."""
        piece = bytearray(min(limit, SLICE))
        got = blob.read_into(memoryview(piece), offset)
        data = bytes(piece[:got]) if got else await blob.read(offset, len(piece))
        self._consumer.write(data)
        return len(data)

    def close(self) -> None:
        """See :class:`Outlet`."""
        self._consumer.unregisterProducer()
