"""Tests for :mod:`regproxy.listeners.sni`."""

from __future__ import annotations

import gc
import ssl
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.model import LimitsSection
from regproxy.listeners.sni import HelloFactory, HelloTimeout, ProxyLoop
from regproxy.listeners.tunnel import Outcome, TunnelRecord, Tunnels
from regproxy.oci.errors import BadRequest, Misdirected, OwnFailure, RegistryError
from regproxy.oci.names import Host
from regproxy.policy.interception import Decision, Intercept, Refuse, Tunnel
from regproxy.tls.hello import Alert
from regproxy.upstream.errors import AddressRefused, UpstreamTimeout
from tests.support.hellos import cut, message, real_hello, records, server_names
from tests.support.keepers import Keepers
from tests.support.streams import MemoryEndpoint, MemoryStream

LIMITS = LimitsSection(request_head=30.0)
REGISTRY = Intercept(Host("registry.example.com"), any_port=True)
DEFAULT = Intercept(Host("default.example.com"))


def hello(name: str | None, random: int = 0) -> bytes:
    """A ClientHello; those with the same number are the same."""
    extensions = [] if name is None else [server_names(name.encode())]
    return records(message(*extensions, random=random.to_bytes(32)))


def decide(name: str | None) -> Decision | Refuse:
    """One name is intercepted, those of one domain are passed on, others are refused."""
    match name:
        case "registry.example.com":
            return REGISTRY
        case None:
            return DEFAULT
    if name.endswith(".example.net"):
        return Tunnel(Host(name))
    return Refuse(f"{name} is not served here")


class ListenerTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.endpoint = MemoryEndpoint()
        self.dialled: list[Host] = []
        self.records: list[TunnelRecord] = []
        self.refusals: list[tuple[str, str | None, RegistryError]] = []
        self.entered: list[Intercept] = []
        self.site = Keepers()
        self.factory = HelloFactory(
            self.clock,
            LIMITS,
            decide=decide,
            intercepted=self.intercepted,
            tunnels=Tunnels(self.clock, self.dial, LIMITS, self.records.append),
            log_refusal=lambda *refusal: self.refusals.append(refusal),
        )

    def dial(self, host: Host) -> MemoryEndpoint:
        """What tunnels are dialled with."""
        self.dialled.append(host)
        self.endpoint = MemoryEndpoint()
        return self.endpoint

    def intercepted(self, decision: Intercept) -> Keepers:
        """What the listener is given for intercepted names."""
        self.entered.append(decision)
        return self.site

    def client(self, *pieces: bytes) -> MemoryStream:
        """A client that connects and sends *pieces*."""
        stream = MemoryStream(self.factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1)))
        for piece in pieces:
            stream.send(piece)
        return stream

    def assertRefused(
        self, client: MemoryStream, alert: Alert | None, name: str | None, kind: type[RegistryError]
    ) -> RegistryError:
        """The client got *alert* and the end of the connection; the reason is logged."""
        self.assertEqual(client.take(), b"" if alert is None else alert.record)
        self.assertTrue(client.write_closed)
        client.finish()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        (refusal,) = self.refusals
        self.assertEqual(refusal[:2], ("192.168.1.1", name))
        self.assertIsInstance(refusal[2], kind)
        self.assertEqual(self.factory.passed_on, set())
        return refusal[2]


class InterceptTests(ListenerTestCase):
    """Names whose TLS is ended here."""

    def test_handed_over_whole(self) -> None:
        """TLS sees the connection from its first byte, with what came behind the hello."""
        wire = real_hello("registry.example.com")
        client = self.client(wire[:7], wire[7:] + b"early data")
        self.assertEqual(self.entered, [REGISTRY])
        self.assertEqual(self.site.data, [wire + b"early data"])
        self.assertIs(self.site.built[0].transport, client)
        self.assertEqual(client.take(), b"")
        client.send(b"more")
        self.assertEqual(self.site.data, [wire + b"early datamore"])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.refusals, [])

    @given(st.lists(st.integers(1, 60), max_size=5), st.lists(st.integers(0, 100), max_size=9))
    def test_fragmented(self, sizes: list[int], edges: list[int]) -> None:
        """Over many records and many segments; every byte arrives, in order."""
        self.setUp()
        wire = records(message(server_names(b"registry.example.com")), sizes)
        self.client(*cut(wire + b"rest", edges))
        self.assertEqual(self.entered, [REGISTRY])
        self.assertEqual(self.site.data, [wire + b"rest"])

    def test_default(self) -> None:
        """Clients that name no server."""
        self.client(hello(None))
        self.assertEqual(self.entered, [DEFAULT])

    def test_no_certificate(self) -> None:
        def intercepted(decision: Intercept) -> Keepers:
            raise OwnFailure("the CA certificate expired")

        self.factory.intercepted = intercepted
        client = self.client(hello("registry.example.com"))
        self.assertEqual(client.take(), Alert.INTERNAL_ERROR.record)
        self.assertTrue(client.write_closed)


