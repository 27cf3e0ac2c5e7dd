"""The listeners on real sockets: what memory transports cannot show."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable
from hashlib import sha256
from typing import TypeVar, cast

from cryptography.hazmat.primitives.serialization import Encoding
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
    IOpenSSLClientConnectionCreator,
    IProtocolFactory,
    IPushProducer,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorTime,
    IStreamClientEndpoint,
    ITLSTransport,
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
from regproxy.listeners.proxied import ProxiedFactory
from regproxy.listeners.sni import HelloFactory
from regproxy.listeners.tunnel import IStream, Outcome, TunnelRecord, Tunnels
from regproxy.oci.names import Host
from regproxy.policy.addresses import AddressGuard, AllowEntry
from regproxy.policy.interception import Decision, Intercept, Tunnel
from regproxy.upstream.dial import Dialler, DialReactor, GuardedEndpoint
from tests.support.certificates import make_ca, make_leaf

NAME = "registry.example.com"
SITE = "www.example.net"
PROXY_HEADER = b"PROXY TCP4 192.0.2.1 192.0.2.2 1024 3128\r\n"
CONNECT = f"CONNECT {NAME}:443 HTTP/1.1\r\nHost: {NAME}:443\r\n\r\n".encode()
MiB = 1 << 20

Result = TypeVar("Result")


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


class Secure:
    """A client's TLS on a connection that is there, its own or one within another TLS."""

    def __init__(self, peer: Peer, ca_pem: bytes, name: str) -> None:
        self._peer = peer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cadata=ca_pem.decode())
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)

    def begin(self) -> bytes:
        """The ClientHello, which is not sent."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
        return self._outgoing.read()

    async def shake_hands(self) -> None:
        """Get it ready."""
        await self._done(self._tls.do_handshake)

    async def echo(self, data: bytes) -> bytes:
        """What comes back for *data*."""
        self._tls.write(data)
        return await self._done(lambda: self._tls.read(len(data)))

    @property
    def certificate(self) -> bytes | None:
        """The server's."""
        return self._tls.getpeercert(binary_form=True)

    async def _done(self, step: Callable[[], Result]) -> Result:
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                self._peer.stream.write(self._outgoing.read())
                self._incoming.write(await self._peer.read(1) + bytes(self._peer.data))
                self._peer.data.clear()
            else:
                self._peer.stream.write(self._outgoing.read())
                return result


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
        self.site_port = 0
        self.ca = make_ca()
        self.leaf = make_leaf(self.ca, dns=[NAME])
        pem = self.leaf.certificate_pem + self.leaf.key_pem
        self.tls = PrivateCertificate.loadPEM(pem).options()
        self.inner: IProtocolFactory = quiet(Echo)
        self.factory = self.make_factory()

    def make_factory(self) -> ConnectFactory:
        """A ``[proxy]`` listener's factory; ``inner`` speaks in the TLS of the one name."""
        return ConnectFactory(
            IReactorTime(global_reactor),
            LimitsSection(),
            decide=self.decide,
            intercepted=lambda host: self.wrapped(self.inner),
            plain=quiet(Echo),
            tunnels=self.tunnels(),
        )

    def make_direct(self) -> HelloFactory:
        """A ``[tls]`` listener's factory that passes on all names but one."""
        return HelloFactory(
            IReactorTime(global_reactor),
            LimitsSection(),
            decide=lambda name: self.decide(Host(name or NAME)),
            intercepted=lambda decision: self.wrapped(self.inner),
            tunnels=self.tunnels(),
            log_refusal=lambda client, name, error: self.fail(error.message),
        )

    def tunnels(self) -> Tunnels:
        """What opens tunnels."""
        clock = IReactorTime(global_reactor)
        return Tunnels(clock, self.endpoint, LimitsSection(), self.record)

    def decide(self, host: Host) -> Decision:
        """One name is intercepted."""
        return Intercept(host) if host.name == NAME else Tunnel(host)

    def endpoint(self, host: Host) -> IStreamClientEndpoint:
        """How tunnels are dialled."""
        if host.name == SITE:
            return self.to(self.site_port)
        guard = AddressGuard(self.allow, frozenset({443}))
        reactor = cast(DialReactor, global_reactor)
        reach = Dialler(reactor, host.port, 5.0)
        clock = cast(IReactorTime, global_reactor)
        resolver = cast(IReactorPluggableNameResolver, global_reactor).nameResolver
        return GuardedEndpoint(clock, resolver, host, reach, guard, 5.0)

    def record(self, record: TunnelRecord) -> None:
        """Take the record of a tunnel."""
        self.records.append(record)
        self.recorded.callback(None)

    def wrapped(self, factory: IProtocolFactory) -> TLSMemoryBIOFactory:
        """*factory* in TLS, with the certificate of the one name."""
        return TLSMemoryBIOFactory(self.tls, False, factory)

    async def listen(self, factory: IProtocolFactory) -> int:
        """Listen at a free port."""
        endpoint = serverFromString(global_reactor, "tcp:0:interface=127.0.0.1")
        port: IListeningPort = await endpoint.listen(factory)
        self.addCleanup(port.stopListening)
        address = port.getHost()
        assert isinstance(address, IPv4Address)
        return address.port

    def secure(self, peer: Peer, name: str = NAME) -> Secure:
        """TLS on a connection, as a client of *name*."""
        return Secure(peer, self.ca.certificate_pem, name)

    def proxied(self, factory: IProtocolFactory) -> ProxiedFactory:
        """*factory* behind a load balancer."""
        return ProxiedFactory(IReactorTime(global_reactor), factory)

    def to(self, port: int) -> TCP4ClientEndpoint:
        """The endpoint of a local port."""
        return TCP4ClientEndpoint(global_reactor, "127.0.0.1", port)

    def to_tls(self, port: int) -> IStreamClientEndpoint:
        """TLS to a local port."""
        return wrapClientTLS(self.trusting(), self.to(port))

    def trusting(self) -> IOpenSSLClientConnectionCreator:
        """A client's TLS, with trust in the one certificate."""
        creator: IOpenSSLClientConnectionCreator = optionsForClientTLS(
            NAME, trustRoot=Certificate.loadPEM(self.ca.certificate_pem)
        )
        return creator


