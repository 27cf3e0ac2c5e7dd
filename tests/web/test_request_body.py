from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IConsumer, IProducer
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer
from zope.interface.verify import verifyObject

from regproxy.web.request_body import RATE, BodyBroken, RequestBody

STALL = 60.0


@implementer(IConsumer)
class Consumer:
    """Takes *room* bytes, then wants a pause."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.taken = b""
        self.room = room
        self.body: RequestBody

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        raise NotImplementedError

    def unregisterProducer(self) -> None:
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        self.taken += data
        self.room -= len(data)
        if self.room <= 0:
            self.body.pauseProducing()


class BodyCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.transport = StringTransport()
        self.events: list[str] = []
        self.body = self.make(None)

    def make(self, length: int | None) -> RequestBody:
        return RequestBody(
            length,
            self.transport,
            self.clock,
            STALL,
            lambda: self.events.append("wanted"),
            lambda: self.events.append("overdue"),
        )

    def start(self, room: int = 1 << 30) -> tuple[Consumer, Deferred[None]]:
        consumer = Consumer(room)
        consumer.body = self.body
        return consumer, self.body.startProducing(consumer)

    @property
    def reading(self) -> bool:
        return self.transport.producerState == "producing"


class ProducingTests(BodyCase):
    def test_interface(self) -> None:
        self.assertTrue(verifyObject(IBodyProducer, self.body))
        self.assertIs(self.body.length, UNKNOWN_LENGTH)
        self.assertEqual(self.make(7).length, 7)

    def test_as_it_arrives(self) -> None:
        consumer, producing = self.start()
        for number in range(3):
            self.body.received(b"%d" % number)
            self.assertEqual(len(consumer.taken), number + 1)
        self.assertNoResult(producing)
        self.body.finished()
        self.successResultOf(producing)
        self.assertEqual(consumer.taken, b"012")
        self.assertEqual(self.events, ["wanted"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nobody_takes_it_yet(self) -> None:
        """The client is not read from until somebody does."""
        self.assertTrue(self.reading)
        self.body.received(b"first")
        self.assertFalse(self.reading)
        # TLS delivers what it had read already.
        self.body.received(b" second")
        self.assertEqual(self.events, [])
        consumer, _ = self.start()
        self.assertEqual(consumer.taken, b"first second")
        self.assertTrue(self.reading)

    def test_whole_before_anybody_takes_it(self) -> None:
        """Then the client's leaving can be seen, and the next request come."""
        self.body.received(b"all")
        self.body.finished()
        self.assertTrue(self.reading)
        consumer, producing = self.start()
        self.successResultOf(producing)
        self.assertEqual(consumer.taken, b"all")

    def test_consumer_is_behind(self) -> None:
        consumer, producing = self.start(room=4)
        self.body.received(b"1234")
        self.assertFalse(self.reading)
        self.body.received(b"56")
        self.body.received(b"78")
        self.assertEqual(consumer.taken, b"1234")
        consumer.room = 2
        self.body.resumeProducing()
        self.assertEqual(consumer.taken, b"123456")
        self.assertFalse(self.reading)
        consumer.room = 10
        self.body.resumeProducing()
        self.assertEqual(consumer.taken, b"12345678")
        self.assertTrue(self.reading)
        self.body.finished()
        self.successResultOf(producing)

    def test_whole_while_the_consumer_is_behind(self) -> None:
        consumer, producing = self.start(room=1)
        self.body.received(b"1")
        self.body.received(b"2")
        self.body.finished()
        self.assertNoResult(producing)
        consumer.room = 10
        self.body.resumeProducing()
        self.successResultOf(producing)
        self.assertEqual(consumer.taken, b"12")

    def test_last_piece_pauses(self) -> None:
        """All is written: nothing has to be resumed for the end."""
        consumer, producing = self.start(room=1)
        self.body.received(b"1")
        self.body.finished()
        self.successResultOf(producing)
        self.assertTrue(self.reading)
        self.assertEqual(consumer.taken, b"1")

    @given(
        st.lists(st.one_of(st.binary(min_size=1, max_size=9), st.just("resume"))),
        st.integers(1, 20),
    )
    def test_every_order(self, steps: list[bytes | str], room: int) -> None:
        """Whoever is slow: every byte once, in order, and none while there is no room."""
        self.setUp()
        consumer, producing = self.start(room)
        sent = b""
        for step in steps:
            if isinstance(step, bytes):
                sent += step
                self.body.received(step)
            elif consumer.room <= 0:
                consumer.room = room
                self.body.resumeProducing()
            self.assertEqual(self.reading, consumer.room > 0)
            self.assertTrue(sent.startswith(consumer.taken))
        self.body.finished()
        while not producing.called:
            consumer.room = room
            self.body.resumeProducing()
        self.assertEqual(consumer.taken, sent)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class EndTests(BodyCase):
    """However it ends before its end, it must not look whole, and the client is read from."""

    def check_over(self, consumer: Consumer) -> None:
        taken = consumer.taken
        self.assertTrue(self.reading)
        self.body.received(b"more")
        self.body.finished()
        self.assertEqual(consumer.taken, taken)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_aborted(self) -> None:
        consumer, producing = self.start()
        self.body.received(b"some")
        self.body.abort("the client left")
        failure = self.failureResultOf(producing, BodyBroken)
        self.assertIn("left", failure.getErrorMessage())
        self.check_over(consumer)

    def test_aborted_while_the_consumer_is_behind(self) -> None:
        """What it has not taken yet, though all has come, it does not get."""
        consumer, producing = self.start(room=1)
        self.body.received(b"1")
        self.body.received(b"2")
        self.body.finished()
        self.body.abort("the client left")
        self.failureResultOf(producing, BodyBroken)
        self.body.resumeProducing()
        self.assertEqual(consumer.taken, b"1")

    def test_aborted_at_the_end(self) -> None:
        """It has been handed on whole: there is nothing to abort."""
        _, producing = self.start()
        self.body.finished()
        self.body.abort("the client left")
        self.successResultOf(producing)

    def test_started_after_the_end(self) -> None:
        self.body.received(b"some")
        self.body.abort("the client left")
        _, producing = self.start()
        self.failureResultOf(producing, BodyBroken)
        self.assertEqual(self.events, [])

    def test_stopped(self) -> None:
        """Nobody wants the rest: the Deferred does not fire, as the interface has it."""
        consumer, producing = self.start(room=1)
        self.body.received(b"1")
        self.body.received(b"2")
        self.body.stopProducing()
        self.assertNoResult(producing)
        self.check_over(consumer)
        self.assertNoResult(producing)

    def test_cancelled(self) -> None:
        consumer, producing = self.start()
        producing.cancel()
        self.failureResultOf(producing, CancelledError)
        self.check_over(consumer)


