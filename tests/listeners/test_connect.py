"""Tests for :mod:`regproxy.listeners.connect`."""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.model import LimitsSection
from regproxy.listeners.connect import ConnectFactory
from regproxy.listeners.head import ESTABLISHED, HEAD_LIMIT
from regproxy.listeners.opening import HELD_LIMIT, LINGER
from regproxy.listeners.tunnel import Outcome, TunnelRecord, Tunnels
from regproxy.oci.errors import OwnFailure, RegistryError
from regproxy.oci.names import Host
from regproxy.policy.interception import Decision, Intercept, Tunnel
from regproxy.upstream.errors import AddressRefused
from tests.support.keepers import Keepers
from tests.support.streams import MemoryEndpoint, MemoryStream

INTERCEPTED = Host("registry.example.com")
LIMITS = LimitsSection(request_head=30.0)
HELLO = b"\x16\x03\x01\x00\x05hello"


def connect(target: str = "registry.example.com:443") -> bytes:
    """A CONNECT."""
    return f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()


def decide(host: Host) -> Decision:
    """One host is intercepted, the others are not."""
    return Intercept(host) if host == INTERCEPTED else Tunnel(host)


class ListenerTestCase(SynchronousTestCase):
    """The listener over connections in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.endpoint = MemoryEndpoint()
        self.records: list[TunnelRecord] = []
        self.site = Keepers()
        self.plain = Keepers()
        self.hosts: list[Host] = []
        self.factory = ConnectFactory(
            self.clock,
            LIMITS,
            decide=decide,
            intercepted=self.intercepted,
            plain=self.plain,
            tunnels=Tunnels(self.clock, lambda host: self.endpoint, LIMITS, self.records.append),
        )

    def intercepted(self, host: Host) -> Keepers:
        """What the listener is given for intercepted hosts."""
        self.hosts.append(host)
        return self.site

    def client(self, *chunks: bytes) -> MemoryStream:
        """A client that connects and sends *chunks*."""
        stream = MemoryStream(self.factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1)))
        for chunk in chunks:
            stream.send(chunk)
        return stream

    def assertRefused(self, client: MemoryStream, status: int) -> dict[str, str]:
        """The client gets a whole error response and the connection ends; its one error."""
        head, _, body = client.take().partition(b"\r\n\r\n")
        self.assertEqual(head.split(b" ", 2)[:2], [b"HTTP/1.1", b"%d" % status])
        self.assertIn(b"\r\nConnection: close", head)
        self.assertTrue(client.write_closed)
        client.finish()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        (error,) = json.loads(body)["errors"]
        assert isinstance(error, dict)
        return error


class InterceptTests(ListenerTestCase):
    """CONNECT to a host whose TLS is ended here."""

    def test_established(self) -> None:
        """The exact answer, then the connection is the site's."""
        client = self.client(connect())
        self.assertEqual(client.take(), b"HTTP/1.1 200 Connection established\r\n\r\n")
        self.assertEqual(self.hosts, [INTERCEPTED])
        (inner,) = self.site.built
        self.assertIs(inner.transport, client)
        client.send(HELLO)
        self.assertEqual(inner.data, HELLO)

    def test_eager(self) -> None:
        """A client that does not wait for the answer loses no byte."""
        client = self.client(connect() + HELLO)
        self.assertEqual(client.take(), ESTABLISHED)
        self.assertEqual(self.site.data, [HELLO])

    def test_slow(self) -> None:
        """One byte at a time."""
        client = self.client(*(bytes([byte]) for byte in connect() + HELLO))
        self.assertEqual(client.take(), ESTABLISHED)
        self.assertEqual(self.site.data, [HELLO])

    def test_no_deadline_afterwards(self) -> None:
        """The deadline was for the head; the site has its own."""
        self.client(connect())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_connection_lost(self) -> None:
        """The site hears of the end, with its reason; a FIN is the end, as always in Twisted."""
        for end in ("finish", "lose"):
            client = self.client(connect())
            inner = self.site.built[-1]
            client.finish() if end == "finish" else client.lose(ConnectionLost())
            assert inner.lost is not None
            inner.lost.trap(ConnectionDone if end == "finish" else ConnectionLost)

    def test_no_certificate(self) -> None:
        """When there can be none the client is told why, instead of the 200."""
        self.factory.intercepted = self.fail_to_intercept
        error = self.assertRefused(self.client(connect() + HELLO), 503)
        self.assertEqual(error["message"], "the CA certificate expired")

    def fail_to_intercept(self, host: Host) -> Keepers:
        """What the listener is given then."""
        raise OwnFailure("the CA certificate expired")

    def test_factory_refuses(self) -> None:
        """A factory may refuse the connection."""
        self.site.refusing = True
        self.assertTrue(self.client(connect()).aborted)


