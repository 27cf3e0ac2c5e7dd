"""Tests for :mod:`regproxy.upstream.body`."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IConsumer
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer, IResponse
from zope.interface import implementer
from zope.interface.verify import verifyObject

from regproxy.config.model import LimitsSection
from regproxy.upstream.body import (
    BodyReader,
    Deadline,
    Measured,
    WatchedBody,
    discard,
    drain,
    read,
)
from regproxy.upstream.errors import BodyIncomplete, BodyTooLarge, UpstreamTimeout
from regproxy.upstream.ledger import Figures

LIMITS = LimitsSection(upstream_idle=2, upstream_rate=1)


class BodyTransport(StringTransport):
    """The transport that a body's reader sees; notes when the connection is broken."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True


@implementer(IResponse)
class FakeResponse:
    """A response whose body comes as the test says."""

    version = (b"HTTP", 1, 1)
    code = 200
    phrase = b"OK"
    headers = Headers()
    request = None
    previousResponse = None

    def __init__(self, length: int | str = UNKNOWN_LENGTH) -> None:
        self.length = length
        self.transport = BodyTransport()

    def deliverBody(self, protocol: BodyReader) -> None:
        self.protocol = protocol
        protocol.makeConnection(self.transport)

    def setPreviousResponse(self, response: IResponse | None) -> None: ...

    def end(self, reason: Exception | None = None) -> None:
        self.protocol.connectionLost(Failure(reason or ResponseDone()))


class DeadlineTests(SynchronousTestCase):
    """:class:`Deadline`."""

    def test_put_off(self) -> None:
        """The last time that was set counts, and the end is stated."""
        clock, expired = Clock(), list[bool]()
        deadline = Deadline(clock, lambda: expired.append(True))
        deadline.within(10)
        clock.advance(9)
        deadline.within(5)
        clock.advance(4)
        self.assertEqual((expired, deadline.passed), ([], False))
        clock.advance(1)
        self.assertEqual((expired, deadline.passed), ([True], True))

    def test_stop(self) -> None:
        """A stopped deadline does not come; one that never was set can be stopped."""
        clock, expired = Clock(), list[bool]()
        deadline = Deadline(clock, lambda: expired.append(True))
        deadline.stop()
        deadline.within(10)
        deadline.stop()
        clock.advance(10)
        self.assertEqual(expired, [])
        self.assertEqual(clock.getDelayedCalls(), [])


