"""Listeners behind a load balancer that speaks the PROXY protocol: who the client is.

In the place of Twisted's ``haproxy:`` endpoint, which connects the protocol behind it before
it knows the client, refuses the header ``PROXY UNKNOWN`` of HAProxy's health checks, needs
the header in one segment, and says nothing when it closes a connection.
"""

from __future__ import annotations

from typing import Any, Final, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IProtocolNegotiationFactory,
    IReactorTime,
)
from zope.interface import directlyProvides, implementer, providedBy

from regproxy.listeners.opening import Opening
from regproxy.listeners.proxy_header import Ends, HeaderInvalid, HeaderTimeout, parse
from regproxy.listeners.tunnel import IStream
from regproxy.oci.errors import RegistryError
from regproxy.tls.contexts import HTTP_1_1

# Seconds. A load balancer sends the header at once, whatever its client does.
DEADLINE: Final = 5.0


@implementer(IProtocolFactory, IProtocolNegotiationFactory)
class ProxiedFactory:
    """A listener's factory whose connections begin with a PROXY header.

    Args:
        clock: for the deadline.
        factory: makes the protocols behind the header. They are built for the real client,
            and their transports tell the real ends.
    """

    def __init__(self, clock: IReactorTime, factory: IProtocolFactory) -> None:
        self.clock = clock
        self.factory = factory

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        """A protocol that reads the header."""
        return ProxiedProtocol(self)

    def acceptableProtocols(self) -> list[bytes]:
        """What an endpoint with TLS agrees to by ALPN."""
        return [HTTP_1_1]

    def doStart(self) -> None:
        """Start what is behind."""
        self.factory.doStart()

    def doStop(self) -> None:
        """Stop what is behind."""
        self.factory.doStop()


class ProxiedProtocol(Opening):
    """Reads the PROXY header of a connection."""

    def __init__(self, factory: ProxiedFactory) -> None:
        super().__init__(factory.clock, DEADLINE)
        self._factory = factory

    def read(self, data: bytes) -> None:
        try:
            parsed = parse(bytes(self.held))
        except HeaderInvalid as error:
            self.refuse(error)
            return
        if parsed is None:
            return
        ends, rest = parsed
        self.held = bytearray(rest)
        stream = self.stream if ends is None else cast(IStream, ProxiedTransport(self.stream, ends))
        self.hand_over(self._factory.factory.buildProtocol(stream.getPeer()), stream)

    def overdue(self) -> None:
        self.refuse(HeaderTimeout())

    def refusal(self, error: RegistryError) -> bytes:
        # The load balancer would pass it on to a client.
        return b""


class ProxiedTransport:
    """A transport that is like the one below it in everything but its ends."""

    def __init__(self, stream: IStream, ends: Ends) -> None:
        self._stream = stream
        self._peer = _address(*ends.source)
        self._host = _address(*ends.destination)
        directlyProvides(self, providedBy(stream))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def getPeer(self) -> IAddress:
        """The client."""
        return self._peer

    def getHost(self) -> IAddress:
        """What the client connected to."""
        return self._host


def _address(host: str, port: int) -> IAddress:
    return (IPv6Address if ":" in host else IPv4Address)("TCP", host, port)