class PlainTests(ListenerTestCase):
    """Everything that is no CONNECT."""

    def test_handed_over_whole(self) -> None:
        """The site sees the connection from its first byte, as soon as that is enough."""
        client = self.client(b"G", b"ET /ca.crt HTTP/1.1\r\n")
        self.assertEqual(self.plain.data, [b"GET /ca.crt HTTP/1.1\r\n"])
        self.assertIs(self.plain.built[0].transport, client)
        self.assertEqual(client.take(), b"")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_empty_line_first(self) -> None:
        """Nothing is taken away."""
        self.client(b"\r\n", b"HEAD /")
        self.assertEqual(self.plain.data, [b"\r\nHEAD /"])

    def test_plain_is_started(self) -> None:
        """The site's factory starts and stops with this one."""
        self.factory.doStart()
        self.assertEqual(self.plain.numPorts, 1)
        self.factory.doStop()
        self.assertEqual(self.plain.numPorts, 0)

    def test_tls(self) -> None:
        """TLS on this port is a mistake in the client's set-up that the log should name."""
        with capturedLogs() as events:
            client = self.client(HELLO)
        self.assertTrue(client.aborted)
        (event,) = (event for event in events if "TLS" in str(event.get("log_format")))
        self.assertEqual(event["client"], "192.168.1.1")


