"""Tests for regproxy.tls.server."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta

from cryptography import x509
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from regproxy.tls.authority import CertificateAuthority
from regproxy.tls.errors import CAError, NameRefused
from regproxy.tls.identity import CertifiedNames
from regproxy.tls.leaves import LeafCache
from regproxy.tls.server import ServerTLS, SNIServerTLS, server_name
from tests.support.certificates import make_ca
from tests.support.handshakes import MemoryHandshake, Tune, only

DAY = timedelta(days=1)
GHCR = CertifiedNames(("ghcr.io",), ())
VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


class ServerTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = datetime.now(UTC)
        self.root = make_ca("Root", not_after=self.now + 400 * DAY)
        authority = CertificateAuthority(self.root.key, (self.root.certificate,))
        self.leaves = LeafCache(authority, lambda: self.now)

    def shake(
        self,
        creator: ServerTLS | SNIServerTLS,
        name: str | None,
        tune: Tune | None = None,
    ) -> MemoryHandshake:
        return MemoryHandshake(creator, self.root.certificate_pem, name, tune=tune)

    def names(self, shake: MemoryHandshake) -> CertifiedNames:
        self.assertIsNone(shake.error)
        certificate = shake.client.getpeercert(binary_form=True)
        assert certificate is not None
        return CertifiedNames.of(x509.load_der_x509_certificate(certificate))


class ServerTLSTests(ServerTestCase):
    """One name, for CONNECT."""

    def test_name_and_address(self) -> None:
        for name in ("ghcr.io", "192.0.2.7", "2001:db8::7"):
            self.assertIsNone(self.shake(ServerTLS(self.leaves, name), name).error)

    def test_name_asked_for_does_not_matter(self) -> None:
        shake = self.shake(ServerTLS(self.leaves, "ghcr.io"), "quay.io")
        self.assertIn("not valid for 'quay.io'", str(shake.error))

    def test_renewed_without_restart(self) -> None:
        creator = ServerTLS(self.leaves, "ghcr.io")
        first = self.shake(creator, "ghcr.io").client.getpeercert(True)
        self.assertEqual(self.shake(creator, "ghcr.io").client.getpeercert(True), first)
        self.now += 40 * DAY

        def lenient(context: ssl.SSLContext) -> None:
            # Valid from 38 days ahead, which the client's clock does not know.
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE

        renewed = self.shake(creator, "ghcr.io", lenient).client.getpeercert(True)
        self.assertNotEqual(renewed, first)

    def test_expired_authority(self) -> None:
        self.now += 500 * DAY
        self.assertRaises(CAError, self.shake, ServerTLS(self.leaves, "ghcr.io"), "ghcr.io")


class SNIServerTLSTests(ServerTestCase):
    """The name that the client asks for."""

    def setUp(self) -> None:
        super().setUp()
        self.asked: list[str] = []

    def creator(self, default: str | None = None) -> SNIServerTLS:
        def allowed(name: str) -> bool:
            self.asked.append(name)
            return name.endswith(".example") or name == "ghcr.io"

        return SNIServerTLS(self.leaves, allowed, default)

    def assertUnrecognized(self, shake: MemoryHandshake) -> NameRefused:
        self.assertIn("UNRECOGNIZED_NAME", str(shake.error).upper().replace(" ", "_"))
        assert shake.server.reason is not None
        refusal = shake.server.reason.value
        assert isinstance(refusal, NameRefused)
        return refusal

    def test_leaf_of_the_name(self) -> None:
        creator = self.creator()
        for version in VERSIONS:
            for name in ("ghcr.io", "a.example", "b.example"):
                shake = self.shake(creator, name, only(version))
                self.assertEqual(self.names(shake), CertifiedNames((name,), ()))
                shake.exchange(b"hello")
                self.assertEqual(shake.server.received, b"hello")

    def test_alpn_and_ciphers_are_those_of_every_server(self) -> None:
        shake = MemoryHandshake(
            self.creator(), self.root.certificate_pem, "ghcr.io", alpn=["h2", "http/1.1"]
        )
        self.assertEqual(shake.client.selected_alpn_protocol(), "http/1.1")
        cipher = shake.client.cipher()
        assert cipher is not None
        self.assertEqual(cipher[0], "TLS_AES_128_GCM_SHA256")

    def test_case_and_trailing_dot(self) -> None:
        def lenient(context: ssl.SSLContext) -> None:
            context.check_hostname = False

        shake = self.shake(self.creator(), "GHCR.io.", lenient)
        self.assertEqual(self.names(shake), GHCR)
        self.assertEqual(self.asked, ["ghcr.io"])

    def test_name_not_allowed(self) -> None:
        for version in VERSIONS:
            shake = self.shake(self.creator(), "evil.test", only(version))
            refusal = self.assertUnrecognized(shake)
            self.assertEqual(str(refusal), "not served here: 'evil.test'")

    def test_no_name(self) -> None:
        for version in VERSIONS:
            refusal = self.assertUnrecognized(self.shake(self.creator(), None, only(version)))
            self.assertEqual(str(refusal), "the client names no server")

    def test_no_name_but_a_default(self) -> None:
        self.assertEqual(self.names(self.shake(self.creator("ghcr.io"), None)), GHCR)

    def test_default_is_for_no_name_only(self) -> None:
        self.assertUnrecognized(self.shake(self.creator("ghcr.io"), "evil.test"))

    def test_what_is_no_host_name_is_not_even_asked_about(self) -> None:
        for name in ("*.example", "a b.example", "x\n.example"):
            self.assertUnrecognized(self.shake(self.creator(), name))
        self.assertEqual(self.asked, [])

    def test_a_broken_rule_refuses(self) -> None:
        def broken(name: str) -> bool:
            raise RuntimeError(name)

        self.assertUnrecognized(self.shake(SNIServerTLS(self.leaves, broken), "ghcr.io"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_expired_authority_refuses(self) -> None:
        self.now += 500 * DAY
        self.assertUnrecognized(self.shake(self.creator(), "ghcr.io"))
        self.assertEqual(len(self.flushLoggedErrors(CAError)), 1)

    def test_sessions_are_resumed(self) -> None:
        creator = self.creator()
        for version in VERSIONS:
            first = self.shake(creator, "ghcr.io", only(version))
            first.exchange()
            second = MemoryHandshake(
                creator,
                self.root.certificate_pem,
                "ghcr.io",
                session=first.client.session,
                context=first.context,
            )
            self.assertIsNone(second.error)
            self.assertTrue(second.client.session_reused)
            self.assertEqual(server_name(second.tls.getHandle()), "ghcr.io")


class ServerNameTests(ServerTestCase):
    def test_of_a_fixed_name_server(self) -> None:
        def lenient(context: ssl.SSLContext) -> None:
            context.check_hostname = False

        for version in VERSIONS:

            def tune(context: ssl.SSLContext, version: ssl.TLSVersion = version) -> None:
                lenient(context)
                only(version)(context)

            shake = self.shake(ServerTLS(self.leaves, "ghcr.io"), "Quay.io.", tune)
            self.assertEqual(server_name(shake.tls.getHandle()), "quay.io")

    def test_none(self) -> None:
        shake = self.shake(ServerTLS(self.leaves, "ghcr.io"), None)
        self.assertIsNone(server_name(shake.tls.getHandle()))

    def test_before_the_hello(self) -> None:
        connection = SSL.Connection(self.leaves.context("ghcr.io"))
        connection.set_accept_state()
        self.assertIsNone(server_name(connection))
