"""The body sender: the only code that moves bytes from content to a connection."""

from __future__ import annotations

from typing import Final, Protocol

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from regproxy.interfaces import IBlob

# What one reader has in memory at most, besides the transport's own buffer.
SLICE: Final = 128 * 1024


class Consumer(Protocol):
    """Where a body goes: a request, or anything with the same four methods."""

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """Have *producer* paused while the connection is behind."""

    def unregisterProducer(self) -> None:
        """The body is over."""

    def write(self, data: bytes) -> object:
        """Send *data*."""


@implementer(IPushProducer)
class Gate:
    """Open while the consumer takes bytes."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._waiter: Deferred[None] | None = None
        self._paused = False
        self._gone = False
        consumer.registerProducer(self, True)

    def opened(self) -> Deferred[None]:
        """Fires when the consumer takes bytes; fails with ConnectionAborted when it is gone."""
        if self._gone:
            return fail(ConnectionAborted())
        if not self._paused:
            return succeed(None)
        self._waiter = Deferred(self._cancelled)
        return self._waiter

    def close(self) -> None:
        """The body is over, or given up."""
        self._consumer.unregisterProducer()

    def pauseProducing(self) -> None:
        """The consumer is behind."""
        self._paused = True

    def resumeProducing(self) -> None:
        """The consumer has caught up."""
        self._paused = False
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


async def send(consumer: Consumer, blob: IBlob, start: int, end: int | None) -> None:
    """Send the bytes of *blob* from *start* to *end* (exclusive; None: to the end).

    While the content is not verified the last byte is held back, so that no client
    ever has a complete response with a wrong byte. If the length is not known the
    response's own end is held back instead: this coroutine does not return before.

    Raises:
        ConnectionAborted: the consumer is gone.
        FillFailed, UpstreamError, OSError: the content will never be whole; the
            response must be cut short.
    """
    gate = Gate(consumer)
    try:
        await _send(gate, consumer, blob, start, end)
    finally:
        gate.close()


async def _send(gate: Gate, consumer: Consumer, blob: IBlob, start: int, end: int | None) -> None:
    offset = start
    while True:
        # At the end too: the body is sent when the client has taken it.
        await gate.opened()
        if end is None and blob.verified:
            end = blob.size
        if blob.verified and end is not None and offset >= end:
            return
        limit = blob.readable(offset)
        if end is not None:
            limit = min(limit, end - offset - (not blob.verified))
        if limit <= 0 and not blob.verified:
            await blob.when_readable(offset, end)
            continue
        data = await blob.read(offset, min(limit, SLICE)) if limit > 0 else b""
        if not data:
            raise OSError(f"content {blob.digest} ended at {offset}")
        consumer.write(data)
        offset += len(data)