class ReadTests(SynchronousTestCase):
    """:func:`read`: bounded, with a deadline, and exact about the end."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.response = FakeResponse()

    def read(self, limit: int = 10) -> Deferred[bytes]:
        return Deferred.fromCoroutine(read(self.response, limit, LIMITS, self.clock))

    def tearDown(self) -> None:
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_whole(self) -> None:
        reading = self.read()
        self.response.protocol.dataReceived(b"01234")
        self.response.protocol.dataReceived(b"56789")
        self.response.end()
        self.assertEqual(self.successResultOf(reading), b"0123456789")
        self.assertFalse(self.response.transport.aborted)

    def test_without_length(self) -> None:
        """The end of the connection ends a body that has no length."""
        reading = self.read()
        self.response.protocol.dataReceived(b"0")
        self.response.end(PotentialDataLoss())
        self.assertEqual(self.successResultOf(reading), b"0")

    def test_too_large(self) -> None:
        """The connection is broken at the first byte too many, and the rest is ignored."""
        reading = self.read()
        self.response.protocol.dataReceived(b"0123456789")
        self.response.protocol.dataReceived(b"0")
        self.failureResultOf(reading, BodyTooLarge)
        self.assertTrue(self.response.transport.aborted)
        self.response.protocol.dataReceived(b"0")
        self.response.end(ResponseFailed([]))

    def test_announced_too_large(self) -> None:
        """A length that is too large is not read at all."""
        self.response = FakeResponse(11)
        self.failureResultOf(self.read(), BodyTooLarge)
        self.assertTrue(self.response.transport.aborted)

    def test_incomplete(self) -> None:
        reading = self.read()
        self.response.protocol.dataReceived(b"0")
        self.response.end(ResponseFailed([]))
        self.failureResultOf(reading, BodyIncomplete)

    def test_stalled(self) -> None:
        """What is worth it starts the time anew."""
        reading = self.read()
        self.clock.advance(1.5)
        self.response.protocol.dataReceived(b"01")
        self.clock.advance(1.5)
        self.assertNoResult(reading)
        self.clock.advance(0.5)
        self.failureResultOf(reading, UpstreamTimeout)
        self.assertTrue(self.response.transport.aborted)

    def test_drip(self) -> None:
        """A byte now and then is not."""
        reading = self.read()
        self.clock.advance(1.5)
        self.response.protocol.dataReceived(b"0")
        self.clock.advance(0.5)
        self.failureResultOf(reading, UpstreamTimeout)

    def test_cancel(self) -> None:
        """Cancelling breaks the connection."""
        reading = self.read()
        reading.cancel()
        self.failureResultOf(reading, CancelledError)
        self.assertTrue(self.response.transport.aborted)


class BodyReaderTests(SynchronousTestCase):
    """:class:`BodyReader` as a producer."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.response = FakeResponse()
        self.received: list[bytes] = []
        self.reader = BodyReader(self.received.append, self.clock, 60)
        self.response.deliverBody(self.reader)

    def test_paused(self) -> None:
        """While the consumer is busy, time does not run against the upstream."""
        self.reader.pauseProducing()
        self.assertEqual(self.response.transport.producerState, "paused")
        self.clock.advance(1000)
        self.reader.resumeProducing()
        self.assertEqual(self.response.transport.producerState, "producing")
        self.clock.advance(59)
        self.assertNoResult(self.reader.done)
        self.clock.advance(1)
        self.failureResultOf(self.reader.done, UpstreamTimeout)

    def test_consumer_gone(self) -> None:
        """Then nobody needs the rest; late calls of the consumer do no harm."""
        self.reader.stopProducing()
        self.failureResultOf(self.reader.done, CancelledError)
        self.assertTrue(self.response.transport.aborted)
        self.reader.resumeProducing()
        self.reader.pauseProducing()
        self.reader.stopProducing()
        self.assertEqual(self.response.transport.producerState, "producing")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_receiver_fails(self) -> None:
        """The receiver's exception is the result."""
        response = FakeResponse()
        nothing: dict[bytes, bytes] = {}
        reader = BodyReader(nothing.__getitem__, self.clock, 60)
        response.deliverBody(reader)
        reader.dataReceived(b"x")
        self.failureResultOf(reader.done, KeyError)
        self.assertTrue(response.transport.aborted)
        self.reader.stopProducing()
        self.failureResultOf(self.reader.done, CancelledError)


