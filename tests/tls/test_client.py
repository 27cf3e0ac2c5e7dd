"""Tests for regproxy.tls.client: real handshakes on loopback sockets.

Every refusal is checked from both ends: the caller of the Agent gets the reason,
and the server never gets a byte of the request.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, wrapClientTLS
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IReactorTCP,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import URI, Agent, ResponseNeverReceived, readBody
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer
from zope.interface.verify import verifyObject

from regproxy.oci.errors import HostInvalid
from regproxy.tls.authority import Leaf
from regproxy.tls.client import VerifyingPolicy
from regproxy.tls.contexts import server_context
from regproxy.tls.errors import CAError, VerificationFailed
from tests.support.certificates import CLIENT_AUTH, Identity, make_ca, make_leaf

HOST = "registry.example.com"
DAY = timedelta(days=1)
NO_ISSUER = "its issuer is unknown or an intermediate certificate is missing"
LOOPBACK = IReactorTCP(reactor)


@implementer(IOpenSSLServerConnectionCreator)
class Presenting:
    """Presents any certificate at all, and keeps its connections."""

    def __init__(self, context: SSL.Context) -> None:
        self.context = context
        self.connections: list[SSL.Connection] = []

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        self.connections.append(SSL.Connection(self.context))
        return self.connections[-1]


class Greeter(Protocol):
    """Answers whatever comes, and keeps it."""

    def __init__(self, received: list[bytes]) -> None:
        self.received = received

    def dataReceived(self, data: bytes) -> None:
        self.received.append(data)
        assert self.transport is not None
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        self.transport.loseConnection()


@implementer(IAgentEndpointFactory)
@frozen
class Loopback:
    """Every host is at 127.0.0.1."""

    policy: VerifyingPolicy

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        return wrapClientTLS(
            self.policy.creatorForNetloc(uri.host, uri.port),
            TCP4ClientEndpoint(LOOPBACK, "127.0.0.1", uri.port, timeout=10),
        )


def leaf_context(identity: Identity, chain: Sequence[Identity] = ()) -> SSL.Context:
    assert isinstance(identity.key, ec.EllipticCurvePrivateKey)
    certificates = tuple(link.certificate for link in chain)
    return server_context(Leaf(identity.certificate, identity.key, certificates))


class PolicyTestCase(TestCase):
    timeout = 20

    def setUp(self) -> None:
        self.root = make_ca("Root")
        self.ca_file = Path(self.mktemp())
        self.ca_file.write_bytes(self.root.certificate_pem)
        self.received: list[bytes] = []

    async def get(
        self,
        context: SSL.Context,
        host: str = HOST,
        policy: VerifyingPolicy | None = None,
    ) -> SSL.Connection:
        """Ask a server with *context*; returns its connection once it answered."""
        presenting = Presenting(context)
        port = await TCP4ServerEndpoint(LOOPBACK, 0, interface="127.0.0.1").listen(
            TLSMemoryBIOFactory(
                presenting, False, Factory.forProtocol(lambda: Greeter(self.received))
            )
        )
        try:
            agent = Agent.usingEndpointFactory(
                reactor, Loopback(policy or VerifyingPolicy(self.ca_file))
            )
            url = f"https://{host}:{port.getHost().port}/v2/"
            response = await agent.request(b"GET", url.encode())
            self.assertEqual(await readBody(response), b"ok")
        finally:
            await port.stopListening()
        [connection] = presenting.connections
        return connection

    async def refused(
        self,
        identity: Identity,
        why: str,
        host: str = HOST,
        policy: VerifyingPolicy | None = None,
        chain: Sequence[Identity] = (),
    ) -> None:
        """Check that the server is refused for that reason, and got nothing."""
        with self.assertRaises(ResponseNeverReceived) as caught:
            await self.get(leaf_context(identity, chain), host, policy)
        [failure] = caught.exception.reasons
        self.assertIsInstance(failure.value, VerificationFailed)
        self.assertEqual(
            str(failure.value), f"the server's certificate is not valid for {host}: {why}"
        )
        self.assertEqual(self.received, [])


class AcceptedTests(PolicyTestCase):
    async def test_exact_name(self) -> None:
        connection = await self.get(leaf_context(make_leaf(self.root, [HOST])))
        self.assertEqual(connection.get_servername(), HOST.encode())
        self.assertEqual(connection.get_alpn_proto_negotiated(), b"http/1.1")
        self.assertEqual(connection.get_protocol_version_name(), "TLSv1.3")

    async def test_name_in_any_case(self) -> None:
        await self.get(leaf_context(make_leaf(self.root, [HOST.upper()])), HOST.title())

    async def test_fully_qualified_name(self) -> None:
        connection = await self.get(leaf_context(make_leaf(self.root, [HOST])), f"{HOST}.")
        self.assertEqual(connection.get_servername(), HOST.encode())

    async def test_wildcard(self) -> None:
        await self.get(leaf_context(make_leaf(self.root, ["*.example.com"])))

    async def test_address(self) -> None:
        context = leaf_context(make_leaf(self.root, ips=["127.0.0.1"]))
        self.assertIsNone((await self.get(context, "127.0.0.1")).get_servername())

    async def test_ipv6_address(self) -> None:
        context = leaf_context(make_leaf(self.root, ips=["2001:db8::1"]))
        self.assertIsNone((await self.get(context, "[2001:db8::1]")).get_servername())

    async def test_address_also_as_a_name(self) -> None:
        leaf = make_leaf(self.root, ["127.0.0.1"], ["127.0.0.1"])
        await self.get(leaf_context(leaf), "127.0.0.1")

    async def test_intermediate_sent(self) -> None:
        middle = make_ca("Middle", issuer=self.root)
        await self.get(leaf_context(make_leaf(middle, [HOST]), [middle]))

    async def test_intermediate_trusted(self) -> None:
        middle = make_ca("Middle", issuer=self.root)
        self.ca_file.write_bytes(middle.certificate_pem)
        await self.get(leaf_context(make_leaf(middle, [HOST])))

    async def test_self_signed_and_trusted(self) -> None:
        leaf = make_leaf(None, [HOST])
        self.ca_file.write_bytes(leaf.certificate_pem)
        await self.get(leaf_context(leaf))

    async def test_platform_trust(self) -> None:
        with patch.dict(os.environ, {"SSL_CERT_FILE": str(self.ca_file)}):
            policy = VerifyingPolicy()
        await self.get(leaf_context(make_leaf(self.root, [HOST])), policy=policy)

    async def test_ca_file_adds_to_platform_trust(self) -> None:
        other_file = Path(self.mktemp())
        other_file.write_bytes(make_ca("Other").certificate_pem)
        with patch.dict(os.environ, {"SSL_CERT_FILE": str(self.ca_file)}):
            policy = VerifyingPolicy(other_file)
        await self.get(leaf_context(make_leaf(self.root, [HOST])), policy=policy)

    async def test_insecure(self) -> None:
        for leaf in (make_leaf(None, cn="junk"), make_leaf(self.root, ["other.test"])):
            connection = await self.get(leaf_context(leaf), policy=VerifyingPolicy(insecure=True))
            self.assertEqual(connection.get_servername(), HOST.encode())

    async def test_client_certificate(self) -> None:
        """A server that wants to know who we are learns it, and one that does not, does not."""
        client = make_leaf(self.root, cn="the proxy", usages=[CLIENT_AUTH])
        files = Path(self.mktemp()), Path(self.mktemp())
        # With an intermediate behind it.
        files[0].write_bytes(client.certificate_pem + self.root.certificate_pem)
        files[1].write_bytes(client.key_pem)
        policy = VerifyingPolicy(self.ca_file, identity=files)
        context = leaf_context(make_leaf(self.root, [HOST]))
        connection = await self.get(context, policy=policy)
        self.assertIsNone(connection.get_peer_certificate())
        context = leaf_context(make_leaf(self.root, [HOST]))
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
        store = context.get_cert_store()
        assert store is not None
        store.add_cert(X509.from_cryptography(self.root.certificate))
        connection = await self.get(context, policy=policy)
        certificate = connection.get_peer_certificate(as_cryptography=True)
        self.assertEqual(certificate, client.certificate)


class RefusedTests(PolicyTestCase):
    async def test_common_name_only(self) -> None:
        leaf = make_leaf(self.root, cn=HOST)
        await self.refused(leaf, "it has no subject alternative name")

    async def test_other_host(self) -> None:
        leaf = make_leaf(self.root, ["other.example.com", "other.test"], cn=HOST)
        await self.refused(leaf, "it is for other.example.com, other.test")

    async def test_address_as_a_name(self) -> None:
        leaf = make_leaf(self.root, ["127.0.0.1"])
        await self.refused(leaf, "it is for 127.0.0.1", "127.0.0.1")

    async def test_address_as_a_name_for_a_name(self) -> None:
        await self.refused(make_leaf(self.root, ["1.2.3.4"]), "it is for 1.2.3.4")

    async def test_other_address(self) -> None:
        leaf = make_leaf(self.root, [HOST], ["127.0.0.2"])
        await self.refused(leaf, f"it is for {HOST}, 127.0.0.2", "127.0.0.1")

    async def test_wildcards_that_are_none(self) -> None:
        for pattern in ("*", "*.*", "*.com", "*.*.com", "r*.example.com", "registry.*.com"):
            await self.refused(make_leaf(self.root, [pattern]), f"it is for {pattern}")

    async def test_wildcard_for_two_labels(self) -> None:
        leaf = make_leaf(self.root, ["*.example.com"])
        await self.refused(leaf, "it is for *.example.com", f"eu.{HOST}")

    async def test_wildcard_for_an_address(self) -> None:
        await self.refused(make_leaf(self.root, ["*.0.0.1"]), "it is for *.0.0.1", "127.0.0.1")

    async def test_undecodable_names(self) -> None:
        not_ascii = b"\x30\x03\x82\x01\xff"
        junk = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, not_ascii)
        leaf = make_leaf(self.root, extensions=[junk])
        await self.refused(leaf, "it cannot be decoded (ValueError)")

    async def test_unforeseen_exception(self) -> None:
        with patch(
            "regproxy.tls.identity.CertifiedNames.cover", side_effect=RecursionError("surprise")
        ):
            leaf = make_leaf(self.root, [HOST])
            await self.refused(leaf, "it cannot be decoded (RecursionError)")

    async def test_expired(self) -> None:
        now = datetime.now(UTC)
        leaf = make_leaf(self.root, [HOST], not_before=now - 2 * DAY, not_after=now - DAY)
        await self.refused(leaf, "it has expired")

    async def test_not_yet_valid(self) -> None:
        now = datetime.now(UTC)
        leaf = make_leaf(self.root, [HOST], not_before=now + DAY, not_after=now + 2 * DAY)
        await self.refused(leaf, "it is not valid yet")

    async def test_self_signed(self) -> None:
        leaf = make_leaf(None, [HOST], cn=HOST)
        await self.refused(leaf, "it is self-signed and not trusted")

    async def test_untrusted_root(self) -> None:
        leaf = make_leaf(self.root, [HOST])
        await self.refused(leaf, NO_ISSUER, policy=VerifyingPolicy())

    async def test_untrusted_root_sent(self) -> None:
        leaf = make_leaf(self.root, [HOST])
        policy = VerifyingPolicy()
        await self.refused(leaf, "its root is not trusted", policy=policy, chain=[self.root])

    async def test_impostor_of_the_root(self) -> None:
        leaf = make_leaf(make_ca("Root"), [HOST])
        await self.refused(leaf, NO_ISSUER)

    async def test_missing_intermediate(self) -> None:
        leaf = make_leaf(make_ca("Middle", issuer=self.root), [HOST])
        await self.refused(leaf, NO_ISSUER)

    async def test_signed_by_a_leaf(self) -> None:
        middle = make_ca("Not a CA", issuer=self.root, is_ca=False)
        leaf = make_leaf(middle, [HOST])
        await self.refused(leaf, "its issuer is not a certificate authority", chain=[middle])

    async def test_for_clients(self) -> None:
        leaf = make_leaf(self.root, [HOST], usages=[CLIENT_AUTH])
        await self.refused(leaf, "it is not one for servers")

    async def test_old_tls(self) -> None:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_VERSION)
        context.set_max_proto_version(SSL.TLS1_1_VERSION)
        leaf = make_leaf(self.root, [HOST])
        context.use_certificate(leaf.certificate)
        context.use_privatekey(leaf.key)
        context.set_cipher_list(b"ALL:@SECLEVEL=0")
        with self.assertRaises(ResponseNeverReceived) as caught:
            await self.get(context)
        [failure] = caught.exception.reasons
        self.assertIn("protocol version", str(failure.value))
        self.assertEqual(self.received, [])

    async def test_no_tls_at_all(self) -> None:
        port = await TCP4ServerEndpoint(LOOPBACK, 0, interface="127.0.0.1").listen(
            Factory.forProtocol(lambda: Greeter(self.received))
        )
        try:
            policy = VerifyingPolicy(self.ca_file)
            agent = Agent.usingEndpointFactory(reactor, Loopback(policy))
            url = f"https://{HOST}:{port.getHost().port}/v2/"
            with self.assertRaises(ResponseNeverReceived) as caught:
                await agent.request(b"GET", url.encode())
        finally:
            await port.stopListening()
        [failure] = caught.exception.reasons
        self.assertIsInstance(failure.value, SSL.Error)
        self.assertNotIn(b"/v2/", b"".join(self.received))


class PolicyTests(SynchronousTestCase):
    def test_interfaces(self) -> None:
        policy = VerifyingPolicy()
        verifyObject(IPolicyForHTTPS, policy)
        verifyObject(IOpenSSLClientConnectionCreator, policy.creatorForNetloc(b"a.example", 443))

    def test_ca_file_missing(self) -> None:
        with self.assertRaisesRegex(CAError, "no-such-file: No such file"):
            VerifyingPolicy(Path("no-such-file"))

    def test_ca_file_without_certificates(self) -> None:
        file = Path(self.mktemp())
        for content in (b"", b"junk", make_ca().key_pem):
            file.write_bytes(content)
            with self.assertRaisesRegex(CAError, f"{file} does not hold certificates"):
                VerifyingPolicy(file)

    def test_bad_identity(self) -> None:
        one, other = make_leaf(None, cn="a"), make_leaf(None, cn="b")
        cert, key = Path(self.mktemp()), Path(self.mktemp())
        cert.write_bytes(one.certificate_pem)
        for content in other.key_pem, one.encrypted_key_pem(b"x"), b"junk":
            key.write_bytes(content)
            with self.assertRaisesRegex(CAError, "not a certificate and its key"):
                VerifyingPolicy(identity=(cert, key))
        with self.assertRaisesRegex(CAError, "not a certificate and its key"):
            VerifyingPolicy(identity=(Path("no-such-file"), key))

    def test_no_host(self) -> None:
        policy = VerifyingPolicy()
        for host in (b"", b"*.example.com", b"a..b", b"a b", "bücher.example".encode(), b"a\0b"):
            self.assertRaises(HostInvalid, policy.creatorForNetloc, host, 443)
