"""The ``[proxy]`` listener on real sockets: what memory transports cannot show."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from hashlib import sha256
from typing import cast

from twisted.internet import reactor as global_reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    connectProtocol,
    serverFromString,
    wrapClientTLS,
)
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IListeningPort,
    IProtocolFactory,
    IReactorTCP,
    IReactorTime,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import Certificate, PrivateCertificate, optionsForClientTLS
from twisted.internet.task import deferLater
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.protocols.wire import Echo
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from regproxy.config.model import LimitsSection
from regproxy.listeners.connect import ConnectFactory
from regproxy.listeners.head import ESTABLISHED
from regproxy.listeners.tunnel import IStream, Outcome, TunnelRecord, Tunnels
from regproxy.oci.names import Host
from regproxy.policy.addresses import AddressGuard, AllowEntry
from regproxy.policy.interception import Decision, Intercept, Tunnel
from regproxy.upstream.dial import DialReactor, GuardedEndpoint
from tests.support.certificates import make_ca, make_leaf

NAME = "registry.example.com"
MiB = 1 << 20


@implementer(IHalfCloseableProtocol)
class Peer(Protocol):
    """A program at either end: reads, writes, and closes either direction.

    Attributes:
        ended: fires when the other side's FIN came.
        lost: fires when the connection is gone.
    """

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended: Deferred[None] = Deferred()
        self.lost: Deferred[None] = Deferred()
        self.made: Deferred[None] = Deferred()
        self._waiting: tuple[int, Deferred[None]] | None = None

    def connectionMade(self) -> None:
        self.made.callback(None)

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        if self._waiting is not None and len(self.data) >= self._waiting[0]:
            (_, waiting), self._waiting = self._waiting, None
            waiting.callback(None)

    def readConnectionLost(self) -> None:
        self.ended.callback(None)

    def writeConnectionLost(self) -> None:
        """Nobody waits for that."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.ended.called:
            self.ended.callback(None)
        self.lost.callback(None)

    @property
    def stream(self) -> IStream:
        """The connection."""
        return cast(IStream, self.transport)

    async def read(self, size: int) -> bytes:
        """Exactly *size* bytes."""
        if len(self.data) < size:
            waiting: Deferred[None] = Deferred()
            self._waiting = size, waiting
            await waiting
        data = bytes(self.data[:size])
        del self.data[:size]
        return data

    async def read_to_end(self) -> bytes:
        """Everything up to the other side's FIN."""
        await self.ended
        return bytes(self.data)


def quiet(protocol: Callable[[], Protocol]) -> Factory[Protocol]:
    """A factory that does not log its start."""
    factory = Factory.forProtocol(protocol)
    factory.noisy = False
    return factory


class Listener(TestCase):
    """A listener on a loopback socket."""

    timeout = 20

    def setUp(self) -> None:
        assert IReactorTCP.providedBy(global_reactor)
        self.records: list[TunnelRecord] = []
        self.recorded: Deferred[None] = Deferred()
        self.allow: tuple[AllowEntry, ...] = ()
        ca = make_ca()
        leaf = make_leaf(ca, dns=[NAME])
        self.ca_pem = ca.certificate_pem
        self.tls = PrivateCertificate.loadPEM(leaf.certificate_pem + leaf.key_pem).options()
        self.factory = ConnectFactory(
            IReactorTime(global_reactor),
            LimitsSection(),
            decide=self.decide,
            intercepted=lambda host: self.wrapped(quiet(Echo)),
            plain=quiet(Echo),
            tunnels=Tunnels(
                IReactorTime(global_reactor), self.endpoint, LimitsSection(), self.record
            ),
        )

    def decide(self, host: Host) -> Decision:
        """One name is intercepted."""
        return Intercept(host) if host.name == NAME else Tunnel(host)

    def endpoint(self, host: Host) -> GuardedEndpoint:
        """How tunnels are dialled."""
        guard = AddressGuard(self.allow, frozenset({443}))
        return GuardedEndpoint(cast(DialReactor, global_reactor), host.name, host.port, guard, 5.0)

    def record(self, record: TunnelRecord) -> None:
        """Take the record of a tunnel."""
        self.records.append(record)
        self.recorded.callback(None)

    def wrapped(self, factory: IProtocolFactory) -> TLSMemoryBIOFactory:
        """*factory* in TLS, with the certificate of the one name."""
        return TLSMemoryBIOFactory(self.tls, False, factory)

    async def listen(self, factory: IProtocolFactory, prefix: str = "") -> int:
        """Listen at a free port."""
        endpoint = serverFromString(global_reactor, f"{prefix}tcp:0:interface=127.0.0.1")
        port: IListeningPort = await endpoint.listen(factory)
        self.addCleanup(port.stopListening)
        address = port.getHost()
        assert isinstance(address, IPv4Address)
        return address.port

    def to(self, port: int) -> TCP4ClientEndpoint:
        """The endpoint of a local port."""
        return TCP4ClientEndpoint(global_reactor, "127.0.0.1", port)