class RefusalTests(ListenerTestCase):
    """Connections that go nowhere."""

    def test_not_served(self) -> None:
        error = self.assertRefused(
            self.client(hello("quay.io")), Alert.UNRECOGNIZED_NAME, "quay.io", Misdirected
        )
        self.assertIn("quay.io", error.message)
        self.assertEqual(self.dialled, [])

    def test_alert_is_one_for_clients(self) -> None:
        """A real client says what it is."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="quay.io")
        self.assertRaises(ssl.SSLWantReadError, tls.do_handshake)
        incoming.write(self.client(outgoing.read()).take())
        error = self.assertRaises(ssl.SSLError, tls.do_handshake)
        self.assertIn("UNRECOGNIZED_NAME", str(error).upper().replace(" ", "_"))

    def test_address(self) -> None:
        """Clients must not name one (RFC 6066 section 3)."""
        for name in "192.0.2.7", "2001:db8::7":
            self.setUp()
            self.assertRefused(self.client(hello(name)), Alert.UNRECOGNIZED_NAME, None, BadRequest)

    def test_malformed(self) -> None:
        wire = records(b"\x01\0\0\x02\x03\x03")
        self.assertRefused(self.client(wire), Alert.DECODE_ERROR, None, BadRequest)

    def test_no_tls(self) -> None:
        """Nothing that we could say would be understood."""
        for data in b"GET / HTTP/1.1\r\n\r\n", b"\x80\x2e\x01\x03\x01\x00\x15":
            self.setUp()
            self.assertRefused(self.client(data), None, None, BadRequest)

    def test_deadline(self) -> None:
        """A client that drips does not extend it."""
        client = self.client()
        for byte in hello("registry.example.com")[:30]:
            self.assertEqual(client.take(), b"")
            client.send(bytes([byte]))
            self.clock.advance(1)
        self.assertRefused(client, None, None, HelloTimeout)

    def test_client_leaves(self) -> None:
        client = self.client(hello("registry.example.com")[:20])
        client.finish()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.refusals, [])


class PassThroughTests(ListenerTestCase):
    """Names that are somebody else's to serve."""

    def test_relayed_untouched(self) -> None:
        """Port 443 of that name gets every byte that the client sent."""
        wire = hello("www.example.net")
        client = self.client(wire[:10], wire[10:], b"more")
        self.assertEqual(self.dialled, [Host("www.example.net", 443)])
        server = self.endpoint.accept()
        self.assertEqual(server.take(), wire + b"more")
        server.send(b"answer")
        self.assertEqual(client.take(), b"answer")
        client.finish()
        server.take()
        self.assertTrue(server.write_closed)
        server.finish()
        client.take(), server.take()
        (record,) = self.records
        self.assertEqual((record.outcome, record.client), (Outcome.TUNNEL, "192.168.1.1"))
        self.assertEqual((record.bytes_up, record.bytes_down), (len(wire) + 4, 6))
        self.assertEqual(self.factory.passed_on, set())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_guarded(self) -> None:
        """The reason of the guard is recorded as with CONNECT."""
        client = self.client(hello("inside.example.net"))
        self.endpoint.fail(AddressRefused("10.0.0.1 is a private address"))
        self.assertEqual(client.take(), Alert.ACCESS_DENIED.record)
        (record,) = self.records
        self.assertEqual((record.outcome, record.status), (Outcome.REFUSED, 403))
        self.assertEqual(record.reason, "10.0.0.1 is a private address")
        self.assertEqual(self.refusals, [])

    def test_unreachable(self) -> None:
        client = self.client(hello("www.example.net"))
        self.endpoint.fail(UpstreamTimeout("no connection within 10 seconds"))
        self.assertEqual(client.take(), Alert.INTERNAL_ERROR.record)

    def test_client_leaves(self) -> None:
        """Before the destination has answered."""
        client = self.client(hello("www.example.net"))
        client.finish()
        self.assertTrue(self.endpoint.cancelled)
        self.assertEqual(self.factory.passed_on, set())
        self.assertEqual([record.outcome for record in self.records], [Outcome.ABANDONED])

    def test_loop(self) -> None:
        """A name that leads back here is passed on once, however it does."""
        client = self.client(hello("www.example.net", 1))
        back = self.client(self.endpoint.accept().take())
        self.assertEqual(self.dialled, [Host("www.example.net")])
        self.assertEqual(back.take(), Alert.INTERNAL_ERROR.record)
        back.finish()
        ((_, name, error),) = self.refusals
        self.assertEqual(name, "www.example.net")
        self.assertIsInstance(error, ProxyLoop)
        self.assertEqual(error.proxy_status, "proxy_loop_detected")
        client.lose(ConnectionLost())
        self.assertEqual(self.factory.passed_on, set())

    def test_loop_while_dialling(self) -> None:
        """It need not have been established."""
        self.client(hello("www.example.net", 1))
        self.client(hello("www.example.net", 1))
        self.assertEqual(len(self.dialled), 1)
        self.assertEqual(len(self.refusals), 1)

    def test_two_clients(self) -> None:
        """Of one name there may be any number; of one client one after the other."""
        first = self.client(hello("www.example.net", 1))
        self.client(hello("www.example.net", 2))
        self.assertEqual(len(self.dialled), 2)
        first.lose(ConnectionLost())
        self.client(hello("www.example.net", 1))
        self.assertEqual(len(self.dialled), 3)
        self.assertEqual(self.refusals, [])


class ManyNamesTests(ListenerTestCase):
    def test_nothing_is_kept(self) -> None:
        """10,000 different names, refused or passed on, leave no trace when they are gone."""

        def visit(number: int) -> None:
            domain = "example.net" if number % 2 else "example.org"
            client = self.client(hello(f"n{number}.{domain}", number))
            if number % 2:
                self.endpoint.accept()
            client.take()
            client.lose(ConnectionLost())
            self.clock.advance(LIMITS.tunnel_idle)
            for kept in (self.refusals, self.records, self.dialled):
                kept.clear()

        # Caches of names are full before it is counted.
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for number in range(2000):
            visit(number)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(2000, 12_000):
            visit(number)
        gc.collect()
        self.assertLess(tracemalloc.get_traced_memory()[0] - before, 64 * 1024)
        self.assertEqual(self.factory.passed_on, set())
        self.assertEqual(self.clock.getDelayedCalls(), [])
