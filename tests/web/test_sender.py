from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from regproxy.web import sender
from regproxy.web.sender import Buffered, Gate, send
from tests.support.blobs import MemoryBlob

CONTENT = bytes(range(200))


class MemoryConsumer:
    """A client that takes *room* bytes before it is behind."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.taken: list[bytes] = []
        self.room = room
        self.producer: IPushProducer | None = None
        self.most = 0

    @property
    def data(self) -> bytes:
        return b"".join(self.taken)

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        assert self.producer is None and streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        assert self.producer is not None
        self.producer = None

    def write(self, data: bytes) -> None:
        assert self.producer is not None
        self.taken.append(data)
        self.most = max(self.most, len(data))
        self.room -= len(data)
        if self.room <= 0:
            self.producer.pauseProducing()

    def take(self, room: int) -> None:
        """Take *room* bytes more."""
        self.room = room
        if self.producer is not None:
            self.producer.resumeProducing()

    def leave(self) -> None:
        """The connection is gone."""
        assert self.producer is not None
        self.producer.stopProducing()


class SendTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(sender, "SLICE", 64)
        self.consumer = MemoryConsumer()

    def send(self, blob: MemoryBlob, start: int = 0, end: int | None = None) -> Deferred[None]:
        coroutine: Coroutine[Any, Any, None] = send(
            lambda: Buffered(self.consumer), blob, start, end
        )
        return ensureDeferred(coroutine)

    def test_whole_content(self) -> None:
        self.successResultOf(self.send(MemoryBlob.whole(CONTENT), 0, len(CONTENT)))
        self.assertEqual(self.consumer.data, CONTENT)
        self.assertEqual(self.consumer.most, 64)
        self.assertIsNone(self.consumer.producer)

    def test_part(self) -> None:
        self.successResultOf(self.send(MemoryBlob.whole(CONTENT), 10, 20))
        self.assertEqual(self.consumer.data, CONTENT[10:20])

    def test_nothing(self) -> None:
        for start, end in ((10, 10), (200, None), (300, 200), (300, None)):
            self.successResultOf(self.send(MemoryBlob.whole(CONTENT), start, end))
        self.assertEqual(self.consumer.data, b"")

    def test_first_byte_at_once(self) -> None:
        blob = MemoryBlob(CONTENT, size=len(CONTENT))
        sending = self.send(blob, 0, len(CONTENT))
        blob.arrive(1)
        self.assertEqual(self.consumer.data, CONTENT[:1])
        blob.verify()
        self.successResultOf(sending)

    def test_last_byte_is_held_back(self) -> None:
        blob = MemoryBlob(CONTENT, size=len(CONTENT))
        sending = self.send(blob, 0, len(CONTENT))
        blob.arrive(len(CONTENT))
        self.assertEqual(self.consumer.data, CONTENT[:-1])
        self.assertNoResult(sending)
        blob.verify()
        self.successResultOf(sending)
        self.assertEqual(self.consumer.data, CONTENT)

    def test_last_byte_of_a_part_is_held_back(self) -> None:
        """A client asks for a layer in parts: each is a complete response."""
        blob = MemoryBlob(CONTENT, arrived=150, size=len(CONTENT))
        sending = self.send(blob, 10, 20)
        self.assertEqual(self.consumer.data, CONTENT[10:19])
        blob.verify()
        self.successResultOf(sending)
        self.assertEqual(self.consumer.data, CONTENT[10:20])

    def test_unknown_length(self) -> None:
        """The response's end is what is held back."""
        blob = MemoryBlob(CONTENT)
        sending = self.send(blob)
        blob.arrive(len(CONTENT))
        self.assertEqual(self.consumer.data, CONTENT)
        self.assertNoResult(sending)
        blob.verify()
        self.successResultOf(sending)

    def test_fails_on_the_way(self) -> None:
        for size in (None, len(CONTENT)):
            self.consumer = MemoryConsumer()
            blob = MemoryBlob(CONTENT, size=size)
            sending = self.send(blob, 0, size)
            blob.arrive(len(CONTENT))
            blob.fail(KeyError())
            self.failureResultOf(sending, KeyError)
            self.assertIsNone(self.consumer.producer)

    def test_file_is_shorter_than_it_was(self) -> None:
        blob = MemoryBlob.whole(CONTENT)
        blob.slow = []
        blob.read = lambda offset, length: ensureDeferred(nothing())  # type: ignore[method-assign]
        self.failureResultOf(self.send(blob, 0, len(CONTENT)), OSError)
        self.assertIsNone(self.consumer.producer)

    def test_content_is_shorter_than_was_said(self) -> None:
        """Nothing will change any more: to wait would be to wait for ever."""
        self.failureResultOf(self.send(MemoryBlob.whole(CONTENT), 0, len(CONTENT) + 1), OSError)
        self.assertEqual(self.consumer.data, CONTENT)
        self.assertIsNone(self.consumer.producer)

    def test_says_what_it_waits_for(self) -> None:
        blob = MemoryBlob(CONTENT, arrived=5, size=len(CONTENT))
        self.send(blob, 2, 20)
        self.assertEqual(blob.wanted, [(5, 20)])

    def test_consumer_is_behind(self) -> None:
        self.consumer.room = 1
        sending = self.send(MemoryBlob.whole(CONTENT), 0, len(CONTENT))
        self.assertEqual(self.consumer.data, CONTENT[:64])
        self.consumer.take(65)
        self.assertEqual(self.consumer.data, CONTENT[:192])
        self.assertNoResult(sending)
        self.consumer.take(100)
        self.successResultOf(sending)

    def test_consumer_leaves_while_it_is_behind(self) -> None:
        self.consumer.room = 1
        sending = self.send(MemoryBlob.whole(CONTENT), 0, len(CONTENT))
        self.consumer.leave()
        self.failureResultOf(sending, ConnectionAborted)

    def test_consumer_leaves_while_nothing_comes(self) -> None:
        blob = MemoryBlob(CONTENT, arrived=10, size=len(CONTENT))
        sending = self.send(blob, 0, len(CONTENT))
        self.consumer.leave()
        blob.arrive(10)
        self.failureResultOf(sending, ConnectionAborted)
        self.assertEqual(self.consumer.data, CONTENT[:10])

    def test_consumer_leaves_during_a_read(self) -> None:
        blob = MemoryBlob.whole(CONTENT)
        blob.slow = []
        sending = self.send(blob, 0, len(CONTENT))
        self.consumer.leave()
        reading, data = blob.slow.pop()
        reading.callback(data)
        self.failureResultOf(sending, ConnectionAborted)

    def test_cancelled_at_each_wait(self) -> None:
        arriving = MemoryBlob(CONTENT, size=len(CONTENT))
        slow = MemoryBlob.whole(CONTENT)
        slow.slow = []
        for room, blob in ((1000, arriving), (1000, slow), (1, MemoryBlob.whole(CONTENT))):
            self.consumer = MemoryConsumer(room)
            sending = self.send(blob, 0, len(CONTENT))
            sending.cancel()
            self.failureResultOf(sending, CancelledError)
            self.assertIsNone(self.consumer.producer)
            blob.verify()

    def test_consumer_was_gone_before(self) -> None:
        class Gone(MemoryConsumer):
            def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
                super().registerProducer(producer, streaming)
                producer.stopProducing()

        self.consumer = Gone()
        sending = self.send(MemoryBlob.whole(CONTENT), 0, len(CONTENT))
        self.failureResultOf(sending, ConnectionAborted)
        self.assertEqual(self.consumer.data, b"")

    @given(
        st.binary(min_size=1, max_size=300),
        st.booleans(),
        st.sampled_from(["verify", "fail", "leave"]),
        st.lists(st.tuples(st.sampled_from(["arrive", "take", "read"]), st.integers(1, 90))),
        st.data(),
    )
    def test_every_order(
        self,
        content: bytes,
        announced: bool,
        end: str,
        steps: list[tuple[str, int]],
        data: st.DataObject,
    ) -> None:
        """Whatever comes when: complete means right, and incomplete is not complete."""
        consumer = self.consumer = MemoryConsumer(data.draw(st.integers(1, 100)))
        blob = MemoryBlob(content, size=len(content) if announced else None)
        blob.slow = []
        start = data.draw(st.integers(0, len(content)))
        stop = data.draw(st.integers(start, len(content))) if announced else None
        results: list[object] = []
        sending = self.send(blob, start, stop).addBoth(results.append)
        expected = content[start:stop]

        def read() -> None:
            assert blob.slow is not None
            while blob.slow:
                waiting, chunk = blob.slow.pop()
                waiting.callback(chunk)

        for step, count in steps:
            if step == "arrive":
                blob.arrive(count)
            elif step == "take":
                consumer.take(count)
            else:
                read()
            self.assertTrue(expected.startswith(consumer.data))
            if announced and expected:
                self.assertLess(len(consumer.data), len(expected))
        if end == "leave" and consumer.producer is None:
            sending.cancel()
        elif end == "leave":
            consumer.leave()
        elif end == "fail":
            blob.fail(KeyError())
        else:
            blob.verify()
        for _ in range(len(content) + 1):
            read()
            consumer.take(1000)
        if end == "leave":
            blob.verify()
        (result,) = results
        if end == "verify":
            self.assertIsNone(result)
            self.assertEqual(consumer.data, expected)
        else:
            assert isinstance(result, Failure)
            result.trap(KeyError, ConnectionAborted, CancelledError)
            self.assertTrue(expected.startswith(consumer.data))
        self.assertIsNone(consumer.producer)


async def nothing() -> bytes:
    return b""


class GateTests(SynchronousTestCase):
    def test_open_from_the_start(self) -> None:
        self.successResultOf(Gate().opened())

    def test_closed_while_paused(self) -> None:
        gate = Gate()
        gate.pauseProducing()
        opened = gate.opened()
        self.assertNoResult(opened)
        gate.resumeProducing()
        self.successResultOf(opened)
        gate.resumeProducing()

    def test_waiter_that_left(self) -> None:
        gate = Gate()
        gate.pauseProducing()
        opened = gate.opened()
        opened.cancel()
        self.failureResultOf(opened, CancelledError)
        gate.resumeProducing()
        self.successResultOf(gate.opened())

    def test_gone(self) -> None:
        gate = Gate()
        gate.stopProducing()
        gate.resumeProducing()
        self.failureResultOf(gate.opened(), ConnectionAborted)
