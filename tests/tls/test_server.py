"""Tests for regproxy.tls.server."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime

from OpenSSL import SSL
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase

from regproxy.tls.authority import CertificateAuthority
from regproxy.tls.leaves import LeafCache
from regproxy.tls.server import Handshakes, ServerTLS
from tests.support.certificates import make_ca
from tests.support.handshakes import MemoryHandshake, Tune, only


class ServerTLSTests(SynchronousTestCase):
    def setUp(self) -> None:
        root = make_ca("Root")
        authority = CertificateAuthority(root.key, (root.certificate,))
        self.ca_pem = root.certificate_pem
        self.leaves = LeafCache(authority, lambda: datetime.now(UTC))
        self.handshakes = Handshakes()

    def shake(
        self, presented: tuple[str, ...], wanted: str, tune: Tune | None = None
    ) -> MemoryHandshake:
        """A client that wants one name, and a server with the certificate of others."""
        creator = ServerTLS(self.leaves.context(*presented), self.handshakes)
        return MemoryHandshake(creator, self.ca_pem, wanted, tune=tune)

    def test_names_and_addresses(self) -> None:
        names = "ghcr.io", "192.0.2.7", "2001:db8::7"
        for name in names:
            self.assertIsNone(self.shake((name,), name).error)
            self.assertIsNone(self.shake(names, name).error)

    def test_name_asked_for_does_not_matter(self) -> None:
        shake = self.shake(("ghcr.io",), "quay.io")
        self.assertIn("not valid for 'quay.io'", str(shake.error))

    def test_bytes_arrive(self) -> None:
        shake = self.shake(("ghcr.io",), "ghcr.io")
        shake.exchange(b"hello")
        self.assertEqual(shake.server.received, b"hello")

    def test_counted(self) -> None:
        """Once each, by how they ended, with either version."""
        name = ("ghcr.io",)
        for version in ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3:
            self.shake(name, "ghcr.io", only(version)).exchange(b"hello")
            self.shake(name, "quay.io", only(version))
        self.assertEqual(self.handshakes, Handshakes(2, 2, 0))
        self.ca_pem = make_ca("Another").certificate_pem
        self.shake(name, "ghcr.io")
        self.assertEqual(self.handshakes, Handshakes(2, 3, 0))

    def test_no_tls(self) -> None:
        shake = self.shake(("ghcr.io",), "ghcr.io")
        creator = ServerTLS(self.leaves.context("ghcr.io"), self.handshakes)
        connection = creator.serverConnectionForTLS(shake.tls)
        connection.set_accept_state()
        connection.bio_write(b"GET / HTTP/1.1\r\n\r\n")
        self.assertRaises(SSL.Error, connection.do_handshake)
        self.assertEqual(self.handshakes, Handshakes(1, 0, 1))

    def test_leaves(self) -> None:
        """A client that says nothing has not failed."""
        creator = ServerTLS(self.leaves.context("ghcr.io"), self.handshakes)
        factory = TLSMemoryBIOFactory(creator, False, Factory.forProtocol(Protocol), Clock())
        transport = StringTransportWithDisconnection()
        tls = transport.protocol = factory.buildProtocol(transport.getPeer())
        assert tls is not None
        tls.makeConnection(transport)
        transport.loseConnection()
        self.assertEqual(self.handshakes, Handshakes(0, 0, 0))
