"""Tests for :mod:`regproxy.management.connections`."""

from __future__ import annotations

import gc
import weakref

from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from regproxy.management.connections import Connections


class Losing(Protocol):
    """Keeps why it ended."""

    reasons: tuple[Failure, ...] = ()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reasons += (reason,)


class ConnectionsTests(SynchronousTestCase):
    """Connections"""

    def setUp(self) -> None:
        self.connections = Connections()

    def connect(self, way: str) -> Losing:
        protocol = Losing()
        self.connections.watch(way, protocol)
        protocol.makeConnection(StringTransport())
        return protocol

    def test_by_way(self) -> None:
        first, _, _ = self.connect("proxy"), self.connect("proxy"), self.connect("tls")
        self.assertEqual(self.connections.open, {"proxy": 2, "tls": 1})
        reason = Failure(ConnectionDone())
        first.connectionLost(reason)
        self.assertEqual(self.connections.open, {"proxy": 1, "tls": 1})
        self.assertEqual(first.reasons, (reason,))

    def test_lost_once(self) -> None:
        protocol = self.connect("proxy")
        protocol.connectionLost()
        protocol.connectionLost()
        self.assertEqual(self.connections.open, {"proxy": 0})
        self.assertEqual(protocol.reasons, (connectionDone, connectionDone))

    def test_freed(self) -> None:
        """At once: thousands of connections are no work for the garbage collector."""
        protocol = self.connect("proxy")
        gone = weakref.ref(protocol)
        gc.disable()
        self.addCleanup(gc.enable)
        protocol.connectionLost()
        del protocol
        self.assertIsNone(gone())
