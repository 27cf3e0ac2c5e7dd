"""Tests for :mod:`regproxy.registry.straight`."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from regproxy.interfaces import IBlob
from regproxy.oci.names import Digest
from regproxy.registry.straight import HIGH, FallbackBlob, MemoryBlob, StraightBlob
from regproxy.store.errors import DigestMismatch, DiskFailed
from regproxy.upstream.errors import BodyIncomplete, UpstreamTimeout, UpstreamUnreachable
from tests.support.upstream import FakeResponse, Reply

CONTENT = bytes(range(200))
IDLE = 60.0


class StraightCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def straight(
        self, content: bytes = CONTENT, length: int | None = None
    ) -> tuple[FakeResponse, StraightBlob]:
        """A response that is still to come, and the content that it is to be."""
        size = len(content) if length is None else length
        response = FakeResponse(b"GET", Reply(body=None, length=size))
        return response, StraightBlob(response, Digest.of(content), self.clock, IDLE)

    def read(self, blob: IBlob, offset: int) -> bytes:
        """What can be read at *offset*."""
        data: bytes = self.successResultOf(blob.read(offset, blob.readable(offset)))
        return data


class StraightBlobTests(StraightCase):
    """StraightBlob"""

    def test_interface(self) -> None:
        _, blob = self.straight()
        self.assertTrue(verifyObject(IBlob, blob))
        blob.close()

    def test_in_order(self) -> None:
        """Bytes are there as they come; they count as right when all have come."""
        response, blob = self.straight()
        waiting = blob.when_readable(0, None)
        self.assertNoResult(waiting)
        response.send(CONTENT[:50])
        self.successResultOf(waiting)
        self.assertEqual(self.read(blob, 0), CONTENT[:50])
        self.assertEqual(blob.readable(50), 0)
        waiting = blob.when_readable(50, None)
        response.send(CONTENT[50:])
        self.successResultOf(waiting)
        self.assertFalse(blob.verified)
        response.end()
        self.assertTrue(blob.verified)
        self.assertEqual(self.read(blob, 50), CONTENT[50:])
        self.successResultOf(blob.when_readable(200, None))
        blob.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_part(self) -> None:
        """What is outside of the part is hashed and dropped."""
        response, blob = self.straight()
        waiting = blob.when_readable(60, 90)
        response.send(CONTENT[:50])
        response.send(CONTENT[50:70])
        self.successResultOf(waiting)
        self.assertEqual(self.read(blob, 60), CONTENT[60:70])
        response.send(CONTENT[70:])
        response.end()
        self.assertEqual(self.read(blob, 70), CONTENT[70:90])
        self.assertTrue(blob.verified)
        blob.close()

    def test_unknown_length(self) -> None:
        response, blob = self.straight(length=-1)
        self.assertIsNone(blob.size)
        waiting = blob.when_readable(0, None)
        response.send(CONTENT)
        response.end()
        self.successResultOf(waiting)
        self.assertEqual(blob.size, len(CONTENT))
        blob.close()

    def test_wrong(self) -> None:
        """It never counts as right, and nothing more of it can be read."""
        response, blob = self.straight()
        blob.when_readable(0, None)
        response.send(bytes(200))
        response.end()
        self.assertFalse(blob.verified)
        self.assertEqual(blob.readable(0), 0)
        self.failureResultOf(blob.when_readable(0, None), DigestMismatch)
        blob.close()

    def test_breaks_off(self) -> None:
        response, blob = self.straight()
        waiting = blob.when_readable(0, None)
        response.break_off()
        self.failureResultOf(waiting, BodyIncomplete)
        blob.close()

    def test_stalls(self) -> None:
        response, blob = self.straight()
        waiting = blob.when_readable(0, None)
        self.clock.advance(IDLE)
        self.failureResultOf(waiting, UpstreamTimeout)
        self.assertTrue(response.aborted)
        blob.close()

    def test_slow_client(self) -> None:
        """Upstream waits for it, and its time does not run meanwhile."""
        content = bytes(2 * HIGH)
        response, blob = self.straight(content)
        blob.when_readable(0, None)
        response.send(content)
        self.assertTrue(response.paused)
        self.clock.advance(2 * IDLE)
        self.assertEqual(self.read(blob, 0), content)
        self.assertFalse(response.paused)
        response.end()
        self.assertTrue(blob.verified)
        blob.close()

    def test_closed(self) -> None:
        """Upstream is let go, whether anything was read or not."""
        for begun in False, True:
            response, blob = self.straight()
            waiting = blob.when_readable(0, None) if begun else None
            blob.close()
            if waiting is not None:
                self.failureResultOf(waiting, CancelledError)
            self.assertTrue(response.aborted)
            self.assertEqual(self.clock.getDelayedCalls(), [])


class _Failing(StraightBlob):
    """Content of the store, until the disk fails."""

    closed = False

    def when_readable(self, offset: int, end: int | None) -> Deferred[None]:
        return fail(DiskFailed("disk full"))

    def close(self) -> None:
        self.closed = True
        super().close()


class FallbackBlobTests(StraightCase):
    """FallbackBlob"""

    def setUp(self) -> None:
        super().setUp()
        response, _ = self.straight()
        self.stored = _Failing(response, Digest.of(CONTENT), self.clock, IDLE)
        self.response, self.other = self.straight()

    async def straightway(self) -> IBlob:
        blob: IBlob = self.other
        return blob

    def test_changes_over(self) -> None:
        """After the disk failed the rest comes from upstream, from where the reader is."""
        blob = FallbackBlob(self.stored, self.straightway, None)
        self.assertTrue(verifyObject(IBlob, blob))
        self.successResultOf(blob.when_readable(100, None))
        self.assertTrue(self.stored.closed)
        waiting = blob.when_readable(100, None)
        self.response.send(CONTENT)
        self.successResultOf(waiting)
        self.assertEqual(self.read(blob, 100), CONTENT[100:])
        self.assertFalse(blob.verified)
        self.response.end()
        self.assertTrue(blob.verified)
        blob.close()

    def test_upstream_fails_too(self) -> None:
        async def unreachable() -> IBlob:
            raise UpstreamUnreachable("down")

        blob = FallbackBlob(self.stored, unreachable, None)
        self.failureResultOf(blob.when_readable(0, None), UpstreamUnreachable)
        blob.close()
        self.assertTrue(self.stored.closed)
        self.other.close()

    def test_other_failures(self) -> None:
        """What is not the disk's fault would be no better the second time."""
        blob = FallbackBlob(self.other, self.straightway, None)
        waiting = blob.when_readable(0, None)
        self.response.break_off()
        self.failureResultOf(waiting, BodyIncomplete)
        blob.close()
        self.stored.close()


class MemoryBlobTests(StraightCase):
    """MemoryBlob"""

    def test_read(self) -> None:
        blob = MemoryBlob(Digest.of(CONTENT), CONTENT)
        self.assertTrue(verifyObject(IBlob, blob))
        self.assertEqual((blob.size, blob.verified), (len(CONTENT), True))
        self.assertEqual(self.read(blob, 0), CONTENT)
        self.assertEqual(self.read(blob, 150), CONTENT[150:])
        self.assertEqual(blob.readable(len(CONTENT) + 1), 0)
        self.successResultOf(blob.when_readable(0, None))
        blob.close()