class EagerTLSTests(Listener):
    """A ClientHello in the same segment as the CONNECT, on every kind of listener."""

    async def talk(self, peer: Peer, first: bytes = b"") -> None:
        """Make a TLS connection through the proxy and have something echoed."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cadata=self.ca_pem.decode())
        tls = context.wrap_bio(incoming, outgoing, server_hostname=NAME)

        async def receive() -> None:
            peer.stream.write(outgoing.read())
            incoming.write(await peer.read(1))
            incoming.write(bytes(peer.data))
            peer.data.clear()

        with self.assertRaises(ssl.SSLWantReadError):
            tls.do_handshake()
        head = f"CONNECT {NAME}:443 HTTP/1.1\r\nHost: {NAME}:443\r\n\r\n".encode()
        peer.stream.write(first + head + outgoing.read())
        self.assertEqual(await peer.read(len(ESTABLISHED)), ESTABLISHED)
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                await receive()
            else:
                break
        tls.write(b"ping")
        while True:
            try:
                echoed = tls.read(10)
            except ssl.SSLWantReadError:
                await receive()
            else:
                break
        self.assertEqual(echoed, b"ping")
        peer.stream.abortConnection()
        await peer.lost

    async def test_tcp(self) -> None:
        """On a plain socket."""
        port = await self.listen(self.factory)
        await self.talk(await connectProtocol(self.to(port), Peer()))

    async def test_proxy_protocol(self) -> None:
        """Behind a load balancer that speaks the PROXY protocol."""
        port = await self.listen(self.factory, "haproxy:")
        peer = await connectProtocol(self.to(port), Peer())
        await self.talk(peer, b"PROXY TCP4 192.0.2.1 192.0.2.2 1024 3128\r\n")

    async def test_tls(self) -> None:
        """On a proxy that is itself reached by TLS."""
        port = await self.listen(self.wrapped(self.factory))
        options = optionsForClientTLS(NAME, trustRoot=Certificate.loadPEM(self.ca_pem))
        await self.talk(await connectProtocol(wrapClientTLS(options, self.to(port)), Peer()))


class TunnelTests(Listener):
    """Tunnels between two sockets."""

    async def tunnel(self) -> tuple[Peer, Peer]:
        """Client and server of a tunnel."""
        server = Peer()
        target = f"127.0.0.1:{await self.listen(quiet(lambda: server))}"
        self.allow = (AllowEntry.parse(target),)
        client = await self.connect(target)
        self.assertEqual(await client.read(len(ESTABLISHED)), ESTABLISHED)
        await server.made
        return client, server

    async def connect(self, target: str) -> Peer:
        """A client that asks for *target*."""
        client = Peer()
        await connectProtocol(self.to(await self.listen(self.factory)), client)
        client.stream.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        return client

    async def close(self, client: Peer, server: Peer, bytes_up: int, bytes_down: int) -> None:
        """After the FINs of both sides the tunnel is over, and recorded."""
        await self.recorded
        (record,) = self.records
        self.assertEqual(
            (record.outcome, record.bytes_up, record.bytes_down),
            (Outcome.TUNNEL, bytes_up, bytes_down),
        )
        for peer in (client, server):
            peer.stream.loseConnection()
            await peer.lost

    async def test_client_finishes_first(self) -> None:
        """The server sees the client's FIN, and its answer still arrives, then its own FIN."""
        client, server = await self.tunnel()
        client.stream.write(b"request")
        client.stream.loseWriteConnection()
        self.assertEqual(await server.read_to_end(), b"request")
        server.stream.write(bytes(MiB))
        server.stream.loseWriteConnection()
        self.assertEqual(len(await client.read_to_end()), MiB)
        await self.close(client, server, len(b"request"), MiB)

    async def test_server_finishes_first(self) -> None:
        """The other way round."""
        client, server = await self.tunnel()
        server.stream.write(b"greeting")
        server.stream.loseWriteConnection()
        self.assertEqual(await client.read_to_end(), b"greeting")
        client.stream.write(bytes(MiB))
        client.stream.loseWriteConnection()
        self.assertEqual(len(await server.read_to_end()), MiB)
        await self.close(client, server, MiB, len(b"greeting"))

    async def test_slow_reader(self) -> None:
        """20 MiB arrive whole at a client that reads in fits and starts."""
        client, server = await self.tunnel()
        content = bytes(range(256)) * (20 * MiB // 256)
        server.stream.write(content)
        server.stream.loseWriteConnection()
        digest = sha256()
        for _ in range(20):
            digest.update(await client.read(MiB))
            client.stream.pauseProducing()
            await deferLater(IReactorTime(global_reactor), 0.01)
            client.stream.resumeProducing()
        self.assertEqual(digest.digest(), sha256(content).digest())
        await client.ended
        client.stream.loseWriteConnection()
        await self.close(client, server, 0, len(content))

    async def test_through_tls(self) -> None:
        """On a proxy reached by TLS, a server's FIN closes the connection once all is sent."""
        server = Peer()
        target = f"127.0.0.1:{await self.listen(quiet(lambda: server))}"
        self.allow = (AllowEntry.parse(target),)
        port = await self.listen(self.wrapped(self.factory))
        options = optionsForClientTLS(NAME, trustRoot=Certificate.loadPEM(self.ca_pem))
        client = Peer()
        await connectProtocol(wrapClientTLS(options, self.to(port)), client)
        client.stream.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        self.assertEqual(await client.read(len(ESTABLISHED)), ESTABLISHED)
        await server.made
        server.stream.write(bytes(4 * MiB))
        server.stream.loseWriteConnection()
        self.assertEqual(len(await client.read_to_end()), 4 * MiB)
        await self.close(client, server, 0, 4 * MiB)

    async def test_guarded(self) -> None:
        """Without an exception in the guard, loopback stays closed."""
        client = await self.connect("127.0.0.1:443")
        answer = await client.read_to_end()
        self.assertTrue(answer.startswith(b"HTTP/1.1 403 Forbidden\r\n"), answer)
        self.assertIn(b"error=destination_ip_prohibited", answer)
        self.assertIn(b"127.0.0.1 is a loopback address", answer)
        client.stream.loseConnection()
        await client.lost
