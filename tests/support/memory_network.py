"""A network in memory: names, addresses, servers, and the reactor that reaches them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from OpenSSL import SSL
from OpenSSL.crypto import X509, PKey
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IOpenSSLContextFactory,
    IProtocolFactory,
    IResolutionReceiver,
)
from twisted.internet.testing import MemoryReactorClock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, IOPump, connect
from zope.interface import implementer

from tests.support.certificates import make_leaf


@implementer(IHostResolution)
class _Resolution:
    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        raise NotImplementedError


@implementer(IHostnameResolver)
class _Names:
    def __init__(self, names: Mapping[str, Sequence[str]]) -> None:
        self._names = names

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        for address in self._names.get(hostName, ()):
            family = IPv6Address if ":" in address else IPv4Address
            resolutionReceiver.addressResolved(family("TCP", address, portNumber))
        resolutionReceiver.resolutionComplete()
        return resolution


class MemoryNetwork(MemoryReactorClock):
    """A reactor whose connections end at servers in memory.

    Attributes:
        names: what each name resolves to.
        dialled: the (address, port) of every connection asked for, in order.
        silent: addresses where a connection neither succeeds nor fails.
        pumps: one for each connection; ``clientIO`` is the client's transport.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[str, Sequence[str]] = {}
        self.dialled: list[tuple[str, int]] = []
        self.silent: set[str] = set()
        self.pumps: list[IOPump] = []
        self._servers: dict[tuple[str, int], IProtocolFactory] = {}
        self.installNameResolver(_Names(self.names))

    def serve(
        self, name: str, address: str, port: int, factory: IProtocolFactory, tls: bool = False
    ) -> None:
        """Let *name* resolve to *address*, where *factory* serves *port*."""
        self.names[name] = [address]
        if tls:
            factory = TLSMemoryBIOFactory(_AnyCertificate(), False, factory, self)
        self._servers[address, port] = factory

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> Any:
        connector = super().connectTCP(host, port, factory, timeout, bindAddress)
        self.dialled.append((host, port))
        if host not in self.silent:
            self.callLater(0, self._establish, host, port, factory, connector)
        return connector

    def _establish(self, host: str, port: int, factory: Any, connector: Any) -> None:
        server_factory = self._servers.get((host, port))
        if server_factory is None:
            factory.clientConnectionFailed(connector, Failure(ConnectionRefusedError()))
            return
        here, there = IPv4Address("TCP", "127.0.0.1", 31337), IPv4Address("TCP", host, port)
        server = server_factory.buildProtocol(here)
        client = factory.buildProtocol(there)
        self.pumps.append(
            connect(
                server,
                FakeTransport(server, True, there, here),
                client,
                FakeTransport(client, False, here, there),
                greet=False,
                clock=self,
            )
        )

    def flush(self) -> None:
        """Let everything happen that takes no time."""
        self.advance(0)
        while any([pump.flush() for pump in self.pumps]):
            self.advance(0)

    def pass_time(self, seconds: float) -> None:
        """Let *seconds* go by."""
        self.advance(seconds)
        self.flush()


@implementer(IOpenSSLContextFactory)
class _AnyCertificate:
    """A server's TLS with a certificate that nobody has signed."""

    def getContext(self) -> SSL.Context:
        return _context()


@cache
def _context() -> SSL.Context:
    identity = make_leaf(None, dns=["any.example.test"])
    context = SSL.Context(SSL.TLS_METHOD)
    context.use_certificate(X509.from_cryptography(identity.certificate))
    context.use_privatekey(PKey.from_cryptography_key(identity.key))
    return context
