"""Connections in memory that keep what a relay needs of TCP: back-pressure and half-close."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from attrs import define, field
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

# As in twisted.internet.abstract.FileDescriptor.
SEND_BUFFER: Final = 64 * 1024


@implementer(ITCPTransport)
class MemoryStream(StringTransport):
    """Our side of a connection; the methods below ``# The peer`` are the other side.

    As with a socket, nothing that was written is taken until the peer takes it, and a
    close takes effect when all of it is.

    Attributes:
        pauses: how often the producer was paused.
        held_most: the most that was ever written and not taken yet, in bytes.
        write_closed: the peer has seen our FIN.
        aborted: abortConnection was called.
    """

    def __init__(self, protocol: IProtocol) -> None:
        super().__init__()
        self.protocol = protocol
        self.pauses = 0
        self.held_most = 0
        self.write_closed = False
        self.aborted = False
        self.lost = False
        self._producer_paused = False
        self._write_closing = False
        protocol.makeConnection(self)

    def write(self, data: bytes) -> None:
        if self.lost or self.write_closed:
            return
        super().write(data)
        held = len(self.value())
        self.held_most = max(self.held_most, held)
        if self.producer is not None and held > SEND_BUFFER:
            self.pauses += 1
            self._producer_paused = True
            self.producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def pauseProducing(self) -> None:
        self.producerState = "paused"

    def resumeProducing(self) -> None:
        if not self.disconnecting:
            self.producerState = "producing"

    def loseWriteConnection(self) -> None:
        self._write_closing = True

    def loseConnection(self) -> None:
        self.disconnecting = True

    def abortConnection(self) -> None:
        self.aborted = True

    def getTcpNoDelay(self) -> bool:
        return True

    def setTcpNoDelay(self, enabled: bool) -> None:
        """There are no packets here."""

    def getTcpKeepAlive(self) -> bool:
        return True

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Nor probes."""

    # The peer

    @property
    def reading(self) -> bool:
        """Whether what the peer sends would be read now."""
        return not self.lost and not self.disconnecting and self.producerState == "producing"

    def send(self, data: bytes) -> None:
        """The peer's bytes arrive."""
        self.protocol.dataReceived(data)

    def take(self) -> bytes:
        """The peer reads all there is."""
        data: bytes = self.value()
        self.clear()
        if self.aborted:
            self.lose(ConnectionAborted())
        elif self._producer_paused and self.producer is not None:
            self._producer_paused = False
            self.producer.resumeProducing()
        elif self.disconnecting:
            self.lose(ConnectionDone())
        elif self._write_closing:
            self.write_closed = True
        return data

    def finish(self) -> None:
        """The peer's FIN arrives."""
        half_closeable: IHalfCloseableProtocol | None = IHalfCloseableProtocol(self.protocol, None)
        if half_closeable is None:
            self.lose(ConnectionDone())
        else:
            half_closeable.readConnectionLost()

    def lose(self, reason: Exception) -> None:
        """The connection ends."""
        if self.lost:
            return
        self.lost = True
        if self.producer is not None:
            self.producer.stopProducing()
            self.producer = None
        self.protocol.connectionLost(Failure(reason))


@implementer(IStreamClientEndpoint)
@define
class MemoryEndpoint:
    """An endpoint whose connection attempts end when the test says so."""

    cancelled: bool = False
    _factory: IProtocolFactory | None = None
    _connecting: Deferred[IProtocol] | None = field(default=None)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        def cancel(connecting: Deferred[IProtocol]) -> None:
            self.cancelled = True

        self._factory = protocolFactory
        self._connecting = Deferred(cancel)
        return self._connecting

    @property
    def dialled(self) -> bool:
        """Whether there was an attempt."""
        return self._connecting is not None

    def accept(self) -> MemoryStream:
        """The destination accepts."""
        assert self._factory is not None and self._connecting is not None
        protocol = self._factory.buildProtocol(IPv4Address("TCP", "192.0.2.80", 443))
        assert protocol is not None
        stream = MemoryStream(protocol)
        self._connecting.callback(protocol)
        return stream

    def fail(self, error: Exception) -> None:
        """The attempt fails."""
        assert self._connecting is not None
        self._connecting.errback(error)
