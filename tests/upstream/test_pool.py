"""Tests for :mod:`regproxy.upstream.pool`.

They go through Twisted's own client where they can: a change of the private names that
the module uses must show here.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from itertools import repeat
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IPullProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import AccumulatingProtocol, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web._newclient import BODY, DONE, HTTPClientParser, Request
from twisted.web.client import URI, Agent, ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgentEndpointFactory, IBodyProducer
from zope.interface import implementer

from regproxy.upstream.body import discard
from regproxy.upstream.errors import ResponseHeadTooLarge
from regproxy.upstream.pool import HeadMeter, MeteredPool, MeteredProtocol

LIMIT = 64 * 1024
FINAL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"


def get() -> Request:
    return Request(b"GET", b"/", Headers({b"Host": [b"a.test"]}), None, persistent=True)


class HeadMeterTests(SynchronousTestCase):
    """:class:`HeadMeter`."""

    def test_exact(self) -> None:
        """The limit is for the heads and nothing else, up to the last byte."""
        meter = HeadMeter(len(INTERIM + FINAL))
        meter.feed(INTERIM + FINAL + bytes(1 << 20))
        self.assertTrue(meter.finished)
        meter.feed(bytes(1 << 20))
        meter = HeadMeter(len(INTERIM + FINAL) - 1)
        self.assertRaises(ResponseHeadTooLarge, meter.feed, INTERIM + FINAL)

    def test_one_line(self) -> None:
        """A line without an end is counted as it comes."""
        meter = HeadMeter(1000)
        meter.feed(bytes(1000))
        self.assertRaises(ResponseHeadTooLarge, meter.feed, b"x")

    def test_interim(self) -> None:
        """So many interim responses and not one more."""
        meter = HeadMeter(LIMIT, interim_limit=3)
        meter.feed(INTERIM * 3)
        self.assertFalse(meter.finished)
        self.assertRaises(ResponseHeadTooLarge, meter.feed, INTERIM)

    @given(
        lines=st.lists(
            st.sampled_from(
                [
                    b"HTTP/1.1 100 Continue",
                    b"HTTP/1.1 103",
                    b"HTTP/1.1 +101 x",
                    b"HTTP/1.1  100 x",
                    b"HTTP/1.1 200 OK",
                    b"HTTP/1.1 304 Not Modified",
                    b"X: y",
                    b"Content-Length: 0",
                    b" folded",
                    b"\r",
                    b"",
                    b"",
                ]
            )
        ),
        ends=st.lists(st.sampled_from([b"\n", b"\r\n"]), min_size=1),
        size=st.integers(1, 40),
    )
    def test_agrees_with_parser(
        self, lines: Sequence[bytes], ends: Sequence[bytes], size: int
    ) -> None:
        """The meter ends where Twisted's parser ends, or the parser gives up."""
        text = b"".join(
            line + ends[number % len(ends)]
            for number, line in enumerate([b"HTTP/1.1 100 Continue", b"", *lines])
        )
        meter = HeadMeter(LIMIT, interim_limit=1000)
        parser = HTTPClientParser(get(), lambda rest: None)
        parser.makeConnection(StringTransport())
        for start in range(0, len(text), size):
            piece = text[start : start + size]
            meter.feed(piece)
            try:
                parser.dataReceived(piece)
            except Exception:
                return
            assert meter.finished == (parser.state in (BODY, DONE))
            if meter.finished:
                return


