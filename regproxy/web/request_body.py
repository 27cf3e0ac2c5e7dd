"""The body of a client's request: handed on as it arrives, at the pace of who takes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IConsumer, IDelayedCall, IPushProducer, IReactorTime
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

# Bytes a second: no line is as slow, and what is slower holds a connection for nothing.
RATE: Final = 512


class BodyBroken(Exception):
    """The body will never be whole."""


@implementer(IBodyProducer)
class RequestBody:
    """One request's body.

    The client is read from while somebody takes what comes. Before, and while who takes it
    is behind, its transport is paused, so that there is never more here than one read
    of it. What nobody wants any more is read and thrown away: a client that cannot
    send does not look for an answer.

    Args:
        length: in bytes; None when only the body's end will tell.
        transport: the client's connection.
        stall: how many seconds the client may send less than RATE when it could send.
        wanted: called before the first byte is asked for.
        overdue: called when the client took too long.
    """

    def __init__(
        self,
        length: int | None,
        transport: IPushProducer,
        clock: IReactorTime,
        stall: float,
        wanted: Callable[[], object],
        overdue: Callable[[], object],
    ) -> None:
        self.length: Any = UNKNOWN_LENGTH if length is None else length
        self._transport = transport
        self._clock = clock
        self._stall = stall
        self._wanted = wanted
        self._overdue = overdue
        self._pieces: list[bytes] = []
        self._consumer: IConsumer | None = None
        self._producing: Deferred[None] | None = None
        self._paused = True
        self._whole = False
        self._unwanted = False
        self._deadline: IDelayedCall | None = None
        self._received = 0

    # For the connection

    def received(self, data: bytes) -> None:
        """The next bytes."""
        if self._unwanted:
            return
        self._received += len(data)
        if self._consumer is None or self._paused:
            self._pieces.append(data)
            self._transport.pauseProducing()
        else:
            self._consumer.write(data)

    def finished(self) -> None:
        """All bytes have been received."""
        self._whole = True
        self._stop_watch()
        # There may be more requests, and the client's leaving is seen.
        self._transport.resumeProducing()
        self._end_if_sent()

    def abort(self, reason: str) -> None:
        """The body is given up, whether or not somebody takes it: it must not look whole."""
        producing = self._producing
        self.stopProducing()
        if producing is not None:
            producing.errback(BodyBroken(reason))

    # For who takes it

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Write the body to *consumer*; fires when all of it is written.

        It fails with BodyBroken when there will never be all of it.
        """
        if self._unwanted:
            return fail(BodyBroken("the client has gone, or has its answer already"))
        self._consumer = consumer
        producing = self._producing = Deferred(lambda _: self.stopProducing())
        self._wanted()
        self.resumeProducing()
        return producing

    def pauseProducing(self) -> None:
        """The consumer is behind."""
        self._paused = True
        self._stop_watch()
        if not (self._whole or self._unwanted):
            self._transport.pauseProducing()

    def resumeProducing(self) -> None:
        """The consumer has caught up."""
        self._paused = False
        while self._consumer is not None and self._pieces and not self._paused:
            self._consumer.write(self._pieces.pop(0))
        self._end_if_sent()
        if not (self._paused or self._whole or self._unwanted):
            self._watch()
            self._transport.resumeProducing()

    def stopProducing(self) -> None:
        """The rest is for nobody."""
        self._unwanted = True
        self._consumer = self._producing = None
        self._pieces.clear()
        self._stop_watch()
        if not self._whole:
            self._transport.resumeProducing()

    def _end_if_sent(self) -> None:
        if self._whole and not self._pieces and self._producing is not None:
            producing, self._producing = self._producing, None
            self._unwanted = True
            producing.callback(None)

    def _watch(self) -> None:
        if self._deadline is None:
            self._received = 0
            self._deadline = self._clock.callLater(self._stall, self._look)

    def _look(self) -> None:
        self._deadline = None
        if self._received >= RATE * self._stall:
            self._watch()
        else:
            self._overdue()

    def _stop_watch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
