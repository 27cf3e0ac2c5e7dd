from __future__ import annotations

import errno
from datetime import UTC, datetime
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, fail
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from regproxy.management.blobs import Blobs, Pinned, UnknownBlob
from regproxy.management.paging import BadCursor
from regproxy.management.values import BlobValue
from regproxy.oci.errors import BadRequest
from regproxy.oci.names import Digest
from regproxy.store.disk import Workers
from regproxy.store.errors import (
    DigestMismatch,
    DiskFailed,
    FillFailed,
    SizeMismatch,
    StoreError,
)
from regproxy.store.fill import HIGH, Fill
from regproxy.store.removal import Removal
from regproxy.upstream.errors import UpstreamBroken
from regproxy.web.request_body import BodyBroken, RequestBody
from tests.support.caches import CacheCase
from tests.support.workers import Later


class BlobsCase(CacheCase):
    def setUp(self) -> None:
        super().setUp()
        self.part = Blobs(self.store, Removal(self.directory, self.inventory, self.workers))

    def fails(self, work: Any, error: type[Exception]) -> str:
        """The text of the error."""
        return str(self.failureResultOf(ensureDeferred(work), error).value)


class LookTests(BlobsCase):
    def test_value(self) -> None:
        digest = self.put(b"content")
        time = datetime.fromtimestamp(1000.0, UTC)
        value = BlobValue(str(digest), 7, time, time, time, pinned=False, brought_by=None)
        self.assertEqual(self.finish(self.part.blob(str(digest))), value)
        self.assertEqual(self.finish(self.part.blobs(limit=5)).items, (value,))

    def test_never_verified(self) -> None:
        """As what the index did not know."""
        digest = self.put(b"content")
        (record,) = self.records()
        self.successResultOf(self.inventory.forget([record]))
        self.drop(digest, b"content")
        self.successResultOf(self.inventory.adopt([type(record)(digest, 7, 1.0, 1.0, 0.0, 0)]))
        self.assertIs(self.finish(self.part.blob(str(digest))).verified_at, None)

    def test_pages(self) -> None:
        digests = sorted(str(self.put(b"%d" % number)) for number in range(5))
        found: list[str] = []
        cursor: str | None = None
        for _ in range(3):
            page = self.finish(self.part.blobs(limit=2, cursor=cursor))
            found += [each.digest for each in page.items]
            cursor = page.next
        self.assertEqual((found, cursor), (digests, None))
        self.fails(self.part.blobs(limit=2, cursor="something"), BadCursor)

    def test_unknown(self) -> None:
        digest = str(Digest.of(b"absent"))
        for work in self.part.blob, self.part.open, self.part.remove:
            self.fails(work(digest), UnknownBlob)
            self.fails(work("sha256:ab"), BadRequest)

    def test_content(self) -> None:
        blob = self.finish(self.part.open(str(self.put(b"content"))))
        self.assertEqual(self.successResultOf(blob.read(0, 100)), b"content")
        blob.close()

    def test_remove(self) -> None:
        digest = self.put(b"content")
        self.pin(digest)
        self.assertIn("unpin that first", self.fails(self.part.remove(str(digest)), Pinned))
        with self.subTest("not pinned"):
            other = self.put(b"other")
            self.finish(self.part.remove(str(other)))
            self.assertEqual((self.files(), self.rows()), ({digest}, {digest}))

    def test_nobody_waits(self) -> None:
        """File and row go together, though the client has left."""
        digest = self.put(b"content")
        workers = Later()
        part = Blobs(self.store, Removal(self.directory, self.inventory, workers))
        removing = ensureDeferred(part.remove(str(digest)))
        removing.cancel()
        self.failureResultOf(removing, CancelledError)
        workers.all()
        self.assertEqual((self.files(), self.rows()), (set(), set()))

    def test_cannot_be_removed(self) -> None:
        """Nobody is told that it is gone."""
        digest = self.put(b"content")
        path = self.directory.path(digest)
        path.unlink()
        path.mkdir()
        with capturedLogs() as events:
            text = self.fails(self.part.remove(str(digest)), StoreError)
        self.assertEqual(text, f"{digest} cannot be removed: the log says why")
        self.assertEqual([event["digest"] for event in events], [str(digest)])


