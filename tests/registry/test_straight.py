"""Tests for :mod:`regproxy.registry.straight`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import alsoProvides
from zope.interface.verify import verifyObject

from regproxy.config.model import LimitsSection
from regproxy.interfaces import IBlob, IMirrored
from regproxy.oci.names import Digest
from regproxy.registry.straight import HIGH, FallbackBlob, StraightBlob
from regproxy.store.errors import DigestMismatch, DiskFailed
from regproxy.upstream.errors import BodyIncomplete, UpstreamBroken, UpstreamTimeout
from regproxy.web import sender
from regproxy.web.sender import Buffered, send
from tests.support.blobs import MemoryBlob
from tests.support.upstream import FakeResponse, Reply

IDLE = 60.0
LIMITS = LimitsSection(upstream_idle=IDLE)
CONTENT = bytes(range(200))


class Taker:
    """A client that takes all."""

    def __init__(self) -> None:
        self.data = b""
        self.producer: IPushProducer | None = None

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def write(self, data: bytes) -> None:
        self.data += data


class StraightCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.prepare(CONTENT)

    def prepare(self, content: bytes, length: int | None = None) -> None:
        self.clock = Clock()
        self.response = FakeResponse(b"GET", Reply(body=None, length=length))
        self.straight = StraightBlob(self.response, Digest.of(content), self.clock, LIMITS)
        self.taker = Taker()

    def send(self, blob: IBlob, start: int = 0, end: int | None = None) -> Deferred[None]:
        return ensureDeferred(send(lambda: Buffered(self.taker), blob, start, end))

    def check_over(self) -> None:
        self.straight.close()
        self.assertTrue(self.response.ended)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class StraightBlobTests(StraightCase):
    def test_interface(self) -> None:
        verifyObject(IBlob, self.straight)
        self.check_over()

    def test_whole(self) -> None:
        """The last byte is held back, and waiting for it keeps nobody busy."""
        sending = self.send(self.straight, 0, 200)
        self.response.send(CONTENT[:100])
        self.assertEqual(self.taker.data, CONTENT[:100])
        self.response.send(CONTENT[100:])
        self.assertEqual(self.taker.data, CONTENT[:-1])
        self.response.end()
        self.successResultOf(sending)
        self.assertEqual((self.taker.data, self.straight.size), (CONTENT, 200))
        self.check_over()

    def test_body_that_is_here_already(self) -> None:
        """It comes while it is asked for."""
        self.response.send(CONTENT)
        self.response.end()
        self.successResultOf(self.send(self.straight, 10, 20))
        self.assertEqual(self.taker.data, CONTENT[10:20])
        self.check_over()

    def test_unknown_length(self) -> None:
        sending = self.send(self.straight)
        self.response.send(CONTENT)
        self.assertNoResult(sending)
        self.response.end()
        self.successResultOf(sending)
        self.check_over()

    def test_nobody_reads_it(self) -> None:
        self.straight.close()
        self.assertTrue(self.response.aborted)

    def test_reader_leaves(self) -> None:
        sending = self.send(self.straight, 0, 200)
        self.response.send(CONTENT[:100])
        sending.cancel()
        self.failureResultOf(sending)
        self.check_over()
        self.assertTrue(self.response.aborted)

    def check_fails(self, error: type[Exception], act: Callable[[], object]) -> None:
        self.prepare(CONTENT)
        sending = self.send(self.straight, 0, 200)
        self.response.send(CONTENT[:100])
        act()
        self.failureResultOf(sending, error)
        self.failureResultOf(self.straight.when_readable(199, 200), error)
        self.assertLess(len(self.taker.data), 200)
        self.check_over()

    def test_fails(self) -> None:
        def wrong() -> None:
            self.response.send(bytes(100))
            self.response.end()

        self.check_fails(DigestMismatch, wrong)
        self.check_fails(BodyIncomplete, lambda: self.response.break_off())
        self.check_fails(UpstreamTimeout, lambda: self.clock.advance(IDLE))

    def test_mirror(self) -> None:
        """It is told what was wrong with its answer."""

        def wrong() -> None:
            self.response.send(bytes(100))
            self.response.end()

        for act, error, is_wrong in (
            (wrong, DigestMismatch, True),
            (lambda: self.response.break_off(), BodyIncomplete, False),
        ):
            self.prepare(CONTENT)
            alsoProvides(self.response, IMirrored)
            sending = self.send(self.straight, 0, 200)
            self.response.send(CONTENT[:100])
            act()
            self.failureResultOf(sending, error)
            self.assertEqual([each for _, each in self.response.complaints], [is_wrong])
            self.check_over()

    def test_reader_of_a_mirror_leaves(self) -> None:
        """That is nobody's fault."""
        alsoProvides(self.response, IMirrored)
        sending = self.send(self.straight, 0, 200)
        self.response.send(CONTENT[:100])
        sending.cancel()
        self.failureResultOf(sending)
        self.straight.close()
        self.assertEqual(self.response.complaints, [])

    def test_shorter_than_was_said(self) -> None:
        """Though it is right: the client was told of more."""
        sending = self.send(self.straight, 0, 201)
        self.response.send(CONTENT)
        self.response.end()
        self.failureResultOf(sending, OSError)
        self.check_over()

    def test_slow_client(self) -> None:
        """Upstream waits for it, and is not held to its time."""
        content = bytes(3 * HIGH)
        self.prepare(content)
        sending = self.send(self.straight, 0, len(content))
        self.response.send(content[:65536])
        assert self.taker.producer is not None
        self.taker.producer.pauseProducing()
        for start in range(65536, len(content), 65536):
            self.response.send(content[start : start + 65536])
        self.assertTrue(self.response.paused)
        self.clock.advance(2 * IDLE)
        self.assertLessEqual(self.straight.readable(len(self.taker.data)), HIGH + 65536)
        self.taker.producer.resumeProducing()
        self.response.end()
        self.successResultOf(sending)
        self.assertEqual(self.taker.data, content)
        self.check_over()

    @given(st.binary(min_size=1, max_size=60), st.booleans(), st.data())
    def test_parts(self, content: bytes, right: bool, data: st.DataObject) -> None:
        """What is not asked for is hashed and dropped."""
        self.prepare(content if right else content + b"!")
        start = data.draw(st.integers(0, len(content) - 1))
        end = data.draw(st.integers(start + 1, len(content)))
        sending = self.send(self.straight, start, end)
        rest = content
        while rest:
            count = data.draw(st.integers(1, len(rest)))
            self.response.send(rest[:count])
            rest = rest[count:]
            self.assertLess(len(self.taker.data), end - start)
            self.assertTrue(content[start:end].startswith(self.taker.data))
        self.response.end()
        if right:
            self.successResultOf(sending)
            self.assertEqual(self.taker.data, content[start:end])
        else:
            self.failureResultOf(sending, DigestMismatch)
            self.assertEqual(self.taker.data, content[start : end - 1])
        self.check_over()


