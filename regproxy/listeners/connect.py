"""The ``[proxy]`` listener: an HTTP proxy that ends the TLS of some hosts and tunnels to others.

The first request head is read before any HTTP channel exists, so nothing has to
be taken back out of one. Whoever goes on is given the transport itself and every byte that
came after the head; the protocol here stays between the two only to pass bytes up, since that
works the same over TCP, TLS and the PROXY protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    ITransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import alsoProvides

from regproxy.config.model import LimitsSection
from regproxy.listeners.head import (
    ESTABLISHED,
    Connect,
    HeadTimeout,
    Other,
    parse,
    render_refusal,
)
from regproxy.listeners.tunnel import IStream, Tunnels, close_write
from regproxy.oci.errors import RegistryError
from regproxy.oci.names import Host
from regproxy.policy.interception import Decision, Intercept, Tunnel

# A TLS ClientHello, all that a client has to say before the destination answers, is
# some 2 KiB with post-quantum key shares.
HELD_LIMIT: Final = 64 * 1024
# Seconds that a client has to read a refusal and close.
LINGER: Final = 5.0


class ConnectFactory(Factory["ConnectProtocol"]):
    """Makes the protocols of the ``[proxy]`` listener.

    Args:
        clock: for the deadlines.
        limits: ``request_head`` bounds the time for the first request head.
        decide: what becomes of a CONNECT.
        intercepted: what speaks on the connection to an intercepted host: TLS first.
        plain: answers every other request; it sees the connection from its first byte.
        tunnels: opens the others.
    """

    noisy = False

    def __init__(
        self,
        clock: IReactorTime,
        limits: LimitsSection,
        *,
        decide: Callable[[Host], Decision],
        intercepted: Callable[[Host], IProtocolFactory],
        plain: IProtocolFactory,
        tunnels: Tunnels,
    ) -> None:
        self.clock = clock
        self.limits = limits
        self.decide = decide
        self.intercepted = intercepted
        self.plain = plain
        self.tunnels = tunnels

    def startFactory(self) -> None:
        self.plain.doStart()

    def stopFactory(self) -> None:
        self.plain.doStop()

    def buildProtocol(self, addr: IAddress | None) -> ConnectProtocol:
        return ConnectProtocol(self)


class ConnectProtocol(Protocol):
    """Reads the first request head of a connection, then passes bytes to whoever goes on."""

    _log = Logger()

    def __init__(self, factory: ConnectFactory) -> None:
        self.factory: ConnectFactory = factory
        self._receive: Callable[[bytes], None] = self._read_head
        self._held = bytearray()
        self._paused = False
        self._timer: IDelayedCall | None = None
        self._dialling: Deferred[None] | None = None
        self._inner: IProtocol | None = None

    @property
    def _stream(self) -> IStream:
        return cast(IStream, self.transport)

    # What the transport calls

    def connectionMade(self) -> None:
        # Absolute: a client that drips does not extend it.
        self._start_timer(self.factory.limits.request_head, self._refuse, HeadTimeout())

    def dataReceived(self, data: bytes) -> None:
        self._receive(data)

    def readConnectionLost(self) -> None:
        IHalfCloseableProtocol(self._inner).readConnectionLost()

    def writeConnectionLost(self) -> None:
        IHalfCloseableProtocol(self._inner).writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stop_timer()
        self._receive = _discard
        if self._dialling is not None:
            self._dialling.cancel()
        if self._inner is not None:
            self._inner.connectionLost(reason)
            self._inner = None

    # The head

    def _read_head(self, data: bytes) -> None:
        self._held += data
        try:
            parsed = parse(bytes(self._held))
        except RegistryError as error:
            self._refuse(error)
            return
        if parsed is None:
            return
        self._stop_timer()
        opening, rest = parsed
        self._held = bytearray(rest)
        match opening:
            case Connect(target):
                self._connect(target)
            case Other.REQUEST:
                self._hand_over(self.factory.plain.buildProtocol(self._stream.getPeer()))
            case Other.TLS:
                self._log.warn(
                    "{client} speaks TLS to the plain-text proxy port:"
                    " its proxy URL must begin with http://",
                    client=self._client,
                )
                self._stream.abortConnection()

    def _connect(self, target: Host) -> None:
        match self.factory.decide(target):
            case Intercept(host):
                inner = self.factory.intercepted(host).buildProtocol(self._stream.getPeer())
                self._stream.write(ESTABLISHED)
                self._hand_over(inner)
            case Tunnel(host):
                self._receive = self._hold
                self._hold(b"")
                self._dialling = Deferred.fromCoroutine(self._tunnel(host))
                self._dialling.addErrback(self._dial_ended)

    # A tunnel, from the decision to the answer

    async def _tunnel(self, host: Host) -> None:
        try:
            inner = await self.factory.tunnels.open(host, self._client)
        except RegistryError as error:
            self._refuse(error)
        else:
            self._stream.write(ESTABLISHED)
            self._hand_over(inner)

    def _dial_ended(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        self._log.failure("opening a tunnel for {client}", failure, client=self._client)
        self._stream.abortConnection()

    def _hold(self, data: bytes) -> None:
        """Keep what an eager client sends before the destination is connected.

        Reading stops only at the limit: a client that leaves is noticed by reading.
        """
        self._held += data
        if len(self._held) > HELD_LIMIT and not self._paused:
            self._paused = True
            self._stream.pauseProducing()

    # The ways out of here

    def _hand_over(self, inner: IProtocol | None) -> None:
        """Give the connection, and what came after the head, to *inner*."""
        if inner is None:
            # IProtocolFactory: it refuses the connection.
            self._stream.abortConnection()
            return
        self._inner = inner
        self._receive = inner.dataReceived
        if IHalfCloseableProtocol.providedBy(inner):
            # Otherwise a client's FIN is the end of the connection, as always in Twisted.
            alsoProvides(self, IHalfCloseableProtocol)
        self._resume()
        inner.makeConnection(self._stream)
        held, self._held = bytes(self._held), bytearray()
        if held:
            inner.dataReceived(held)

    def _refuse(self, error: RegistryError) -> None:
        """Answer with *error* and close.

        Reading goes on for a while: a connection closed with unread bytes is reset,
        and the client may lose the answer (RFC 9112 section 9.6).
        """
        self._log.info(
            "refused {client} with {status}: {reason}",
            client=self._client,
            status=int(error.status),
            reason=error.message,
        )
        self._stop_timer()
        self._receive = _discard
        self._held.clear()
        self._resume()
        self._stream.write(render_refusal(error))
        close_write(self._stream)
        self._start_timer(LINGER, self._stream.abortConnection)

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._stream.resumeProducing()

    @property
    def _client(self) -> str:
        # A listener may be a UNIX socket, too.
        peer = cast(ITransport, self.transport).getPeer()
        return peer.host if isinstance(peer, IPv4Address | IPv6Address) else str(peer)

    def _start_timer(self, delay: float, act: Callable[..., object], *args: object) -> None:
        self._timer = self.factory.clock.callLater(delay, act, *args)

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()


def _discard(data: bytes) -> None:
    """What a client sends after its refusal interests nobody."""
