"""Tests for regproxy.tls.contexts: what a client meets."""

from __future__ import annotations

import ssl
import warnings

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import implementer

from regproxy.tls.authority import Leaf
from regproxy.tls.contexts import RefusableConnection, client_context, server_context
from regproxy.tls.errors import HandshakeRefused
from tests.support.certificates import ec_key, make_ca, make_leaf
from tests.support.handshakes import MemoryHandshake, Tune, only

NAME = "registry.example.com"


@implementer(IOpenSSLServerConnectionCreator)
class Creator:
    def __init__(self, context: SSL.Context) -> None:
        self.context = context

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        return SSL.Connection(self.context)


def tls_1_2_with(ciphers: str) -> Tune:
    def tune(context: ssl.SSLContext) -> None:
        only(ssl.TLSVersion.TLSv1_2)(context)
        context.set_ciphers(ciphers)

    return tune


class ServerContextTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = make_ca("Root")
        self.middle = make_ca("Middle", issuer=self.root)
        key = ec_key()
        leaf = make_leaf(self.middle, [NAME], key=key)
        self.context = server_context(Leaf(leaf.certificate, key, (self.middle.certificate,)))

    def handshake(
        self,
        *,
        alpn: list[str] | None = None,
        tune: Tune | None = None,
        session: ssl.SSLSession | None = None,
        context: ssl.SSLContext | None = None,
    ) -> MemoryHandshake:
        return MemoryHandshake(
            Creator(self.context),
            self.root.certificate_pem,
            NAME,
            alpn=alpn,
            tune=tune,
            session=session,
            context=context,
        )

    def cipher(self, shake: MemoryHandshake) -> str:
        self.assertIsNone(shake.error)
        cipher = shake.client.cipher()
        assert cipher is not None
        return cipher[0]

    def test_chain_is_sent(self) -> None:
        shake = self.handshake()
        self.assertIsNone(shake.error)
        self.assertEqual(shake.client.version(), "TLSv1.3")
        shake.exchange(b"hello")
        self.assertEqual(shake.server.received, b"hello")

    def test_aes_128_is_preferred(self) -> None:
        self.assertEqual(self.cipher(self.handshake()), "TLS_AES_128_GCM_SHA256")
        shake = self.handshake(tune=tls_1_2_with("ECDHE+AES256:ECDHE+AES128"))
        self.assertEqual(self.cipher(shake), "ECDHE-ECDSA-AES128-GCM-SHA256")

    def test_chacha_for_who_puts_it_first(self) -> None:
        shake = self.handshake(tune=tls_1_2_with("ECDHE+CHACHA20:ECDHE+AES128"))
        self.assertEqual(self.cipher(shake), "ECDHE-ECDSA-CHACHA20-POLY1305")

    def test_nothing_older_than_tls_1_2(self) -> None:
        def old(context: ssl.SSLContext) -> None:
            context.set_ciphers("ALL:@SECLEVEL=0")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                only(ssl.TLSVersion.TLSv1_1)(context)

        shake = self.handshake(tune=old)
        assert shake.error is not None
        self.assertIn("PROTOCOL_VERSION", str(shake.error).upper().replace(" ", "_"))

    def test_no_cipher_without_forward_secrecy_or_authentication(self) -> None:
        shake = self.handshake(tune=tls_1_2_with("ECDHE-ECDSA-AES128-SHA256:AES128-GCM-SHA256"))
        self.assertIsNotNone(shake.error)

    def test_alpn(self) -> None:
        shake = self.handshake(alpn=["h2", "http/1.1"])
        self.assertEqual(shake.client.selected_alpn_protocol(), "http/1.1")
        self.assertEqual(shake.tls.negotiatedProtocol, b"http/1.1")

    def test_alpn_without_overlap_goes_on(self) -> None:
        shake = self.handshake(alpn=["h2"])
        self.assertIsNone(shake.error)
        self.assertIsNone(shake.client.selected_alpn_protocol())

    def test_no_alpn(self) -> None:
        self.assertIsNone(self.handshake().error)

    def test_behind_a_site(self) -> None:
        # A site names protocols of its own; Twisted must not touch a used context for it.
        for _ in range(2):
            factory = TLSMemoryBIOFactory(
                Creator(self.context), False, Site(Resource(), reactor=Clock()), Clock()
            )
            self.assertIsNotNone(factory.buildProtocol(None))
        self.assertIsNone(self.handshake(alpn=["http/1.1"]).error)

    def test_sessions_are_resumed(self) -> None:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            first = self.handshake(tune=only(version))
            first.exchange()
            second = self.handshake(session=first.client.session, context=first.context)
            self.assertIsNone(second.error)
            self.assertTrue(second.client.session_reused, version)
            second.exchange(b"again")
            self.assertEqual(second.server.received, b"again")


class ClientContextTests(SynchronousTestCase):
    def test_offers_http_1_1(self) -> None:
        client = SSL.Connection(client_context())
        client.set_connect_state()
        self.assertRaises(SSL.WantReadError, client.do_handshake)
        self.assertIn(b"\x08http/1.1", client.bio_read(1 << 16))


class RefusableConnectionTests(SynchronousTestCase):
    def connection(self) -> RefusableConnection:
        connection = RefusableConnection(client_context())
        connection.set_connect_state()
        return connection

    def test_goes_on(self) -> None:
        self.assertRaises(SSL.WantReadError, self.connection().do_handshake)

    def test_raises_the_reason(self) -> None:
        connection = self.connection()
        connection.refusal = HandshakeRefused("because")
        with self.assertRaisesRegex(HandshakeRefused, "because"):
            connection.do_handshake()