class Transport(StringTransport):
    """A TCP transport; the test loses its connection."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True

    def setTcpNoDelay(self, enabled: bool) -> None: ...


class MeteredProtocolTests(SynchronousTestCase):
    """:class:`MeteredProtocol`."""

    def setUp(self) -> None:
        self.idle: list[object] = []
        self.transport = Transport()
        self.protocol = MeteredProtocol(self.idle.append, LIMIT)
        self.protocol.makeConnection(self.transport)

    def pour(self, head: bytes, pieces: int, piece: bytes) -> int:
        """Feed it as a server would that sends without end; the peak of memory in bytes."""
        self.responding = self.protocol.request(get())
        tracemalloc.start()
        try:
            self.protocol.dataReceived(head)
            for chunk in repeat(piece, pieces):
                self.protocol.dataReceived(chunk)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def check_refused(self, peak: int) -> None:
        self.assertLess(peak, 1 << 20)
        self.assertTrue(self.transport.aborted)
        self.assertNoResult(self.responding)
        self.protocol.connectionLost(Failure(ConnectionLost()))
        self.failureResultOf(self.responding, ResponseHeadTooLarge)

    def test_sixty_megabytes(self) -> None:
        """However much header comes, little is kept, and the connection is broken."""
        lines = b"X-Filler: y\r\n" * 5000
        self.check_refused(self.pour(b"HTTP/1.1 200 OK\r\n", 60 * (1 << 20) // len(lines), lines))

    def test_endless_interim(self) -> None:
        """The same for interim responses."""
        self.check_refused(self.pour(b"", 10_000, b"HTTP/1.1 100 Continue\r\n\r\n" * 100))

    def test_while_sending(self) -> None:
        """Also while the request is still on its way."""
        request = Request(b"PUT", b"/", Headers({b"Host": [b"a.test"]}), Body(10))
        responding = self.protocol.request(request)
        self.protocol.dataReceived(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * LIMIT)
        self.assertTrue(self.transport.aborted)
        self.protocol.connectionLost(Failure(ConnectionLost()))
        self.failureResultOf(responding, ResponseHeadTooLarge)

    def test_each_response_anew(self) -> None:
        """The head of every response on the connection is metered for itself."""
        big = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: " + b"y" * 12000 + b"\r\n"
        big += (b"Z: " + b"y" * 12000 + b"\r\n") * 3 + b"\r\n"
        for _ in range(3):
            responding = self.protocol.request(get())
            self.protocol.dataReceived(big)
            self.assertEqual(self.successResultOf(responding).code, 200)
        self.assertFalse(self.transport.aborted)

    def test_abort_by_reader(self) -> None:
        """Whoever reads a body can break its connection."""
        responding = self.protocol.request(get())
        self.protocol.dataReceived(FINAL + b"ab")
        discard(self.successResultOf(responding))
        self.assertTrue(self.transport.aborted)
        self.assertFalse(self.transport.disconnecting)

    def test_late_abort(self) -> None:
        """A reader that is late does not hit the next request."""
        late = self.read_whole()
        late.abortConnection()
        self.assertFalse(self.transport.aborted)
        self.protocol.request(get())
        late.abortConnection()
        self.assertFalse(self.transport.aborted)

    def read_whole(self) -> Any:
        """Read one response; the transport that its reader saw."""
        responding = self.protocol.request(get())
        self.protocol.dataReceived(FINAL)
        reader = Protocol()
        self.successResultOf(responding).deliverBody(reader)
        self.protocol.dataReceived(b"abcd")
        self.assertEqual(self.idle, [self.protocol])
        return reader.transport

    def test_abort(self) -> None:
        """Closing an idle connection does not wait for the peer."""
        self.read_whole()
        closing = self.protocol.abort()
        self.assertTrue(self.transport.aborted)
        self.protocol.connectionLost(Failure(ConnectionLost()))
        self.successResultOf(closing)


@implementer(IBodyProducer)
class Body:
    """A body that the test writes."""

    def __init__(self, length: Any) -> None:
        self.length = length
        self.sending: Deferred[None] = Deferred()
        self.stopped = False
        self.consumer: Any = None

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        self.consumer = consumer
        return self.sending

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def stopProducing(self) -> None:
        self.stopped = True


class RefusalTests(SynchronousTestCase):
    """A server that refuses a request while its body is being sent is heard at once."""

    head = b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\n"

    def upload(self, length: Any = 10) -> None:
        self.idle: list[object] = []
        self.transport = Transport()
        self.protocol = MeteredProtocol(self.idle.append, LIMIT)
        self.protocol.makeConnection(self.transport)
        self.body = Body(length)
        fields = Headers({b"Host": [b"a.test"]})
        request = Request(b"PUT", b"/", fields, self.body, persistent=True)
        self.responding = self.protocol.request(request)
        self.body.consumer.write(b"some")
        self.transport.clear()

    def read(self) -> tuple[int, bytes]:
        """Status and body of the response, which must be here."""
        response = self.successResultOf(self.responding)
        reader = AccumulatingProtocol()
        response.deliverBody(reader)
        return response.code, reader.data

    def check_stopped(self) -> None:
        """Nothing more of the body was sent, above all not its end, and nothing else will be."""
        self.assertTrue(self.body.stopped)
        self.assertIsNone(self.transport.producer)
        self.assertEqual(self.transport.value(), b"")
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.idle, [])

    def test_with_length(self) -> None:
        for length in (10, UNKNOWN_LENGTH):
            self.upload(length)
            self.protocol.dataReceived(self.head + b"Content-Length: 4\r\n\r\nbody")
            self.assertEqual(self.read(), (401, b"body"))
            self.check_stopped()
            self.protocol.connectionLost(Failure(ConnectionLost()))

    def test_piece_by_piece(self) -> None:
        """It is given out when its head is whole; until then nothing is known but that it comes."""
        self.upload()
        text = self.head + b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
        for at in range(len(text)):
            self.protocol.dataReceived(text[at : at + 1])
            self.assertEqual(self.body.stopped, at >= text.index(b"\n"))
        self.assertEqual(self.read(), (401, b"body"))
        self.check_stopped()

    def test_ended_by_the_connection(self) -> None:
        self.upload()
        self.protocol.dataReceived(self.head + b"\r\nbo")
        response = self.successResultOf(self.responding)
        reader = AccumulatingProtocol()
        response.deliverBody(reader)
        self.protocol.dataReceived(b"dy")
        self.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(reader.data, b"body")
        self.assertTrue(reader.closed)

    def test_broken_off(self) -> None:
        self.upload()
        self.protocol.dataReceived(self.head)
        self.protocol.connectionLost(Failure(ConnectionLost()))
        self.failureResultOf(self.responding, ResponseFailed)

    def test_cancelled(self) -> None:
        self.upload()
        self.protocol.dataReceived(self.head)
        self.responding.cancel()
        self.assertTrue(self.transport.aborted)
        failure = self.failureResultOf(self.responding, ResponseFailed)
        self.assertTrue(failure.value.reasons[0].check(CancelledError))

    def test_not_refused(self) -> None:
        """What is no refusal does not end the sending."""
        self.upload()
        self.protocol.dataReceived(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.protocol.dataReceived(b"HTTP/1.1 201 Created\r\nContent-Length: 4\r\n\r\n")
        self.assertFalse(self.body.stopped)
        self.body.consumer.write(b"thing.")
        self.body.sending.callback(None)
        self.assertEqual(self.transport.value(), b"thing.")
        response = self.successResultOf(self.responding)
        reader = AccumulatingProtocol()
        response.deliverBody(reader)
        self.protocol.dataReceived(b"body")
        self.assertEqual(reader.data, b"body")
        self.assertEqual(self.idle, [self.protocol])

    def test_after_the_body(self) -> None:
        """An ordinary refusal leaves the connection as it is."""
        self.upload()
        self.body.consumer.write(b"thing.")
        self.body.sending.callback(None)
        self.protocol.dataReceived(self.head + b"Content-Length: 4\r\n\r\n")
        self.successResultOf(self.responding).deliverBody(AccumulatingProtocol())
        self.protocol.dataReceived(b"body")
        self.assertEqual(self.idle, [self.protocol])
        self.assertFalse(self.body.stopped)


@implementer(IPullProducer)
class Fountain(Protocol):
    """A server whose response head has no end."""

    def connectionMade(self) -> None:
        self.sent = 0
        self.lost: Deferred[int]

    def dataReceived(self, data: bytes) -> None:
        transport: Any = self.transport
        transport.write(b"HTTP/1.1 200 OK\r\n")
        transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        assert self.transport is not None
        if self.sent < 60 * (1 << 20):
            lines = b"X-Filler: y\r\n" * 5000
            self.sent += len(lines)
            self.transport.write(lines)

    def stopProducing(self) -> None: ...

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        factory: Any = self.factory
        factory.lost.callback(self.sent)


@implementer(IAgentEndpointFactory)
class ToPort:
    def __init__(self, port: int) -> None:
        self.port = port

    def endpointForURI(self, uri: URI) -> TCP4ClientEndpoint:
        return TCP4ClientEndpoint(global_reactor, "127.0.0.1", self.port)


class LoopbackTests(TestCase):
    """The same with Twisted's Agent over real sockets."""

    async def test_endless_head(self) -> None:
        """The server is cut off long before the end."""
        reactor: Any = global_reactor
        factory: Any = Factory.forProtocol(Fountain)
        factory.lost = Deferred()
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        agent = Agent.usingEndpointFactory(
            reactor, ToPort(port.getHost().port), MeteredPool(reactor, LIMIT)
        )
        with self.assertRaises(ResponseHeadTooLarge):
            await agent.request(b"GET", b"http://a.test/")
        # What the buffers of the kernel and of the transport hold.
        self.assertLess(await factory.lost, 20 * (1 << 20))


class MeteredPoolTests(SynchronousTestCase):
    """:class:`MeteredPool`."""

    def test_settings(self) -> None:
        """Idle connections are kept for less than a minute, and not too many of them."""
        pool = MeteredPool(Clock(), LIMIT)
        self.assertTrue(pool.persistent)
        self.assertEqual((pool.maxPersistentPerHost, pool.cachedConnectionTimeout), (16, 50))

    def test_connections_are_metered(self) -> None:
        """Twisted's pool makes its connections with the factory that it is given."""
        made: list[Any] = []

        class Endpoint:
            def connect(self, factory: Any) -> Deferred[object]:
                made.append(factory)
                return Deferred()

        endpoint: Any = Endpoint()
        MeteredPool(Clock(), LIMIT).getConnection("key", endpoint)
        self.assertIsInstance(made[0].buildProtocol(None), MeteredProtocol)
        self.assertIn("connections to", repr(made[0]))