class EagerTLSTests(Listener):
    """A ClientHello in the same segment as the CONNECT, on every kind of listener."""

    async def talk(self, peer: Peer, first: bytes = b"") -> None:
        """Make a TLS connection through the proxy and have something echoed."""
        client = self.secure(peer)
        peer.stream.write(first + CONNECT + client.begin())
        self.assertEqual(await peer.read(len(ESTABLISHED)), ESTABLISHED)
        await client.shake_hands()
        self.assertEqual(await client.echo(b"ping"), b"ping")
        peer.stream.abortConnection()
        await peer.lost

    async def test_tcp(self) -> None:
        """On a plain socket."""
        port = await self.listen(self.factory)
        await self.talk(await connectProtocol(self.to(port), Peer()))

    async def test_proxy_protocol(self) -> None:
        """Behind a load balancer that speaks the PROXY protocol."""
        port = await self.listen(self.proxied(self.factory))
        await self.talk(await connectProtocol(self.to(port), Peer()), PROXY_HEADER)

    async def test_tls(self) -> None:
        """On a proxy that is itself reached by TLS."""
        port = await self.listen(self.wrapped(self.factory))
        await self.talk(await connectProtocol(self.to_tls(port), Peer()))

    async def test_proxy_protocol_in_tls(self) -> None:
        """A load balancer that itself speaks TLS to the proxy."""
        port = await self.listen(self.wrapped(self.proxied(self.factory)))
        await self.talk(await connectProtocol(self.to_tls(port), Peer()), PROXY_HEADER)

    async def test_own_tls(self) -> None:
        """On a proxy that speaks TLS of its own behind a load balancer."""
        self.factory.secure = lambda: self.wrapped(self.make_factory())
        port = await self.listen(self.proxied(self.factory))
        peer = await connectProtocol(self.to(port), Peer())
        peer.stream.write(PROXY_HEADER)
        ITLSTransport(peer.transport).startTLS(self.trusting())
        await self.talk(peer)


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
        client = Peer()
        await connectProtocol(self.to_tls(port), client)
        client.stream.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        self.assertEqual(await client.read(len(ESTABLISHED)), ESTABLISHED)
        await server.made
        server.stream.write(bytes(4 * MiB))
        server.stream.loseWriteConnection()
        self.assertEqual(len(await client.read_to_end()), 4 * MiB)
        await self.close(client, server, 0, 4 * MiB)

    async def test_behind_a_load_balancer(self) -> None:
        """The client's FIN gets through to the server, its address to the log."""
        server = Peer()
        target = f"127.0.0.1:{await self.listen(quiet(lambda: server))}"
        self.allow = (AllowEntry.parse(target),)
        port = await self.listen(self.proxied(self.factory))
        client = await connectProtocol(self.to(port), Peer())
        head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"
        client.stream.write(PROXY_HEADER + head.encode())
        self.assertEqual(await client.read(len(ESTABLISHED)), ESTABLISHED)
        await server.made
        client.stream.write(b"request")
        client.stream.loseWriteConnection()
        self.assertEqual(await server.read_to_end(), b"request")
        server.stream.write(bytes(MiB))
        server.stream.loseWriteConnection()
        self.assertEqual(len(await client.read_to_end()), MiB)
        await self.close(client, server, len(b"request"), MiB)
        self.assertEqual(self.records[0].client, "192.0.2.1")

    async def test_guarded(self) -> None:
        """Without an exception in the guard, loopback stays closed."""
        client = await self.connect("127.0.0.1:443")
        answer = await client.read_to_end()
        self.assertTrue(answer.startswith(b"HTTP/1.1 403 Forbidden\r\n"), answer)
        self.assertIn(b"error=destination_ip_prohibited", answer)
        self.assertIn(b"127.0.0.1 is a loopback address", answer)
        client.stream.loseConnection()
        await client.lost