class StallTests(BodyCase):
    """The client has to send, while it can."""

    def setUp(self) -> None:
        super().setUp()
        self.consumer, _ = self.start(room=1 << 20)
        self.events.clear()

    def test_sends_nothing(self) -> None:
        self.clock.advance(STALL - 1)
        self.assertEqual(self.events, [])
        self.clock.advance(1)
        self.assertEqual(self.events, ["overdue"])

    def test_drips(self) -> None:
        for _ in range(int(STALL)):
            self.body.received(b"x" * (RATE - 1))
            self.clock.advance(1)
        self.assertEqual(self.events, ["overdue"])

    def test_slow(self) -> None:
        for _ in range(3 * int(STALL)):
            self.body.received(b"x" * RATE)
            self.clock.advance(1)
        self.assertEqual(self.events, [])

    def test_not_its_fault(self) -> None:
        """Time does not run while the consumer is behind, nor before there is one."""
        self.body.pauseProducing()
        self.clock.advance(10 * STALL)
        self.body.resumeProducing()
        self.clock.advance(STALL - 1)
        self.assertEqual(self.events, [])
        waiting = self.make(None)
        waiting.received(b"x")
        self.body.stopProducing()
        self.clock.advance(10 * STALL)
        self.assertEqual(self.events, [])