class SecureTests(ListenerTestCase):
    """A proxy that has names of its own speaks TLS on the same port."""

    def setUp(self) -> None:
        super().setUp()
        self.inside = Keepers()
        self.error: RegistryError | None = None
        self.factory.secure = self.secure

    def secure(self) -> Keepers:
        """What the listener is given for its own TLS."""
        if self.error is not None:
            raise self.error
        return self.inside

    def test_handed_over_whole(self) -> None:
        """TLS sees the connection from its first byte."""
        client = self.client(HELLO[:1], HELLO[1:])
        self.assertEqual(self.inside.data, [HELLO])
        self.assertIs(self.inside.built[0].transport, client)
        self.assertEqual(client.take(), b"")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_others(self) -> None:
        """Those who do not begin with TLS are answered as ever."""
        self.assertEqual(self.client(connect()).take(), ESTABLISHED)
        self.client(b"GET /")
        self.assertEqual(self.plain.data, [b"GET /"])
        self.assertEqual(self.inside.built, [])

    def test_cannot_be(self) -> None:
        """Without a certificate the connection ends."""
        self.error = OwnFailure("the CA certificate expired")
        client = self.client(HELLO)
        client.take()
        self.assertTrue(client.write_closed)
        client.finish()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class RefusalTests(ListenerTestCase):
    """Heads that are not accepted."""

    def test_malformed(self) -> None:
        """A malformed CONNECT gets an error and reaches nobody."""
        client = self.client(connect("registry.example.com"), HELLO)
        self.assertEqual(self.assertRefused(client, 400)["code"], "UNSUPPORTED")
        self.assertEqual((self.hosts, self.plain.built), ([], []))

    def test_misdirected(self) -> None:
        """Nor one for two hosts."""
        self.assertRefused(self.client(connect().replace(b"Host: r", b"Host: x")), 421)

    def test_too_large(self) -> None:
        """Nor one without end."""
        self.assertRefused(self.client(b"CONNECT ", b"x" * HEAD_LIMIT, b"x"), 431)

    def test_deadline(self) -> None:
        """The time for the head does not grow with its bytes."""
        client = self.client()
        for byte in connect()[:30]:
            self.assertEqual(client.take(), b"")
            client.send(bytes([byte]))
            self.clock.advance(1)
        self.assertRefused(client, 408)

    def test_lingering(self) -> None:
        """A client that does not close after its refusal is cut off."""
        client = self.client(connect("registry.example.com"))
        client.take()
        client.send(b"what was under way")
        self.clock.advance(LINGER)
        self.assertTrue(client.aborted)

    def test_client_leaves(self) -> None:
        """A client that leaves early leaves nothing behind."""
        client = self.client(b"CONNECT regis")
        client.finish()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class TunnelTests(ListenerTestCase):
    """CONNECT to a host that is not intercepted."""

    def test_answer_waits_for_the_destination(self) -> None:
        """200 means that the destination is connected."""
        client = self.client(connect("example.net:443"))
        self.assertEqual(client.take(), b"")
        server = self.endpoint.accept()
        self.assertEqual(client.take(), ESTABLISHED)
        client.send(HELLO)
        self.assertEqual(server.take(), HELLO)

    def test_eager(self) -> None:
        """What came with and after the head is the first that the destination gets."""
        client = self.client(connect("example.net:443") + HELLO, b"more")
        self.assertEqual(self.endpoint.accept().take(), HELLO + b"more")
        self.assertEqual(client.take(), ESTABLISHED)

    def test_held_bytes_are_bounded(self) -> None:
        """A client that sends much too early is not read until there is someone to take it."""
        client = self.client(connect("example.net:443") + bytes(HELD_LIMIT))
        self.assertTrue(client.reading)
        client.send(b"x")
        self.assertFalse(client.reading)
        server = self.endpoint.accept()
        self.assertEqual(len(server.take()), HELD_LIMIT + 1)
        self.assertTrue(client.reading)

    def test_half_close(self) -> None:
        """The client's FIN is passed on, and the answer still comes."""
        client = self.client(connect("example.net:443"))
        server = self.endpoint.accept()
        client.take()
        client.finish()
        server.take()
        self.assertTrue(server.write_closed)
        server.send(b"answer")
        self.assertEqual(client.take(), b"answer")
        server.finish()
        client.take(), server.take()
        self.assertTrue(client.lost and server.lost)
        (record,) = self.records
        self.assertEqual(record.outcome, Outcome.TUNNEL)
        self.assertEqual((record.host, record.client), (Host("example.net"), "192.168.1.1"))

    def test_refused(self) -> None:
        """The guard's reason is in the body."""
        client = self.client(connect("example.net:443") + bytes(HELD_LIMIT + 1))
        self.assertFalse(client.reading)
        self.endpoint.fail(AddressRefused("it is a private address"))
        self.assertTrue(client.reading)
        self.assertIn(
            b"\r\nProxy-Status: regproxy; error=destination_ip_prohibited\r\n", client.value()
        )
        self.assertEqual(
            self.assertRefused(client, 403),
            {"code": "DENIED", "message": "it is a private address"},
        )
        self.assertEqual([record.outcome for record in self.records], [Outcome.REFUSED])

    def test_client_leaves(self) -> None:
        """A client that leaves while the destination is dialled cancels that."""
        client = self.client(connect("example.net:443"))
        client.finish()
        self.assertTrue(self.endpoint.cancelled)
        self.assertEqual([record.outcome for record in self.records], [Outcome.ABANDONED])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_broken_dial(self) -> None:
        """An error that nobody expects is logged and ends the connection."""
        client = self.client(connect("example.net:443"))
        self.endpoint.fail(ZeroDivisionError())
        self.assertTrue(client.aborted)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class SplitTests(ListenerTestCase):
    """Any cut of a client's bytes comes to the same."""

    @given(
        st.sampled_from(
            [
                connect(),
                b"\r\n" + connect(),
                connect("example.net:443"),
                connect("example.net"),
                b"GET / HTTP/1.1\r\n\r\n",
            ]
        ),
        st.binary(max_size=50),
        st.lists(st.integers(0, 140)),
    )
    def test_cuts(self, head: bytes, payload: bytes, cuts: list[int]) -> None:
        """The client's answer, and what everybody behind the listener receives, are the same."""
        data = head + payload
        edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        chunks = [data[a:b] for a, b in pairwise(edges)]
        self.assertEqual(self.come_to(chunks), self.come_to([data]))

    def come_to(self, chunks: list[bytes]) -> tuple[bytes, list[bytes], list[bytes], bytes]:
        """The answer, and what site, plain site and tunnel destination receive."""
        self.setUp()
        client = self.client(*(chunk for chunk in chunks if chunk))
        upstream = b""
        if self.endpoint.dialled:
            upstream = self.endpoint.accept().take()
        return client.take(), self.site.data, self.plain.data, upstream
