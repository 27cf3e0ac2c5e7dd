"""Tests for :mod:`regproxy.listeners.proxied`."""

from __future__ import annotations

from typing import cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IConsumer, ISSLTransport, ITCPTransport
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import alsoProvides

from regproxy.listeners.proxied import DEADLINE, ProxiedFactory, ProxiedTransport
from regproxy.listeners.proxy_header import Ends
from regproxy.listeners.tunnel import IStream
from tests.support.keepers import Keeper, Keepers
from tests.support.streams import MemoryStream

BALANCER = IPv4Address("TCP", "192.168.1.1", 54321)
CLIENT = IPv4Address("TCP", "192.0.2.1", 1024)
HEADER = b"PROXY TCP4 192.0.2.1 198.51.100.2 1024 443\r\n"


class ProxiedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.keepers = Keepers()
        self.factory = ProxiedFactory(self.clock, self.keepers)

    def client(self, *pieces: bytes) -> MemoryStream:
        """A load balancer that sends *pieces*."""
        protocol = self.factory.buildProtocol(BALANCER)
        assert protocol is not None
        stream = MemoryStream(protocol)
        self.assertEqual(stream.getPeer(), BALANCER)
        for piece in pieces:
            stream.send(piece)
        return stream

    def assertServed(self, address: object, data: bytes) -> Keeper:
        """One protocol was built, for this client, and has this much of its bytes."""
        self.assertEqual(self.keepers.addresses, [address])
        (keeper,) = self.keepers.built
        assert keeper.transport is not None
        self.assertEqual(keeper.transport.getPeer(), address)
        self.assertEqual(keeper.data, data)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return keeper

    def test_client(self) -> None:
        """Nothing is built before it is known for whom."""
        stream = self.client(HEADER[:20])
        self.assertEqual(self.keepers.built, [])
        stream.send(HEADER[20:] + b"hel")
        stream.send(b"lo")
        keeper = self.assertServed(CLIENT, b"hello")
        assert keeper.transport is not None
        self.assertEqual(keeper.transport.getHost(), IPv4Address("TCP", "198.51.100.2", 443))

    def test_byte_by_byte(self) -> None:
        self.client(*(bytes([byte]) for byte in HEADER + b"hello"))
        self.assertServed(CLIENT, b"hello")

    def test_ipv6(self) -> None:
        self.client(b"PROXY TCP6 2001:db8::1 ::1 1024 443\r\n")
        self.assertServed(IPv6Address("TCP", "2001:db8::1", 1024), b"")

    def test_load_balancer_itself(self) -> None:
        """Its health checks come from where they come from."""
        self.client(b"PROXY UNKNOWN\r\nhello")
        self.assertServed(BALANCER, b"hello")

    def test_answer_and_end(self) -> None:
        stream = self.client(HEADER)
        keeper = self.assertServed(CLIENT, b"")
        assert keeper.transport is not None
        keeper.transport.write(b"answer")
        self.assertEqual(stream.take(), b"answer")
        keeper.transport.loseConnection()
        stream.take()
        self.assertIsNotNone(keeper.lost)

    def test_no_header(self) -> None:
        """Nobody is served, nobody is answered."""
        for data in b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"PROXY x\r\n":
            stream = self.client(data)
            self.assertEqual(stream.take(), b"")
            self.assertTrue(stream.write_closed)
            stream.finish()
        self.assertEqual(self.keepers.built, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_deadline(self) -> None:
        """A client that drips does not extend it."""
        stream = self.client()
        for byte in HEADER[:4]:
            stream.send(bytes([byte]))
            self.clock.advance(DEADLINE / 5)
        self.assertFalse(stream.write_closed)
        self.clock.advance(DEADLINE / 5)
        stream.take()
        self.assertTrue(stream.write_closed)
        stream.send(HEADER)
        self.assertEqual(self.keepers.built, [])

    def test_refused_by_what_is_behind(self) -> None:
        self.keepers.refusing = True
        self.assertTrue(self.client(HEADER).aborted)

    def test_started_and_stopped(self) -> None:
        self.factory.doStart()
        self.assertEqual(self.keepers.numPorts, 1)
        self.factory.doStop()
        self.assertEqual(self.keepers.numPorts, 0)


class TransportTests(SynchronousTestCase):
    """Everything but the ends is the transport's below."""

    def setUp(self) -> None:
        self.below = MemoryStream(Keeper())
        ends = Ends(("2001:db8::1", 1024), ("192.0.2.2", 443))
        self.transport = ProxiedTransport(cast(IStream, self.below), ends)

    def test_interfaces(self) -> None:
        self.assertTrue(ITCPTransport.providedBy(self.transport))
        self.assertTrue(IConsumer.providedBy(self.transport))
        self.assertFalse(ISSLTransport.providedBy(self.transport))

    def test_tls_below(self) -> None:
        """The header may come within TLS."""
        alsoProvides(self.below, ISSLTransport)
        ends = Ends(("192.0.2.1", 1024), ("192.0.2.2", 443))
        transport = ProxiedTransport(cast(IStream, self.below), ends)
        self.assertTrue(ISSLTransport.providedBy(transport))

    def test_methods(self) -> None:
        self.transport.write(b"x")
        self.transport.pauseProducing()
        self.assertEqual(self.below.take(), b"x")
        self.assertFalse(self.below.reading)
        self.transport.abortConnection()
        self.assertTrue(self.below.aborted)

    def test_ends(self) -> None:
        self.assertEqual(self.transport.getPeer(), IPv6Address("TCP", "2001:db8::1", 1024))
        self.assertEqual(self.transport.getHost(), IPv4Address("TCP", "192.0.2.2", 443))
