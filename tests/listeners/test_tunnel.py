"""Tests for :mod:`regproxy.listeners.tunnel`."""

from __future__ import annotations

from http import HTTPStatus

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import (
    ConnectingCancelledError,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    NoRouteError,
)
from twisted.internet.interfaces import IProtocol, ISSLTransport, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import alsoProvides

from regproxy.config.model import LimitsSection
from regproxy.listeners.tunnel import Outcome, TunnelRecord, Tunnels
from regproxy.oci.errors import RegistryError
from regproxy.oci.names import Host
from regproxy.upstream.errors import (
    AddressRefused,
    NameUnresolved,
    ParentProxyRefused,
    UpstreamBroken,
    UpstreamTimeout,
    UpstreamTLSFailed,
    UpstreamUnreachable,
)
from tests.support.streams import SEND_BUFFER, MemoryEndpoint, MemoryStream

HOST = Host("example.net")
LIMITS = LimitsSection(tunnel_idle=60.0, tunnel_total=1000.0)


class TunnelTestCase(SynchronousTestCase):
    """Tunnels over connections in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.endpoint = MemoryEndpoint()
        self.dialled: list[Host] = []
        self.records: list[TunnelRecord] = []

    def dial(self, host: Host) -> IStreamClientEndpoint:
        """What the tunnels are given to dial with."""
        self.dialled.append(host)
        return self.endpoint

    def open(self) -> Deferred[IProtocol]:
        """Begin to open a tunnel."""
        tunnels = Tunnels(self.clock, self.dial, LIMITS, self.records.append)
        return Deferred.fromCoroutine(tunnels.open(HOST, "192.0.2.1"))

    def established(self) -> tuple[MemoryStream, MemoryStream]:
        """Client and server of an open tunnel, each as their peer sees it."""
        opening = self.open()
        server = self.endpoint.accept()
        return MemoryStream(self.successResultOf(opening)), server

    def assertRecorded(self, reason: str, bytes_up: int = 0, bytes_down: int = 0) -> None:
        """The tunnel has ended, was recorded once, and has left no deadline."""
        expected = TunnelRecord(
            client="192.0.2.1",
            host=HOST,
            status=HTTPStatus.OK,
            bytes_up=bytes_up,
            bytes_down=bytes_down,
            duration=self.clock.seconds(),
            outcome=Outcome.TUNNEL,
            reason=reason,
        )
        self.assertEqual(self.records, [expected])
        self.assertEqual(self.clock.getDelayedCalls(), [])


class OpenTests(TunnelTestCase):
    """From the decision to the connection."""

    def refused(self, error: Exception) -> RegistryError:
        """What the client is told when the dial fails with *error*."""
        opening = self.open()
        self.clock.advance(3)
        self.endpoint.fail(error)
        refusal = self.failureResultOf(opening).value
        assert isinstance(refusal, RegistryError)
        self.assertEqual(
            self.records,
            [
                TunnelRecord(
                    "192.0.2.1", HOST, refusal.status, 0, 0, 3.0, Outcome.REFUSED, refusal.message
                )
            ],
        )
        return refusal

    def assertRefused(
        self, error: Exception, status: HTTPStatus, proxy_status: str, message: str
    ) -> None:
        """A failed dial is told to the client as it should."""
        refusal = self.refused(error)
        self.assertEqual(
            (refusal.status, refusal.proxy_status, refusal.message),
            (status, proxy_status, message),
        )

    def test_dials_the_host(self) -> None:
        """The host that was decided about is the one that is dialled."""
        self.open()
        self.assertEqual(self.dialled, [HOST])
        self.assertEqual(self.records, [])

    def test_address_refused(self) -> None:
        """The guard's reason reaches the client."""
        self.assertRefused(
            AddressRefused("10.0.0.1 is a private address"),
            HTTPStatus.FORBIDDEN,
            "destination_ip_prohibited",
            "10.0.0.1 is a private address",
        )

    def test_timeout(self) -> None:
        """A destination that does not answer."""
        self.assertRefused(
            UpstreamTimeout("too late"),
            HTTPStatus.GATEWAY_TIMEOUT,
            "connection_timeout",
            "too late",
        )

    def test_no_such_name(self) -> None:
        """A destination that has no address."""
        self.assertRefused(
            NameUnresolved("no name"), HTTPStatus.BAD_GATEWAY, "dns_error", "no name"
        )

    def test_parent(self) -> None:
        """A parent proxy that does not want to, or cannot, or is not what it seems."""
        for error, token in (
            (ParentProxyRefused("no login"), "proxy_configuration_error"),
            (UpstreamUnreachable("it answered 503"), "destination_unavailable"),
            (UpstreamBroken("it closed the connection"), "destination_unavailable"),
            (UpstreamTLSFailed("expired"), "tls_certificate_error"),
        ):
            self.setUp()
            self.assertRefused(error, HTTPStatus.BAD_GATEWAY, token, error.message)

    def test_connection_refused(self) -> None:
        """A destination where nothing listens."""
        error = UpstreamUnreachable("cannot connect")
        error.__cause__ = ConnectionRefusedError()
        self.assertRefused(error, HTTPStatus.BAD_GATEWAY, "connection_refused", "cannot connect")

    def test_no_route(self) -> None:
        """A destination that cannot be reached for another reason."""
        error = UpstreamUnreachable("cannot connect")
        error.__cause__ = NoRouteError()
        self.assertRefused(
            error, HTTPStatus.BAD_GATEWAY, "destination_unavailable", "cannot connect"
        )

    def assertAbandoned(self, opening: Deferred[IProtocol]) -> None:
        """It was recorded that the client left."""
        self.failureResultOf(opening, CancelledError)
        (record,) = self.records
        self.assertEqual(record.outcome, Outcome.ABANDONED)
        self.assertEqual(record.status, 499)

    def test_cancelled(self) -> None:
        """A client that leaves cancels the dial."""
        opening = self.open()
        opening.cancel()
        self.assertTrue(self.endpoint.cancelled)
        self.assertAbandoned(opening)

    def test_cancelled_as_twisted_says_it(self) -> None:
        """Twisted's endpoints have an error of their own for that."""
        opening = self.open()
        self.endpoint.fail(ConnectingCancelledError(None))
        self.assertAbandoned(opening)


