"""Tests for :mod:`regproxy.listeners.ports`."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.interfaces import IAddress, INegotiated, IProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import Certificate, optionsForClientTLS
from twisted.protocols.wire import Echo
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from regproxy.config.load import loads
from regproxy.listeners.ports import (
    CurrentFactory,
    DNSListenerService,
    ListenerService,
    listeners,
)
from regproxy.policy.resolution import ServerAddress
from tests.support.certificates import make_ca, make_leaf


class ListenerTests(SynchronousTestCase):
    """ListenerService"""

    def bind(self, description: str) -> str:
        """The text with which the program ends."""
        service = ListenerService(reactor, description, Factory.forProtocol(Protocol))
        with self.assertRaises(SystemExit) as caught:
            service.privilegedStartService()
        code = caught.exception.code
        assert isinstance(code, str)
        self.assertIn(description, code)
        self.assertNotIn("\n", code)
        return code

    def test_in_use(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            text = self.bind(f"tcp:{port}:interface=127.0.0.1")
        self.assertIn("cannot listen", text)

    def test_crowd(self) -> None:
        """Those who come at once all have room, though nobody is accepted yet."""
        service = ListenerService(
            reactor, "tcp:0:interface=127.0.0.1", Factory.forProtocol(Protocol)
        )
        service.privilegedStartService()
        self.addCleanup(service.stopService)
        assert service.port is not None
        address = service.port.getHost()
        assert isinstance(address, IPv4Address)
        place = ("127.0.0.1", address.port)
        with ExitStack() as stack:
            for _ in range(500):
                stack.enter_context(socket.create_connection(place, timeout=0.9))

    def test_own_backlog(self) -> None:
        """Who says in the configuration how many may wait means it."""
        path = Path(self.mktemp()).absolute()
        service = ListenerService(reactor, f"unix:{path}:backlog=1", Factory.forProtocol(Protocol))
        service.privilegedStartService()
        self.addCleanup(service.stopService)
        with ExitStack() as stack, self.assertRaises(BlockingIOError):
            for _ in range(10):
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(str(path))

    def test_name_server_in_use(self) -> None:
        """Of either kind of port; the text names the key."""
        told: list[tuple[str, int]] = []
        for kind in socket.SOCK_DGRAM, socket.SOCK_STREAM:
            with socket.socket(socket.AF_INET, kind) as taken:
                taken.bind(("127.0.0.1", 0))
                if kind == socket.SOCK_STREAM:
                    taken.listen()
                server = ServerAddress("127.0.0.1", taken.getsockname()[1])
                service = DNSListenerService(
                    reactor, server, self.fail, lambda *place: told.append(place)
                )
                with self.assertRaises(SystemExit) as caught:
                    service.privilegedStartService()
            self.assertIn(
                f"cannot listen on {server}, which is in dns.listen", caught.exception.code
            )
            self.assertEqual(told, [])
            service.stopService()

    def test_no_endpoint(self) -> None:
        """Descriptions that mean nothing."""
        for description in (
            "3128",
            "carrier-pigeon:1",
            "tcp:http",
            "tcp:1:2:3:4:5",
            "ssl:443:privateKey=/nonexistent/key.pem",
        ):
            self.assertIn("not an endpoint", self.bind(description))

    def test_sections(self) -> None:
        """Every way in that has a section."""
        text = 'data = "/srv"\n[tls]\nlisten = ["tcp:443"]\nhttp_listen = ["tcp:80"]'
        text += '\n[mirror]\nlisten = ["tcp:5000"]'
        config = loads(text, "f", data=None)
        self.assertEqual(
            listeners(config),
            {
                "proxy": ("tcp:3128",),
                "tls": ("tcp:443",),
                "http": ("tcp:80",),
                "mirror": ("tcp:5000",),
                "management": ("tcp:8080:interface=127.0.0.1",),
            },
        )


class EndpointTests(TestCase):
    """Listeners on real sockets."""

    async def echoed(self, description: str, first: bytes, *protocols: bytes) -> bytes | None:
        """Have something echoed in TLS; what was agreed on by ALPN."""
        service = ListenerService(
            reactor,
            description,
            CurrentFactory(lambda: Factory.forProtocol(Echo), lambda protocol: None),
        )
        service.privilegedStartService()
        self.addCleanup(service.stopService)
        assert service.port is not None
        options = optionsForClientTLS(
            "localhost",
            trustRoot=Certificate.loadPEM(self.ca.certificate_pem),
            acceptableProtocols=list(protocols),
        )
        done: Deferred[bytes] = Deferred()

        class Client(Protocol):
            data = b""

            def connectionMade(self) -> None:
                assert self.transport is not None
                self.transport.write(first + b"ping")

            def dataReceived(self, data: bytes) -> None:
                self.data += data
                if self.data == b"ping":
                    assert self.transport is not None
                    self.agreed = INegotiated(self.transport).negotiatedProtocol
                    self.transport.loseConnection()

            def connectionLost(self, reason: Failure = connectionDone) -> None:
                done.callback(self.data)

        host = service.port.getHost()
        assert isinstance(host, IPv4Address)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", host.port)
        client = await connectProtocol(wrapClientTLS(options, endpoint), Client())
        self.assertEqual(await done, b"ping")
        agreed: bytes | None = client.agreed
        return agreed

    async def test_tls(self) -> None:
        """An endpoint with TLS agrees with clients that offer protocols, as curl and Go do."""
        self.ca = make_ca()
        leaf = make_leaf(self.ca, dns=["localhost"])
        key, certificate = Path(self.mktemp()), Path(self.mktemp())
        key.write_bytes(leaf.key_pem)
        certificate.write_bytes(leaf.certificate_pem)
        tls = f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}"
        header = b"PROXY UNKNOWN\r\n"
        for description, first in ((tls, b""), (f"haproxy:{tls}", header)):
            agreed = await self.echoed(description, first, b"h2", b"http/1.1")
            self.assertEqual(agreed, b"http/1.1")
            self.assertIsNone(await self.echoed(description, first))


class CurrentFactoryTests(SynchronousTestCase):
    """CurrentFactory"""

    def test_follows(self) -> None:
        """Each connection is built by the factory of its moment."""
        kinds: list[type[Protocol]] = [type("Old", (Protocol,), {}), type("New", (Protocol,), {})]
        address = IPv4Address("TCP", "192.0.2.1", 4711)
        current = Factory.forProtocol(kinds[0])
        watched: list[IProtocol] = []
        factory = CurrentFactory(lambda: current, watched.append)
        factory.doStart()
        self.assertIsInstance(factory.buildProtocol(address), kinds[0])
        current = Factory.forProtocol(kinds[1])
        self.assertIsInstance(factory.buildProtocol(address), kinds[1])
        self.assertEqual([type(each) for each in watched], kinds)
        factory.doStop()

    def test_refused(self) -> None:
        """A connection that a factory does not take is none."""

        class Refusing(Factory[Protocol]):
            def buildProtocol(self, addr: IAddress | None) -> None:
                return None

        factory = CurrentFactory(Refusing, self.fail)
        self.assertIsNone(factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 4711)))
