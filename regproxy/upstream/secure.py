"""TLS to an upstream, over an endpoint that is checked already."""

from __future__ import annotations

from typing import Final, cast

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

# Time for the peer's close_notify: a round trip, and more for a busy server.
CLOSING: Final = 5.0
# Bytes read at a time. Large bodies pass through a dozen calls for each.
RECEIVED: Final = 256 * 1024


class _Transport(BufferingTLSTransport):
    """Closes within a bounded time: Twisted's waits for the peer's close_notify for ever."""

    _giving_up: IDelayedCall | None = None

    def makeConnection(self, transport: ITransport) -> None:
        """The connection below is there."""
        # How much a socket is asked for at once: the attribute is FileDescriptor's.
        transport.bufferSize = RECEIVED  # type: ignore[attr-defined]
        super().makeConnection(transport)

    def loseConnection(self) -> None:
        super().loseConnection()
        if self.connected and self._giving_up is None:
            clock = cast(_Factory, self.factory).clock
            self._giving_up = clock.callLater(CLOSING, self.abortConnection)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._giving_up is not None and self._giving_up.active():
            self._giving_up.cancel()
        super().connectionLost(reason)


class _Factory(TLSMemoryBIOFactory):
    protocol = _Transport

    def __init__(
        self,
        creator: IOpenSSLClientConnectionCreator,
        wrapped: IProtocolFactory,
        clock: IReactorTime,
    ) -> None:
        super().__init__(creator, True, wrapped, clock)
        self.clock = clock


@implementer(IStreamClientEndpoint)
@frozen
class TLSEndpoint:
    """A client endpoint with TLS over another one.

    Twisted's ``wrapClientTLS`` is the same with the global reactor's clock, and without a
    bound on the time that closing takes.
    """

    endpoint: IStreamClientEndpoint
    creator: IOpenSSLClientConnectionCreator
    clock: IReactorTime

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect; the handshake goes on after the Deferred has fired."""
        factory = _Factory(self.creator, protocolFactory, self.clock)
        return self.endpoint.connect(factory).addCallback(_within)


def _within(connected: IProtocol) -> IProtocol:
    return cast(ProtocolWrapper, connected).wrappedProtocol
