"""Tunnels: bytes relayed untouched between a client and a host that is not intercepted."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from http import HTTPStatus
from typing import Final, cast

from attrs import frozen
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectingCancelledError, ConnectionRefusedError
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IProtocol,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from regproxy.config.model import LimitsSection
from regproxy.oci.errors import BadGateway, Denied, GatewayTimeout, RegistryError
from regproxy.oci.names import Host
from regproxy.upstream.errors import (
    AddressRefused,
    NameUnresolved,
    ParentProxyRefused,
    UpstreamError,
    UpstreamTimeout,
    UpstreamTLSFailed,
)

# What nginx logs, and all who read such logs know.
CLIENT_LEFT: Final = 499


class DestinationProhibited(Denied):
    """The guard forbids the destination's addresses or port."""

    proxy_status = "destination_ip_prohibited"


class DestinationUnavailable(BadGateway):
    """The destination has no address, or none that answers."""

    def __init__(self, message: str, proxy_status: str) -> None:
        super().__init__(message)
        self.proxy_status = proxy_status


class DialTimeout(GatewayTimeout):
    """The destination did not answer in time."""

    proxy_status = "connection_timeout"


class Outcome(StrEnum):
    """What became of a tunnel."""

    TUNNEL = "tunnel"
    """It was established."""
    REFUSED = "refused"
    """The client got an error."""
    ABANDONED = "abandoned"
    """The client left before it got an answer."""


@frozen
class TunnelRecord:
    """One tunnel at its end, for the access log.

    Attributes:
        client: the client's address.
        status: what the client was answered; 499 when it left before that.
        bytes_up: bytes received from the client.
        bytes_down: bytes received from *host*.
        duration: seconds since the CONNECT was read.
        reason: what ended or prevented it.
    """

    client: str
    host: Host
    status: int
    bytes_up: int
    bytes_down: int
    duration: float
    outcome: Outcome
    reason: str


class IStream(ITCPTransport, IConsumer, IPushProducer):
    """What Twisted's TCP and TLS transports provide, all that a relay needs."""


def close_write(stream: IStream) -> None:
    """Tell the peer that nothing more comes, once all that was written is sent.

    Twisted has no half-closed TLS: there the whole connection is closed.
    """
    if ISSLTransport.providedBy(stream):
        stream.loseConnection()
    else:
        stream.loseWriteConnection()


@implementer(IHalfCloseableProtocol, IPushProducer)
class _End(Protocol):
    """One end of a tunnel. As a producer it is the bytes that arrive there."""

    relay: Relay | None = None
    received = 0
    # Whether more may arrive: until the peer's FIN.
    reading = True
    open = False

    @property
    def stream(self) -> IStream:
        """The connection."""
        return cast(IStream, self.transport)

    def connectionMade(self) -> None:
        self.open = True
        # A TLS record must not wait for the acknowledgement of the one before.
        self.stream.setTcpNoDelay(True)
        # A peer that vanished is noticed before the idle deadline.
        self.stream.setTcpKeepAlive(True)

    def dataReceived(self, data: bytes) -> None:
        self.received += len(data)
        if self.relay is not None:
            self.relay.pass_on(self, data)

    def readConnectionLost(self) -> None:
        self.reading = False
        if self.relay is not None:
            self.relay.pass_on_end(self)

    def writeConnectionLost(self) -> None:
        """Its own FIN is sent; nothing depends on that."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        was_reading, self.reading, self.open = self.reading, False, False
        if self.relay is not None:
            self.relay.pass_on_loss(self, was_reading)

    def pauseProducing(self) -> None:
        self.stream.pauseProducing()

    def resumeProducing(self) -> None:
        # Twisted would read the FIN a second time.
        if self.reading:
            self.stream.resumeProducing()

    def stopProducing(self) -> None:
        """The consumer's connection is lost; its own end of the tunnel acts on that."""


class _Server(_End):
    """The end at the destination, connected first."""

    # What came before the client's end was there.
    held = b""

    def connectionMade(self) -> None:
        super().connectionMade()
        # There is nobody yet to take what a server says first.
        self.stream.pauseProducing()

    def dataReceived(self, data: bytes) -> None:
        if self.relay is not None and self.relay.client.open:
            super().dataReceived(data)
        else:
            # A parent proxy may have sent it together with its own answer.
            self.held += data


class _Client(_End):
    """The end at the client, which completes the tunnel."""

    def connectionMade(self) -> None:
        super().connectionMade()
        if self.relay is not None:
            self.relay.join()


