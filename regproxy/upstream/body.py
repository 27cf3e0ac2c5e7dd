"""Bodies: of answers, read with a bound and a deadline; of requests, watched."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, cast

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IProtocol,
    IPushProducer,
    IReactorTime,
    ITransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.components import proxyForInterface
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer, IResponse
from zope.interface import implementer

from regproxy.config.model import LimitsSection
from regproxy.upstream.errors import BodyIncomplete, BodyTooLarge, UpstreamError, UpstreamTimeout
from regproxy.upstream.ledger import Figures

_DRAIN_LIMIT: Final = 64 * 1024
_DRAIN_IDLE: Final = 2.0


class Deadline:
    """A moment that can be put off, at which *expire* is called.

    Attributes:
        passed: it has come.
    """

    def __init__(self, clock: IReactorTime, expire: Callable[[], object]) -> None:
        self.passed = False
        self._clock = clock
        self._expire = expire
        self._call: IDelayedCall | None = None

    def within(self, seconds: float) -> None:
        """It comes *seconds* from now."""
        if self._call is not None and self._call.active():
            self._call.reset(seconds)
        else:
            self._call = self._clock.callLater(seconds, self._pass)

    def stop(self) -> None:
        """It does not come."""
        if self._call is not None and self._call.active():
            self._call.cancel()

    def _pass(self) -> None:
        self.passed = True
        self._expire()


def _abort(transport: ITransport | None) -> None:
    """Break the connection at once: a closing one waits for the peer's close_notify."""
    abort = getattr(transport, "abortConnection", None)
    if abort is not None:
        abort()
    elif transport is not None:
        transport.loseConnection()


@implementer(IPushProducer)
class BodyReader(Protocol):
    """Hands the pieces of a body on as they arrive: ``response.deliverBody(reader)``.

    It is the producer of these pieces: whoever relays them to a slower consumer registers
    it there. While paused, time does not run against the upstream.

    Attributes:
        done: fires with None after the last byte. It fails with UpstreamTimeout when in
            *idle* seconds fewer bytes come than *rate* a second, or none, with
            BodyTooLarge when more than *limit* bytes come, with BodyIncomplete when the
            body ends before its length, and with what *receive* raised. In all these
            cases, and when it is cancelled, the
            connection is broken. A body without a length that the connection's end
            ends counts as complete (RFC 9112 section 8): check its digest.
    """

    def __init__(
        self,
        receive: Callable[[bytes], object],
        clock: IReactorTime,
        idle: float,
        limit: int | None = None,
        rate: float = 0.0,
    ) -> None:
        self.done: Deferred[None] = Deferred(lambda _: self._fail(CancelledError()))
        self._receive = receive
        self._idle = idle
        # Bytes that buy another *idle* seconds: a drip does not.
        self._worth = max(1, round(rate * idle))
        self._saved = 0
        self._left = limit
        self._deadline = Deadline(clock, self._expired)
        self._over = False
        self._paused = False
        self._figures: Figures | None = None

    def count_in(self, figures: Figures) -> None:
        """Count in *figures* what comes, and what goes wrong."""
        self._figures = figures

    def connectionMade(self) -> None:
        self._deadline.within(self._idle)

    def dataReceived(self, data: bytes) -> None:
        if self._over:
            return
        if self._figures is not None:
            self._figures.bytes += len(data)
        self._saved += len(data)
        # What was read before the pause may still come.
        if self._saved >= self._worth and not self._paused:
            self._saved = 0
            self._deadline.within(self._idle)
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                self._fail(BodyTooLarge("the body is larger than allowed here"))
                return
        try:
            self._receive(data)
        except Exception as error:  # a reader's fault must not reach the HTTP parser
            self._fail(error)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._over:
            return
        self._finish()
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(None)
        else:
            self._failed(BodyIncomplete("the body ended before its length"))

    def pauseProducing(self) -> None:
        """Stop reading until resumed."""
        self._paused = True
        self._deadline.stop()
        if not self._over:
            cast(IPushProducer, self.transport).pauseProducing()

    def resumeProducing(self) -> None:
        """Read on."""
        self._paused = False
        if not self._over:
            self._saved = 0
            self._deadline.within(self._idle)
            cast(IPushProducer, self.transport).resumeProducing()

    def stopProducing(self) -> None:
        """The consumer is gone: break the connection, as cancelling ``done`` does."""
        if not self._over:
            self._fail(CancelledError())

    def _expired(self) -> None:
        self._fail(UpstreamTimeout(f"too little of the body came in {self._idle:g} seconds"))

    def _fail(self, error: Exception) -> None:
        self._finish()
        _abort(self.transport)
        self._failed(error)

    def _failed(self, error: Exception) -> None:
        if self._figures is not None and isinstance(error, UpstreamError):
            self._figures.failed(error)
        self.done.errback(error)

    def _finish(self) -> None:
        self._over = True
        self._deadline.stop()