class MeasuredTests(SynchronousTestCase):
    """:class:`Measured`: what a body was is counted once, whoever reads it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.figures = Figures(self.clock.seconds)
        self.fake = FakeResponse()
        self.response = Measured(self.fake, self.figures)

    def test_interface(self) -> None:
        verifyObject(IResponse, self.response)
        self.assertEqual((self.response.code, self.response.phrase), (200, b"OK"))

    def read(self) -> Deferred[bytes]:
        return Deferred.fromCoroutine(read(self.response, 10, LIMITS, self.clock))

    def test_bytes(self) -> None:
        """As they come."""
        reading = self.read()
        self.fake.protocol.dataReceived(b"01234")
        self.assertEqual(self.figures.bytes, 5)
        self.fake.protocol.dataReceived(b"56789")
        self.fake.end()
        self.assertEqual(self.successResultOf(reading), b"0123456789")
        self.assertEqual((self.figures.bytes, self.figures.errors), (10, {}))

    def test_failures(self) -> None:
        reading = self.read()
        self.fake.end(ResponseFailed([]))
        self.failureResultOf(reading, BodyIncomplete)
        reading = self.read()
        self.clock.advance(60)
        self.failureResultOf(reading, UpstreamTimeout)
        self.assertEqual(self.figures.errors, {"incomplete": 1, "timeout": 1})

    def test_given_up(self) -> None:
        """That is nobody's fault but the reader's."""
        reading = self.read()
        reading.cancel()
        self.failureResultOf(reading, CancelledError)
        discard(self.response)
        self.assertEqual(self.figures.errors, {})

    def test_drain(self) -> None:
        """What nobody reads may be as slow as it likes."""
        draining = Deferred.fromCoroutine(drain(self.response, self.clock))
        self.fake.protocol.dataReceived(b"0")
        self.clock.advance(2)
        self.successResultOf(draining)
        self.assertEqual((self.figures.bytes, self.figures.errors), (0, {}))


class DiscardTests(SynchronousTestCase):
    """:func:`discard` and :func:`drain`."""

    def setUp(self) -> None:
        self.clock = Clock()

    def test_discard(self) -> None:
        """The connection is broken at once."""
        response = FakeResponse()
        discard(response)
        self.assertTrue(response.transport.aborted)

    def test_discard_without_abort(self) -> None:
        """A transport that cannot break its connection closes it."""
        response = FakeResponse()
        response.transport = StringTransport()  # type: ignore[assignment]  # the point here
        discard(response)
        self.assertTrue(response.transport.disconnecting)

    def test_drain_short(self) -> None:
        """A short body is read to its end, and the connection stays."""
        response = FakeResponse(4)
        draining = Deferred.fromCoroutine(drain(response, self.clock))
        response.protocol.dataReceived(b"1234")
        self.assertNoResult(draining)
        response.end()
        self.successResultOf(draining)
        self.assertFalse(response.transport.aborted)

    def test_drain_long(self) -> None:
        """A long one is not."""
        response = FakeResponse(1 << 20)
        self.successResultOf(Deferred.fromCoroutine(drain(response, self.clock)))
        self.assertTrue(response.transport.aborted)

    def test_drain_endless(self) -> None:
        """Nor one that turns out to be long, or slow; neither is an error."""
        response = FakeResponse()
        draining = Deferred.fromCoroutine(drain(response, self.clock))
        response.protocol.dataReceived(bytes(1 << 20))
        self.successResultOf(draining)
        self.assertTrue(response.transport.aborted)
        slow = FakeResponse(4)
        draining = Deferred.fromCoroutine(drain(slow, self.clock))
        self.clock.advance(2)
        self.successResultOf(draining)
        self.assertTrue(slow.transport.aborted)


@implementer(IBodyProducer)
class FakeBody:
    """Notes what is asked of it."""

    length = 7

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.done: Deferred[None] = Deferred()

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        self.consumer = consumer
        return self.done

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


class WatchedBodyTests(SynchronousTestCase):
    """:class:`WatchedBody`: the deadline runs while the server does not take the body."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.body = FakeBody()
        self.deadline = Deadline(self.clock, lambda: None)
        self.deadline.within(10)
        self.watched = WatchedBody(self.body, self.deadline, 60, 25)

    def test_deadline(self) -> None:
        """First while the server is behind, at one time; then for the answer."""
        self.watched.startProducing(StringTransport())
        # The body does not come: that is not the server's fault.
        self.clock.advance(1000)
        for _ in range(3):
            self.watched.pauseProducing()
            self.clock.advance(59)
            self.watched.resumeProducing()
        self.clock.advance(1000)
        self.body.done.callback(None)
        self.clock.advance(24)
        self.assertFalse(self.deadline.passed)
        self.clock.advance(1)
        self.assertTrue(self.deadline.passed)

    def test_stalled(self) -> None:
        self.watched.startProducing(StringTransport())
        self.watched.pauseProducing()
        self.clock.advance(60)
        self.assertTrue(self.deadline.passed)

    def test_stopped(self) -> None:
        """The server has begun to answer: it has the time for an answer."""
        self.watched.startProducing(StringTransport())
        self.watched.stopProducing()
        self.clock.advance(25)
        self.assertTrue(self.deadline.passed)

    def test_is_the_body(self) -> None:
        """Length, consumer and control are passed on."""
        transport = StringTransport()
        self.assertEqual(self.watched.length, 7)
        self.watched.startProducing(transport)
        self.assertIs(self.body.consumer, transport)
        self.watched.pauseProducing()
        self.watched.resumeProducing()
        self.watched.stopProducing()
        self.assertEqual(self.body.calls, ["pause", "resume", "stop"])