class FallbackBlobTests(StraightCase):
    def fallback(self, blob: IBlob, end: int | None = 200) -> FallbackBlob:
        self.asked = 0

        def straight() -> Awaitable[IBlob]:
            self.asked += 1
            return succeed(self.straight)

        return FallbackBlob(blob, straight, end)

    def serve(self, content: bytes = CONTENT) -> None:
        self.response.send(content)
        self.response.end()

    def test_interface(self) -> None:
        verifyObject(IBlob, self.fallback(MemoryBlob.whole(CONTENT)))

    def test_disk_holds(self) -> None:
        blob = MemoryBlob.whole(CONTENT)
        fallback = self.fallback(blob)
        self.successResultOf(self.send(fallback, 0, 200))
        fallback.close()
        self.assertEqual((self.taker.data, self.asked, blob.closed), (CONTENT, 0, True))

    def test_disk_fails_under_the_transfer(self) -> None:
        blob = MemoryBlob(CONTENT, arrived=50, size=200)
        fallback = self.fallback(blob)
        sending = self.send(fallback, 10, 200)
        self.assertEqual(self.taker.data, CONTENT[10:50])
        blob.fail(DiskFailed("full"))
        self.assertTrue(blob.closed)
        self.serve()
        self.successResultOf(sending)
        self.assertEqual((self.taker.data, self.asked), (CONTENT[10:], 1))
        fallback.close()
        self.check_over()

    def test_other_failures_are_passed_on(self) -> None:
        blob = MemoryBlob(CONTENT, size=200)
        sending = self.send(self.fallback(blob), 0, 200)
        blob.fail(UpstreamBroken("reset"))
        self.failureResultOf(sending, UpstreamBroken)
        self.assertEqual(self.asked, 0)

    def test_upstream_fails_too(self) -> None:
        blob = MemoryBlob(CONTENT, size=200)

        async def straight() -> IBlob:
            raise UpstreamBroken("reset")

        fallback = FallbackBlob(blob, straight, 200)
        sending = self.send(fallback, 0, 200)
        blob.fail(DiskFailed("full"))
        self.failureResultOf(sending, UpstreamBroken)
        fallback.close()
        self.assertTrue(blob.closed)

    def test_reader_leaves_while_upstream_is_asked(self) -> None:
        blob = MemoryBlob(CONTENT, size=200)
        asked: Deferred[IBlob] = Deferred()
        fallback = FallbackBlob(blob, lambda: asked, 200)
        sending = self.send(fallback, 0, 200)
        blob.fail(DiskFailed("full"))
        sending.cancel()
        self.failureResultOf(sending)
        fallback.close()
        self.assertTrue(blob.closed)

    def check_read_fails(self, start: int, end: int, first: int, right: bool) -> None:
        """Content that was whole cannot be read from *first* on."""
        self.prepare(CONTENT if right else CONTENT + b"!")
        blob = MemoryBlob.whole(CONTENT)
        blob.slow = []
        reads = iter([first - start])

        def read(offset: int, length: int) -> Deferred[bytes]:
            count = next(reads, 0)
            if not count:
                raise OSError("broken")
            return succeed(CONTENT[offset : offset + count])

        async def reading(offset: int, length: int) -> bytes:
            return await read(offset, length)

        blob.read = lambda offset, length: ensureDeferred(  # type: ignore[method-assign]
            reading(offset, length)
        )
        blob.digest = self.straight.digest
        fallback = self.fallback(blob, end)
        sending = self.send(fallback, start, end)
        for byte in CONTENT:
            self.response.send(bytes([byte]))
            self.assertLess(len(self.taker.data), end - start)
        self.response.end()
        if right:
            self.successResultOf(sending)
            self.assertEqual(self.taker.data, CONTENT[start:end])
        else:
            self.failureResultOf(sending, DigestMismatch)
            self.assertEqual(self.taker.data, CONTENT[start : end - 1])
        fallback.close()
        self.check_over()

    def test_disk_fails_under_a_read(self) -> None:
        """What was verified before is not any more: the last byte is held back again."""
        for start, end, first in ((0, 200, 0), (0, 200, 199), (10, 20, 15), (10, 11, 10)):
            for right in (True, False):
                self.check_read_fails(start, end, first, right)

    @given(st.data(), st.booleans())
    def test_every_change_over(self, data: st.DataObject, right: bool) -> None:
        start = data.draw(st.integers(0, 199))
        end = data.draw(st.integers(start + 1, 200))
        patch = self.patch(sender, "SLICE", data.draw(st.integers(1, 50)))
        try:
            self.check_read_fails(start, end, data.draw(st.integers(start, end - 1)), right)
        finally:
            patch.restore()