class RelayTests(TunnelTestCase):
    """The bytes of an open tunnel, and its end."""

    def test_both_ways(self) -> None:
        """What arrives at one end leaves at the other."""
        client, server = self.established()
        client.send(b"hello")
        self.assertEqual(server.take(), b"hello")
        server.send(b"good ")
        server.send(b"day")
        self.assertEqual(client.take(), b"good day")

    def test_server_waits_for_the_client(self) -> None:
        """What a server says first is not read before there is a client to take it."""
        opening = self.open()
        server = self.endpoint.accept()
        self.assertFalse(server.reading)
        MemoryStream(self.successResultOf(opening))
        self.assertTrue(server.reading)

    def test_server_spoke_early(self) -> None:
        """What came together with a parent proxy's answer is not lost, nor put behind the rest."""
        opening = self.open()
        server = self.endpoint.accept()
        server.send(b"good ")
        client = MemoryStream(self.successResultOf(opening))
        server.send(b"day")
        self.assertEqual(client.take(), b"good day")
        client.lose(ConnectionDone())
        server.lose(ConnectionDone())
        self.assertRecorded("closed", bytes_down=8)

    def test_client_finishes_first(self) -> None:
        """The client's FIN is passed on after its bytes; the answer goes on."""
        client, server = self.established()
        client.send(b"request")
        client.finish()
        self.assertFalse(server.write_closed)
        self.assertEqual(server.take(), b"request")
        self.assertTrue(server.write_closed)
        server.send(b"answer")
        self.assertEqual(client.take(), b"answer")
        self.assertFalse(client.disconnecting)
        server.finish()
        client.take(), server.take()
        self.assertRecorded("closed", len(b"request"), len(b"answer"))

    def test_server_finishes_first(self) -> None:
        """The other way round it is the same."""
        client, server = self.established()
        server.send(b"banner")
        server.finish()
        self.assertEqual(client.take(), b"banner")
        self.assertTrue(client.write_closed)
        client.send(b"upload")
        self.assertEqual(server.take(), b"upload")
        client.finish()
        client.take(), server.take()
        self.assertRecorded("closed", len(b"upload"), len(b"banner"))

    def test_no_half_close_in_tls(self) -> None:
        """A client in TLS cannot be told that half of the connection ends: it is closed."""
        client, server = self.established()
        alsoProvides(client, ISSLTransport)
        server.send(b"last words")
        server.finish()
        self.assertTrue(client.disconnecting)
        self.assertEqual(client.take(), b"last words")
        server.take()
        self.assertRecorded("closed", 0, len(b"last words"))

    def test_lost(self) -> None:
        """The end of one connection closes the other, after the bytes that came before."""
        for index, reason in enumerate((ConnectionLost(), ConnectionDone())):
            self.setUp()
            ends = self.established()
            leaver, stayer = ends[index], ends[1 - index]
            leaver.send(b"torso")
            leaver.lose(reason)
            self.assertEqual(self.records, [])
            self.assertEqual(stayer.take(), b"torso")
            self.assertTrue(stayer.lost)
            (record,) = self.records
            self.assertEqual(record.reason, "closed")
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lost_after_its_fin(self) -> None:
        """A client that closes is gone when the server's next bytes reach it."""
        client, server = self.established()
        client.finish()
        server.take()
        server.send(b"late")
        client.lose(ConnectionLost())
        server.take()
        self.assertRecorded("closed", 0, len(b"late"))

    def test_idle(self) -> None:
        """Two silent ends are cut off; a byte in either direction starts the time anew."""
        client, server = self.established()
        self.clock.advance(59)
        client.send(b"x")
        self.clock.advance(59)
        server.send(b"y")
        self.clock.advance(59)
        self.assertFalse(client.aborted or server.aborted)
        self.clock.advance(1)
        self.assertTrue(client.aborted and server.aborted)
        client.take(), server.take()
        self.assertRecorded("idle", 1, 1)

    def test_close_that_gets_stuck(self) -> None:
        """A peer that takes nothing more is cut off in the end."""
        client, server = self.established()
        server.send(b"x")
        server.lose(ConnectionDone())
        self.assertTrue(client.disconnecting)
        self.clock.advance(60)
        self.assertTrue(client.aborted)
        client.take()
        self.assertRecorded("idle", 0, 1)

    def test_total(self) -> None:
        """No tunnel lives for ever, however busy."""
        client, server = self.established()
        for _ in range(25):
            self.assertFalse(client.aborted or server.aborted)
            client.send(b"x")
            server.take()
            self.clock.advance(40)
        self.assertTrue(client.aborted and server.aborted)
        client.take(), server.take()
        self.assertRecorded("too old", 25)

    def test_back_pressure(self) -> None:
        """20 MiB to a slow reader, in each direction: what is held stays small."""
        chunk = bytes(SEND_BUFFER)
        for index in (0, 1):
            self.setUp()
            ends = self.established()
            source, sink = ends[index], ends[1 - index]
            sent = taken = 0
            while sent < 20 << 20:
                while source.reading:
                    source.send(chunk)
                    sent += len(chunk)
                self.assertEqual(source.producerState, "paused")
                taken += len(sink.take())
            self.assertEqual(taken + len(sink.take()), sent)
            self.assertGreater(sink.pauses, 100)
            self.assertLessEqual(sink.held_most, SEND_BUFFER + len(chunk))

    def test_stalled_side_leaves_the_other_way_open(self) -> None:
        """Back-pressure is for one direction."""
        client, server = self.established()
        server.send(bytes(SEND_BUFFER + 1))
        self.assertFalse(server.reading)
        client.send(b"still heard")
        self.assertEqual(server.take(), b"still heard")

    def test_finish_of_a_stalled_direction(self) -> None:
        """A FIN that comes while its direction is held up is passed on after the bytes."""
        client, server = self.established()
        server.send(bytes(SEND_BUFFER + 1))
        server.finish()
        self.assertEqual(len(client.take()), SEND_BUFFER + 1)
        self.assertTrue(client.write_closed)
        # The FIN is not read a second time.
        self.assertFalse(server.reading)
