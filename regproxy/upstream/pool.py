"""Kept-alive HTTP connections whose response heads are bounded.

Twisted's client limits the length of one header line, and neither the sum of
them nor the number of interim (1xx) responses: tens of megabytes of header are
collected in memory. Here a meter counts along, and breaks the connection.

Nor does Twisted give out the response to a request whose body is still being sent, and
it does not read on for it: a server that refuses an upload and closes looks broken. Here
a refusal ends the sending.

This is the only module of the way out that uses private names of Twisted: its client protocol
lives in ``_newclient``; the pool's ``_factory`` is the one way to give it another
protocol; ``_transportProxy``, the transport that body readers see, lacks the
``abortConnection`` that Twisted's own ``readBody`` looks for on it; and to end the sending
is a change of the protocol's ``_state``.
"""

# Those classes have no annotations.
# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IConsumer, IReactorTime, ITCPTransport
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from twisted.web._newclient import HTTP11ClientProtocol, Request
from twisted.web.client import HTTPConnectionPool
from twisted.web.iweb import IResponse

from regproxy.upstream.errors import ResponseHeadTooLarge

# More than any server sends: one 100 and a few 103 or 102 for a slow answer.
INTERIM_LIMIT: Final = 16

# Idle connections kept per pool and origin: containerd and dockerd fetch three to
# ten blobs at once, and each pull uses them again a moment later.
PERSISTENT: Final = 16
# Less than the minute after which common servers close an idle connection.
KEPT_FOR: Final = 50


class HeadMeter:
    """Follows the bytes of a response up to the end of its head.

    Interim responses count towards the limits of the final one. Lines are taken as
    Twisted's parser takes them, so that both agree where the head ends.

    Attributes:
        refusal: the response says that the request was not accepted as it is: 300 and above.
        finished: the head is complete, and nothing is counted any more.
    """

    def __init__(self, limit: int, interim_limit: int = INTERIM_LIMIT) -> None:
        self.refusal = False
        self.finished = False
        self._limit = limit
        self._interim_left = interim_limit
        self._size = 0
        self._line = bytearray()
        self._in_status_line = True
        self._interim = False

    def feed(self, data: bytes) -> None:
        """Count *data*.

        Raises:
            ResponseHeadTooLarge: a limit is exceeded.
        """
        start = 0
        while not self.finished and start < len(data):
            end = data.find(b"\n", start) + 1
            piece = data[start : end or len(data)]
            self._size += len(piece)
            if self._size > self._limit:
                raise ResponseHeadTooLarge(f"a response head is larger than {self._limit} bytes")
            self._line += piece
            if end == 0:
                return
            self._end_of_line(bytes(self._line[:-1]).removesuffix(b"\r"))
            self._line.clear()
            start = end

    def _end_of_line(self, line: bytes) -> None:
        if self._in_status_line:
            self._in_status_line = False
            status = _status(line)
            self._interim = 100 <= status < 200
            self.refusal = status >= 300
        elif not line and not self._interim:
            self.finished = True
        elif not line:
            self._in_status_line = True
            self._interim_left -= 1
            if self._interim_left < 0:
                raise ResponseHeadTooLarge("too many interim responses before a response")


def _status(status_line: bytes) -> int:
    parts = status_line.split(b" ", 2)
    try:
        return int(parts[1])
    except (IndexError, ValueError):
        # The parser gives the connection up at this line.
        return 0


class MeteredProtocol(HTTP11ClientProtocol):
    """One connection; each response on it is metered."""

    def __init__(self, quiescent: Callable[[HTTP11ClientProtocol], None], limit: int) -> None:
        super().__init__(quiescent)
        self._limit = limit
        self._meter: HeadMeter | None = None
        self._exceeded: ResponseHeadTooLarge | None = None

    def request(self, request: Request) -> Deferred[IResponse]:
        """Send *request*, as the superclass does.

        The Deferred may also fail with ResponseHeadTooLarge.
        """
        meter = self._meter = HeadMeter(self._limit)
        responding = super().request(request)

        def abort() -> None:
            # A reader that is late must not hit the next request on this connection.
            if self._meter is meter and self.state != "QUIESCENT":
                self._abort()

        proxy: Any = self._transportProxy
        if proxy is not None:
            proxy.abortConnection = abort
        return responding.addErrback(self._explained)

    def dataReceived(self, data: bytes) -> None:
        """Count, then parse."""
        if self._exceeded is not None:
            return
        if self._meter is not None:
            try:
                self._meter.feed(data)
            except ResponseHeadTooLarge as error:
                self._exceeded = error
                self._abort()
                return
            if self._meter.refusal and self.state == "TRANSMITTING":
                self._stop_sending()
        super().dataReceived(data)

    def abort(self) -> Deferred[None]:
        """Close at once, without waiting for the peer's close_notify."""
        closing: Deferred[None] = super().abort()
        self._abort()
        return closing

    def _stop_sending(self) -> None:
        """The server refuses what is still being sent: no more of it is (RFC 9112 section 9.5).

        The request counts as sent then, on a connection that takes no other.
        """
        request: Any = self._currentRequest
        responding: Any = self._responseDeferred
        request.persistent = False
        self._state = "WAITING"
        request.stopWriting()
        cast(IConsumer, self.transport).unregisterProducer()
        responding.chainDeferred(self._finishedRequest)

    def _abort(self) -> None:
        cast(ITCPTransport, self.transport).abortConnection()

    def _explained(self, failure: Failure) -> Failure:
        return failure if self._exceeded is None else Failure(self._exceeded)


class _MeteredFactory(Factory):
    noisy = False

    def __init__(
        self, limit: int, quiescent: Callable[[HTTP11ClientProtocol], None], endpoint: str
    ) -> None:
        self._quiescent = quiescent
        self._limit = limit
        self._endpoint = endpoint

    def __repr__(self) -> str:
        return f"<connections to {self._endpoint}>"

    def buildProtocol(self, addr: IAddress | None) -> MeteredProtocol:
        return MeteredProtocol(self._quiescent, self._limit)


class MeteredPool(HTTPConnectionPool):
    """A pool of connections with bounded response heads, kept for further requests or not."""

    maxPersistentPerHost = PERSISTENT
    cachedConnectionTimeout = KEPT_FOR

    def __init__(self, clock: IReactorTime, head_limit: int, persistent: bool = True) -> None:
        super().__init__(clock, persistent)
        factory: Any = partial(_MeteredFactory, head_limit)
        self._factory = factory

    def closeCachedConnections(self) -> Deferred[object]:
        """Close idle connections; fires when they are gone."""
        closing: Deferred[object] = super().closeCachedConnections()
        return closing
