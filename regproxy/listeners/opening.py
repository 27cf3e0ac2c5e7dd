"""How connections open: what is read of them before it is known who goes on.

Whoever goes on is given the transport itself and every byte that is its own. The
protocol here stays between the two only to pass bytes up, since that works the same over
TCP, TLS and the PROXY protocol.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, Final, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    ITransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Interface

from regproxy.listeners.tunnel import IStream, close_write
from regproxy.oci.errors import RegistryError

# A TLS ClientHello, all that a client has to say before the destination answers, is
# some 2 KiB with post-quantum key shares.
HELD_LIMIT: Final = 64 * 1024
# Seconds that a client has to read a refusal and close.
LINGER: Final = 5.0


class Opening(ABC, Protocol):
    """Reads how a connection opens, then passes bytes to whoever goes on.

    Args:
        clock: for the deadlines.
        seconds: how long the opening may take.

    Attributes:
        held: what was received, and nobody has taken yet.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, seconds: float) -> None:
        self.held = bytearray()
        self._clock = clock
        self._seconds = seconds
        self._receive: Callable[[bytes], None] = self._read
        self._paused = False
        self._timer: IDelayedCall | None = None
        self._dialling: Deferred[None] | None = None
        self._inner: IProtocol | None = None

    # What a way in says about its openings

    @abstractmethod
    def read(self, data: bytes) -> None:
        """*data* came, the last of what is held: go on if that is enough to know how."""

    @abstractmethod
    def overdue(self) -> None:
        """The time for the opening is over."""

    @abstractmethod
    def refusal(self, error: RegistryError) -> bytes:
        """The bytes that tell the client of *error*."""

    # The ways out of here

    def enter(self, entrance: Callable[[], IProtocolFactory], answer: bytes = b"") -> None:
        """Hand over to a protocol of *entrance*, after the *answer* that says so.

        A RegistryError that *entrance* raises is the answer instead.
        """
        try:
            inner = entrance().buildProtocol(self.stream.getPeer())
        except RegistryError as error:
            self.refuse(error)
            return
        self.stream.write(answer)
        self.hand_over(inner)

    def hand_over(self, inner: IProtocol | None, stream: IStream | None = None) -> None:
        """Give the connection, and what is held, to *inner*.

        Args:
            inner: None refuses the connection, as with IProtocolFactory.
            stream: the connection as *inner* is to see it; by default as it is.
        """
        self._stop_timer()
        if inner is None:
            self.stream.abortConnection()
            return
        self._inner = inner
        self._receive = inner.dataReceived
        self._resume()
        inner.makeConnection(cast(ITransport, stream or self.stream))
        held, self.held = bytes(self.held), bytearray()
        if held:
            inner.dataReceived(held)

    def dial(self, tunnel: Coroutine[Any, Any, IProtocol], answer: bytes = b"") -> None:
        """Hand over to *tunnel* when it is open, after the *answer* that says so."""
        self._stop_timer()
        self._receive = self._hold
        self._hold(b"")
        self._dialling = Deferred.fromCoroutine(self._await(tunnel, answer))
        self._dialling.addErrback(self._dial_ended)

    def refuse(self, error: RegistryError) -> None:
        """Answer with *error* and close.

        Reading goes on for a while: a connection closed with unread bytes is reset,
        and the client may lose the answer (RFC 9112 section 9.6).
        """
        self._log.info(
            "refused {client} with {status}: {reason}",
            client=self.client,
            status=int(error.status),
            reason=error.message,
        )
        self._stop_timer()
        self._receive = _discard
        self.held.clear()
        self._resume()
        self.stream.write(self.refusal(error))
        close_write(self.stream)
        self._start_timer(LINGER, self.stream.abortConnection)

    @property
    def stream(self) -> IStream:
        """The connection."""
        return cast(IStream, self.transport)

    @property
    def client(self) -> str:
        """The client's address."""
        # A listener may be a UNIX socket, too.
        peer = cast(ITransport, self.transport).getPeer()
        return peer.host if isinstance(peer, IPv4Address | IPv6Address) else str(peer)

    # What the transport calls

    def connectionMade(self) -> None:
        # Absolute: a client that drips does not extend it.
        self._start_timer(self._seconds, self.overdue)

    def dataReceived(self, data: bytes) -> None:
        self._receive(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stop_timer()
        self._receive = _discard
        if self._dialling is not None:
            self._dialling.cancel()
        if self._inner is not None:
            self._inner.connectionLost(reason)
            self._inner = None

    def __conform__(self, interface: type[Interface]) -> object:
        """Whoever goes on may want to hear of a client's FIN.

        To others it is the end of the connection, as always in Twisted, which asks in
        this way (PEP 246) at each FIN.
        """
        if interface is IHalfCloseableProtocol and self._inner is not None:
            return IHalfCloseableProtocol(self._inner, None)
        return None

    def _read(self, data: bytes) -> None:
        self.held += data
        self.read(data)

    def _hold(self, data: bytes) -> None:
        """Keep what an eager client sends before the destination is connected.

        Reading stops only at the limit: a client that leaves is noticed by reading.
        """
        self.held += data
        if len(self.held) > HELD_LIMIT and not self._paused:
            self._paused = True
            self.stream.pauseProducing()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self.stream.resumeProducing()

    async def _await(self, tunnel: Coroutine[Any, Any, IProtocol], answer: bytes) -> None:
        try:
            inner = await tunnel
        except RegistryError as error:
            self.refuse(error)
        else:
            self.stream.write(answer)
            self.hand_over(inner)

    def _dial_ended(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        self._log.failure("opening a tunnel for {client}", failure, client=self.client)
        self.stream.abortConnection()

    def _start_timer(self, delay: float, act: Callable[[], object]) -> None:
        self._timer = self._clock.callLater(delay, act)

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()


def _discard(data: bytes) -> None:
    """What a client sends after its refusal interests nobody."""
