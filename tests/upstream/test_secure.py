"""Tests for :mod:`regproxy.upstream.secure`."""

from __future__ import annotations

from typing import Any

from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase

from regproxy.tls.client import VerifyingPolicy
from regproxy.upstream.secure import TLSEndpoint
from tests.support.memory_network import MemoryNetwork


class Client(Protocol):
    """Says hello and keeps what it hears."""

    received = b""
    lost = False

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"hello")

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: object = None) -> None:
        self.lost = True


class Echo(Protocol):
    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


class TLSEndpointTests(SynchronousTestCase):
    """:class:`TLSEndpoint`."""

    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.network.serve("a.test", "8.8.8.8", 443, Factory.forProtocol(Echo), tls=True)
        creator = VerifyingPolicy(insecure=True).creatorForNetloc(b"a.test", 443)
        endpoint: Any = HostnameEndpoint(self.network, "a.test", 443)
        connecting = TLSEndpoint(endpoint, creator, self.network).connect(
            Factory.forProtocol(Client)
        )
        self.network.flush()
        self.client: Any = self.successResultOf(connecting)
        self.transport = self.network.pumps[0].clientIO

    def test_exchange(self) -> None:
        """The result is the inner protocol, over TLS."""
        self.assertIsInstance(self.client, Client)
        self.assertEqual(self.client.received, b"hello")

    def test_close(self) -> None:
        """A peer that answers ends the connection, and no timer is left."""
        self.client.transport.loseConnection()
        self.network.flush()
        self.assertTrue(self.client.lost)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_peer_does_not_close(self) -> None:
        """One that does not answer is not waited for."""
        self.client.transport.loseConnection()
        self.network.advance(4)
        self.assertFalse(self.transport.disconnecting)
        self.client.transport.loseConnection()
        self.network.advance(1)
        self.assertTrue(self.transport.disconnecting)
        self.network.flush()
        self.assertTrue(self.client.lost)
        self.assertEqual(self.network.getDelayedCalls(), [])