class Relay:
    """Two connections joined into one.

    Back-pressure: each connection consumes what the other one produces, so a
    side that does not take its bytes stops the reading of the other side, and
    at most one send buffer per direction is held. Each direction ends by itself.

    Args:
        clock: for the deadlines.
        limits: ``tunnel_idle`` and ``tunnel_total`` count.
        server: the established connection.
        done: called once, when both connections are lost, with the reason.
    """

    def __init__(
        self,
        clock: IReactorTime,
        limits: LimitsSection,
        server: _Server,
        done: Callable[[Relay, str], None],
    ) -> None:
        self.server = server
        self.client = _Client()
        self.server.relay = self.client.relay = self
        self._done = done
        self._reason = "closed"
        self._idle_limit = limits.tunnel_idle
        # The idle deadline is the abort timer of closing connections too: TLS waits for the
        # peer's close_notify, and a send buffer for a peer that takes nothing.
        self._idle = clock.callLater(limits.tunnel_idle, self._cut, "idle")
        self._total = clock.callLater(limits.tunnel_total, self._cut, "too old")

    def join(self) -> None:
        """The client's connection is there: let the bytes flow."""
        self.client.stream.registerProducer(self.server, True)
        self.server.stream.registerProducer(self.client, True)
        held, self.server.held = self.server.held, b""
        if held:
            self.server.dataReceived(held)
        self.server.resumeProducing()

    def pass_on(self, source: _End, data: bytes) -> None:
        """*data* arrived at *source*."""
        sink = self._other(source)
        if sink.open:
            self._idle.reset(self._idle_limit)
            sink.stream.write(data)

    def pass_on_end(self, source: _End) -> None:
        """Nothing more arrives at *source*, which may go on to receive."""
        sink = self._other(source)
        # A registered producer would hold up the close.
        sink.stream.unregisterProducer()
        if sink.reading:
            close_write(sink.stream)
        else:
            source.stream.loseConnection()
            sink.stream.loseConnection()

    def pass_on_loss(self, source: _End, was_reading: bool) -> None:
        """The connection of *source* is gone; *was_reading* says whether its FIN came before."""
        sink = self._other(source)
        if not sink.open:
            self._stop_timers()
            self._done(self, self._reason)
            return
        if was_reading:
            sink.stream.unregisterProducer()
        sink.stream.loseConnection()

    def _other(self, end: _End) -> _End:
        return self.server if end is self.client else self.client

    def _cut(self, reason: str) -> None:
        self._reason = reason
        self._stop_timers()
        for end in (self.client, self.server):
            if end.open:
                end.stream.abortConnection()

    def _stop_timers(self) -> None:
        for timer in (self._idle, self._total):
            if timer.active():
                timer.cancel()


class Tunnels:
    """Opens tunnels, and records each of them once.

    Args:
        clock: for deadlines and durations.
        endpoint: how a host is dialled: guarded, with a timeout, failing with
            :exc:`UpstreamError` only.
        limits: of the configuration.
        log_tunnel: takes the record of each tunnel at its end.
    """

    def __init__(
        self,
        clock: IReactorTime,
        endpoint: Callable[[Host], IStreamClientEndpoint],
        limits: LimitsSection,
        log_tunnel: Callable[[TunnelRecord], None],
    ) -> None:
        self._clock = clock
        self._endpoint = endpoint
        self._limits = limits
        self._log_tunnel = log_tunnel

    async def open(self, host: Host, client: str) -> IProtocol:
        """Dial *host* for the client at the address *client*.

        Returns:
            The protocol that relays, to be given the client's connection at once.

        Raises:
            RegistryError: *host* may not be dialled or cannot be reached.
            CancelledError: the dial was cancelled.
        """
        started = self._clock.seconds()

        def record(
            status: int,
            outcome: Outcome,
            reason: str,
            bytes_up: int = 0,
            bytes_down: int = 0,
        ) -> None:
            duration = self._clock.seconds() - started
            self._log_tunnel(
                TunnelRecord(client, host, status, bytes_up, bytes_down, duration, outcome, reason)
            )

        def done(relay: Relay, reason: str) -> None:
            record(
                HTTPStatus.OK,
                Outcome.TUNNEL,
                reason,
                relay.client.received,
                relay.server.received,
            )

        try:
            server = await self._endpoint(host).connect(Factory.forProtocol(_Server))
        except (CancelledError, ConnectingCancelledError):
            record(CLIENT_LEFT, Outcome.ABANDONED, "the client left")
            raise CancelledError() from None
        except UpstreamError as error:
            refusal = _refusal(error)
            record(refusal.status, Outcome.REFUSED, refusal.message)
            raise refusal from error
        return Relay(self._clock, self._limits, cast(_Server, server), done).client


def _refusal(error: UpstreamError) -> RegistryError:
    """What the client is told of *error*, with the error types of RFC 9209 section 2.3."""
    match error, error.__cause__:
        case AddressRefused(), _:
            return DestinationProhibited(error.message)
        case UpstreamTimeout(), _:
            return DialTimeout(error.message)
        case NameUnresolved(), _:
            return DestinationUnavailable(error.message, "dns_error")
        case ParentProxyRefused(), _:
            return DestinationUnavailable(error.message, "proxy_configuration_error")
        case UpstreamTLSFailed(), _:
            # With the parent proxy: a tunnel has no other TLS.
            return DestinationUnavailable(error.message, "tls_certificate_error")
        case _, ConnectionRefusedError():
            return DestinationUnavailable(error.message, "connection_refused")
        case _:
            return DestinationUnavailable(error.message, "destination_unavailable")