class TakeTests(BlobsCase):
    """Content that is brought by hand."""

    CONTENT = bytes(range(256)) * 40

    def setUp(self) -> None:
        super().setUp()
        self.digest = Digest.of(self.CONTENT)
        self.transport = StringTransport()
        self.body = self.make_body(len(self.CONTENT))

    def make_body(self, length: int | None) -> RequestBody:
        transport: Any = self.transport
        return RequestBody(length, transport, Clock(), 60.0, lambda: None, lambda: None)

    def take(self, digest: Digest | None = None) -> Deferred[None]:
        return ensureDeferred(self.part.take(str(digest or self.digest), self.body))

    def send(self, content: bytes | None = None) -> None:
        """All of it comes, in pieces."""
        content = self.CONTENT if content is None else content
        for start in range(0, len(content), 1000):
            self.body.received(content[start : start + 1000])
        self.body.finished()

    def test_whole(self) -> None:
        taking = self.take()
        self.assertNoResult(taking)
        self.send()
        self.successResultOf(taking)
        self.assertEqual((self.files(), self.rows()), ({self.digest}, {self.digest}))

    def test_length_unknown(self) -> None:
        self.body = self.make_body(None)
        taking = self.take()
        self.send()
        self.successResultOf(taking)
        self.assertEqual(self.files(), {self.digest})

    def test_nothing_at_all(self) -> None:
        empty = Digest.of(b"")
        self.finish(self.part.take(str(empty), None))
        self.assertEqual(self.files(), {empty})
        self.fails(self.part.take(str(self.digest), None), DigestMismatch)

    def test_wrong(self) -> None:
        """Something else than its name says is kept nowhere."""
        taking = self.take()
        self.send(self.CONTENT[:-1] + b"x")
        self.failureResultOf(taking, DigestMismatch)
        self.assertEqual(self.files(), set())
        self.assertEqual(list(self.directory.fills.iterdir()), [])

    def test_too_long(self) -> None:
        """It is given up at once."""
        taking = self.take()
        self.body.received(self.CONTENT + b"more")
        self.failureResultOf(taking, SizeMismatch)
        self.assertEqual(list(self.directory.fills.iterdir()), [])

    def test_broken_off(self) -> None:
        taking = self.take()
        self.body.received(self.CONTENT[:1000])
        fill = self.store.filling(self.digest)
        assert fill is not None
        reader = fill.reader()
        reading = reader.when_readable(1000, None)
        self.body.abort("the client left")
        self.failureResultOf(taking, BodyBroken)
        # Who reads it meanwhile is told as of any other transfer.
        self.failureResultOf(reading, FillFailed)
        reader.close()
        self.assertEqual(list(self.directory.fills.iterdir()), [])

    def test_mistake(self) -> None:
        """The client is not blamed for it."""
        ends = []

        def break_(consumer: object) -> Deferred[None]:
            fill = self.store.filling(self.digest)
            assert fill is not None
            ends.append(fill.when_ended())
            return fail(ZeroDivisionError())

        self.patch(self.body, "startProducing", break_)
        self.failureResultOf(self.take(), ZeroDivisionError)
        told = self.failureResultOf(ends[0], FillFailed)
        self.assertIn("internal error", str(told.value))

    def test_cancelled(self) -> None:
        taking = self.take()
        self.body.received(self.CONTENT[:1000])
        taking.cancel()
        self.failureResultOf(taking, CancelledError)
        self.assertIs(self.store.filling(self.digest), None)
        self.assertEqual(list(self.directory.fills.iterdir()), [])

    def test_no_digest(self) -> None:
        self.fails(self.part.take("sha256:ab", self.body), BadRequest)

    def test_is_here(self) -> None:
        """It is not taken again, and the client may still be sending."""
        self.put(self.CONTENT)
        self.successResultOf(self.take())
        self.send()
        self.assertEqual(self.files(), {self.digest})

    def test_comes_from_elsewhere(self) -> None:
        """Somebody pulls it at this moment."""
        fill = self.finish(self.store.begin(self.digest, len(self.CONTENT)))
        taking = self.take()
        self.assertNoResult(taking)
        fill.write(0, self.CONTENT)
        self.successResultOf(taking)
        self.assertEqual(self.files(), {self.digest})

    def test_does_not_come_from_elsewhere(self) -> None:
        """Whatever is wrong there."""
        for error in DigestMismatch(self.digest, Digest.of(b"")), UpstreamBroken("it went away"):
            fill = self.finish(self.store.begin(self.digest, len(self.CONTENT)))
            self.body = self.make_body(len(self.CONTENT))
            taking = self.take()
            fill.fail(Failure(error))
            self.send()
            self.successResultOf(taking)
            self.assertEqual(self.files(), {self.digest})
            self.directory.path(self.digest).unlink()

    def test_another_client_leaves(self) -> None:
        """Who waited for what it brought brings it."""
        first, their_body = self.take(), self.body
        self.body = self.make_body(len(self.CONTENT))
        taking = self.take()
        their_body.received(self.CONTENT[:1000])
        their_body.abort("the client left")
        self.failureResultOf(first, BodyBroken)
        self.send()
        self.successResultOf(taking)
        self.assertEqual(self.files(), {self.digest})

    def test_read_while_it_comes(self) -> None:
        """By whoever may read it."""
        taking = self.take()
        fill = self.store.filling(self.digest)
        assert fill is not None
        reader = fill.reader()
        self.body.received(self.CONTENT[:1000])
        self.assertEqual(self.successResultOf(reader.read(0, 1000)), self.CONTENT[:1000])
        self.body.received(self.CONTENT[1000:])
        self.body.finished()
        self.successResultOf(taking)
        self.assertTrue(reader.verified)
        reader.close()

    def test_disk_full(self) -> None:
        async def full(*_: object) -> Fill:
            raise OSError(errno.ENOSPC, "no space left on device")

        self.patch(self.store, "begin", full)
        self.failureResultOf(self.take(), OSError)

    def test_disk_fails(self) -> None:
        """In the middle; the client need not send the rest."""

        def refuse(*_: object) -> None:
            raise OSError(errno.EIO, "input/output error")

        taking = self.take()
        fill = self.store.filling(self.digest)
        assert fill is not None
        self.patch(type(fill._partial), "write", refuse)
        self.body.received(self.CONTENT[:1000])
        self.flushLoggedErrors()
        self.failureResultOf(taking, DiskFailed)


class PaceTests(BlobsCase):
    """A disk that is behind."""

    def make_workers(self) -> Workers:
        self.later = Later()
        return self.later

    def test_client_waits(self) -> None:
        content = bytes(HIGH + 1)
        transport: Any = StringTransport()
        body = RequestBody(len(content) + 1, transport, Clock(), 60.0, lambda: None, lambda: None)
        taking = ensureDeferred(self.part.take(str(Digest.of(content + b"x")), body))
        self.later.all()
        body.received(content[:10])
        self.assertEqual(transport.producerState, "producing")
        body.received(content[10:])
        self.assertEqual(transport.producerState, "paused")
        self.later.all()
        self.assertEqual(transport.producerState, "producing")
        body.received(b"x")
        body.finished()
        self.later.all()
        self.successResultOf(taking)