class DirectTests(Listener):
    """TLS that comes without a CONNECT."""

    async def talk(self, factory: IProtocolFactory, name: str, *first: bytes) -> bytes | None:
        """Have something echoed by *name*; the certificate of whoever did."""
        peer = await connectProtocol(self.to(await self.listen(factory)), Peer())
        peer.stream.setTcpNoDelay(True)
        client = self.secure(peer, name)
        hello = client.begin()
        for piece in (*first, *(hello[start : start + 7] for start in range(0, len(hello), 7))):
            peer.stream.write(piece)
        await client.shake_hands()
        self.assertEqual(await client.echo(b"ping"), b"ping")
        peer.stream.abortConnection()
        await peer.lost
        return client.certificate

    async def test_intercepted(self) -> None:
        """The TLS ends here, however slowly the ClientHello came."""
        certificate = await self.talk(self.make_direct(), NAME)
        self.assertEqual(certificate, self.leaf.certificate.public_bytes(Encoding.DER))

    async def test_passed_on(self) -> None:
        """The TLS ends at the site, whoever stands in between."""
        leaf = make_leaf(self.ca, dns=[SITE])
        options = PrivateCertificate.loadPEM(leaf.certificate_pem + leaf.key_pem).options()
        self.site_port = await self.listen(TLSMemoryBIOFactory(options, False, quiet(Echo)))
        expected = leaf.certificate.public_bytes(Encoding.DER)
        direct = self.make_direct()
        self.assertEqual(await self.talk(direct, SITE), expected)
        await self.recorded
        self.recorded = Deferred()
        self.assertEqual(await self.talk(self.proxied(direct), SITE, PROXY_HEADER), expected)
        await self.recorded
        self.assertEqual([each.client for each in self.records], ["127.0.0.1", "192.0.2.1"])
        self.assertEqual(direct.passed_on, set())


@implementer(IPushProducer)
class Source(Protocol):
    """Sends without end, as long as it is let.

    Attributes:
        sent: bytes so far.
        producing: it is let.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.producing = True

    def connectionMade(self) -> None:
        cast(IStream, self.transport).registerProducer(self, True)
        self._produce()

    def _produce(self) -> None:
        if self.producing:
            cast(IStream, self.transport).write(bytes(64 * 1024))
            self.sent += 64 * 1024
            IReactorTime(global_reactor).callLater(0, self._produce)

    def pauseProducing(self) -> None:
        self.producing = False

    def resumeProducing(self) -> None:
        self.producing = True
        self._produce()

    def stopProducing(self) -> None:
        self.producing = False


class BackPressureTests(Listener):
    """A client that does not read, in TLS within the proxy's own TLS."""

    async def stalled(self, factory: IProtocolFactory, first: bytes = b"") -> None:
        """What is sent to it stays bounded, and goes on when it reads."""
        source = Source()
        self.inner = quiet(lambda: source)
        peer = await connectProtocol(self.to(await self.listen(factory)), Peer())
        peer.stream.write(first)
        ITLSTransport(peer.transport).startTLS(self.trusting())
        client = self.secure(peer)
        peer.stream.write(CONNECT + client.begin())
        self.assertEqual(await peer.read(len(ESTABLISHED)), ESTABLISHED)
        await client.shake_hands()
        peer.stream.pauseProducing()
        for _ in range(50):
            await deferLater(IReactorTime(global_reactor), 0.01)
        # Most of it is in the buffers of the kernel.
        self.assertFalse(source.producing)
        self.assertLess(source.sent, 16 * MiB)
        sent = source.sent
        peer.stream.resumeProducing()
        while source.sent <= sent + MiB:
            await deferLater(IReactorTime(global_reactor), 0.01)
        peer.stream.abortConnection()
        await peer.lost

    async def test_tls_in_tls(self) -> None:
        self.factory.secure = lambda: self.wrapped(self.make_factory())
        await self.stalled(self.factory)

    async def test_behind_a_load_balancer(self) -> None:
        self.factory.secure = lambda: self.wrapped(self.make_factory())
        await self.stalled(self.proxied(self.factory), PROXY_HEADER)
