"""Tests for regproxy.tls.server."""

from __future__ import annotations

from datetime import UTC, datetime

from twisted.trial.unittest import SynchronousTestCase

from regproxy.tls.authority import CertificateAuthority
from regproxy.tls.leaves import LeafCache
from regproxy.tls.server import ServerTLS
from tests.support.certificates import make_ca
from tests.support.handshakes import MemoryHandshake


class ServerTLSTests(SynchronousTestCase):
    def setUp(self) -> None:
        root = make_ca("Root")
        authority = CertificateAuthority(root.key, (root.certificate,))
        self.ca_pem = root.certificate_pem
        self.leaves = LeafCache(authority, lambda: datetime.now(UTC))

    def shake(self, presented: tuple[str, ...], wanted: str) -> MemoryHandshake:
        """A client that wants one name, and a server with the certificate of others."""
        creator = ServerTLS(self.leaves.context(*presented))
        return MemoryHandshake(creator, self.ca_pem, wanted)

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