class Measured(proxyForInterface(IResponse, "_response")):  # type: ignore[misc]
    """A response whose body, read with :class:`BodyReader`, counts in *figures*."""

    def __init__(self, response: IResponse, figures: Figures) -> None:
        super().__init__(response)
        self._figures = figures

    def deliverBody(self, protocol: IProtocol) -> None:
        """See IResponse."""
        if isinstance(protocol, BodyReader):
            protocol.count_in(self._figures)
        self._response.deliverBody(protocol)


async def read(
    response: IResponse, limit: int, limits: LimitsSection, clock: IReactorTime
) -> bytes:
    """The whole body of *response*.

    Args:
        limit: the most bytes to take.
        limits: how long upstream may be silent, and how slow it may be.

    Raises:
        BodyTooLarge, BodyIncomplete, UpstreamTimeout: see :class:`BodyReader`.
    """
    if response.length is not UNKNOWN_LENGTH and response.length > limit:
        discard(response)
        raise BodyTooLarge(f"the body is larger than {limit} bytes")
    pieces: list[bytes] = []
    reader = BodyReader(
        pieces.append, clock, limits.upstream_idle, limit, rate=limits.upstream_rate
    )
    response.deliverBody(reader)
    await reader.done
    return b"".join(pieces)


class _Discard(Protocol):
    def connectionMade(self) -> None:
        _abort(self.transport)


def discard(response: IResponse) -> None:
    """Give up a response whose body nobody reads, and its connection.

    A body that has arrived whole leaves the connection usable.
    """
    response.deliverBody(_Discard())


class _Drain(BodyReader):
    """Of a body that nobody reads nothing is counted: that it does not come is no harm."""

    def count_in(self, figures: Figures) -> None:
        pass


async def drain(response: IResponse, clock: IReactorTime) -> None:
    """Give up a response whose body nobody reads, but keep its connection.

    A body that is short and comes soon is read for that: redirects and challenges have a
    few hundred bytes, and the next request follows at once. Any other is given up as
    with :func:`discard`, which is no error.
    """
    if response.length is not UNKNOWN_LENGTH and response.length > _DRAIN_LIMIT:
        discard(response)
        return
    reader = _Drain(lambda data: None, clock, _DRAIN_IDLE, _DRAIN_LIMIT)
    response.deliverBody(reader)
    with suppress(UpstreamError):
        await reader.done


@implementer(IBodyProducer)
class WatchedBody:
    """A request body that the server has to take.

    The deadline runs while the server is behind, *idle* seconds at one time; that the body
    comes is for its maker to see to. The end of the body sets it to *answer* seconds, the
    time for the response.
    """

    def __init__(self, body: IBodyProducer, deadline: Deadline, idle: float, answer: float) -> None:
        self._body = body
        self._deadline = deadline
        self._idle = idle
        self._answer = answer
        self.length: Any = body.length

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        self._deadline.stop()
        sending: Deferred[None] = self._body.startProducing(consumer)
        return sending.addCallback(lambda _: self._deadline.within(self._answer))

    def pauseProducing(self) -> None:
        self._deadline.within(self._idle)
        self._body.pauseProducing()

    def resumeProducing(self) -> None:
        self._deadline.stop()
        self._body.resumeProducing()

    def stopProducing(self) -> None:
        self._deadline.within(self._answer)
        self._body.stopProducing()


@implementer(IBodyProducer)
class BytesBody:
    """A request body that is short and here already."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.length: Any = len(content)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Write all of it."""
        consumer.write(self._content)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Nothing: it is written already."""

    def resumeProducing(self) -> None:
        """Nothing: it is written already."""

    def stopProducing(self) -> None:
        """Nothing: it is written already."""
