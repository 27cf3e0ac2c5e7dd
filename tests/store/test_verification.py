from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from functools import partial

from twisted.internet.defer import Deferred, ensureDeferred, fail, succeed
from twisted.internet.interfaces import IPushProducer
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from regproxy.oci.names import Digest
from regproxy.policy.integrity import ContentRecord
from regproxy.store import verification as verification_module
from regproxy.store.disk import Workers
from regproxy.store.errors import Damaged, IndexFailed
from regproxy.store.store import StoredBlob
from regproxy.web.sender import Buffered, send
from tests.support.caches import CacheCase
from tests.support.descriptors import open_below
from tests.support.workers import Later

CONTENT = bytes(range(256)) * 4
DAMAGED = CONTENT[:500] + b"?" + CONTENT[501:]


class Taker:
    """A client that takes everything."""

    def __init__(self) -> None:
        self.data = b""

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        pass

    def unregisterProducer(self) -> None:
        pass

    def write(self, data: bytes) -> None:
        self.data += data


class VerificationCase(CacheCase):
    def setUp(self) -> None:
        super().setUp()
        self.verification = self.store.verification
        self.verification.period = 100.0
        self.patch(verification_module, "STEP", 300)
        self.patch(verification_module, "_READ", 200)

    def tearDown(self) -> None:
        self.assertEqual(open_below(self.root / "blobs"), [])

    def damage(self, digest: Digest, content: bytes = DAMAGED, *, noticed: bool = True) -> None:
        """Write other bytes into the file; the file system tells, or does not."""
        path = self.directory.path(digest)
        path.write_bytes(content)
        record = self.index.content(digest)
        if not noticed and record is not None:
            changed = path.stat().st_ctime_ns
            self.index.put_content(
                ContentRecord(
                    digest,
                    record.size,
                    record.stored_at,
                    record.last_access,
                    record.verified_at,
                    changed,
                )
            )

    def check_condemned(self, *digests: Digest) -> None:
        """They are not here any more, whoever asks."""
        for digest in digests:
            self.assertFalse(self.store.has(digest))
            self.assertIsNone(self.store.open(digest))
            self.assertIsNone(self.index.content(digest))
        names = [f"{each.algorithm}-{each.hex[:2]}-{each.hex}" for each in digests]
        self.assertEqual(self.quarantine(), sorted(names))
        self.assertEqual(self.verification.quarantined, len(digests))


class ServedTests(VerificationCase):
    """A file that is to be served."""

    def serve(self, blob: StoredBlob, start: int = 0, end: int | None = None) -> bytes:
        """What a client gets, or the first part of it."""
        taker = Taker()
        sending = ensureDeferred(send(lambda: Buffered(taker), blob, start, end or blob.size))
        sending.addErrback(Failure.trap, Damaged)
        self.successResultOf(sending)
        blob.close()
        return taker.data

    def test_right(self) -> None:
        """What was verified lately is not read."""
        for algorithm in ("sha256", "sha512"):
            blob = self.open(self.put(CONTENT, algorithm))
            self.assertTrue(blob.verified)
            self.assertEqual(self.serve(blob), CONTENT)

    def test_changed(self) -> None:
        """It is cut before its end, and goes."""
        digest = self.put(CONTENT)
        self.damage(digest)
        with capturedLogs() as events:
            blob = self.open(digest)
            self.assertFalse(blob.verified)
            self.assertEqual(self.serve(blob), DAMAGED[:-1])
        (event,) = events
        self.assertEqual((event["log_level"].name, event["digest"]), ("error", str(digest)))
        self.check_condemned(digest)

    def test_touched(self) -> None:
        """It was changed, but not in what it is: it is known again."""
        digest = self.put(CONTENT)
        os.utime(self.directory.path(digest))
        self.assertEqual(self.serve(self.open(digest)), CONTENT)
        self.assertTrue(self.closed(digest).verified)

    def closed(self, digest: Digest) -> StoredBlob:
        blob = self.open(digest)
        blob.close()
        return blob

    def test_due(self) -> None:
        """What the disk has changed shows when it is verified again."""
        digest = self.put(CONTENT)
        self.damage(digest, noticed=False)
        self.time += 100.0
        self.assertTrue(self.closed(digest).verified)
        self.time += 0.1
        self.assertEqual(self.serve(self.open(digest)), DAMAGED[:-1])
        self.check_condemned(digest)

    def test_index_is_asked_once(self) -> None:
        """About a file that stays what it is, and as long as it is not due."""
        asked: list[Digest] = []
        look_up = self.index.content

        def content(digest: Digest) -> ContentRecord | None:
            asked.append(digest)
            return look_up(digest)

        one = self.put(CONTENT)
        self.patch(self.index, "content", content)
        for _ in range(2):
            self.assertTrue(self.closed(one).verified)
        self.assertEqual(asked, [one])
        self.time += 100.1
        self.serve(self.open(one))
        self.assertEqual(asked, [one] * 2)
        for _ in range(2):
            self.assertTrue(self.closed(one).verified)
        self.assertEqual(asked, [one] * 3)
        os.utime(self.directory.path(one))
        self.serve(self.open(one))
        self.assertEqual(asked, [one] * 4)
        # Of too many, all are forgotten.
        others = [self.put(CONTENT + b"!"), self.put(CONTENT + b"?")]
        self.patch(verification_module, "MAX_KNOWN", 2)
        for _ in range(2):
            for digest in others:
                self.closed(digest)
        self.assertEqual(asked[4:], [*others, others[0]])

    def test_never_due(self) -> None:
        self.verification.period = 0.0
        digest = self.put(CONTENT)
        self.time += 1e9
        self.assertTrue(self.closed(digest).verified)

    def test_unknown(self) -> None:
        """As after the index was lost."""
        digest = Digest.of(CONTENT)
        self.drop(digest, CONTENT)
        self.assertEqual(self.serve(self.open(digest)), CONTENT)
        self.assertTrue(self.closed(digest).verified)
        self.assertEqual(self.successResultOf(self.inventory.total()).bytes, len(CONTENT))

    def test_unknown_and_wrong(self) -> None:
        digest = Digest.of(CONTENT)
        self.drop(digest, DAMAGED)
        self.assertEqual(self.serve(self.open(digest)), DAMAGED[:-1])
        self.check_condemned(digest)

    def test_size(self) -> None:
        """Nobody is told of a wrong length: it is not here at once."""
        for content in (CONTENT[:-1], CONTENT + b"!", b""):
            digest = self.put(CONTENT)
            self.damage(digest, content)
            self.verification.quarantined = 0
            self.assertIsNone(self.store.open(digest))
            self.check_condemned(digest)

    def test_size_cannot_be_set_aside(self) -> None:
        """It is not served, nor taken for missing."""
        digest = self.put(CONTENT)
        self.damage(digest, b"")
        self.directory.quarantine.rmdir()
        self.directory.quarantine.write_text("in the way")
        self.assertRaises(OSError, self.store.open, digest)
        self.assertEqual(self.verification.quarantined, 0)

    def test_index_fails(self) -> None:
        """What cannot be looked up is read."""
        digest = self.put(CONTENT)

        def content(_: Digest) -> None:
            raise IndexFailed("broken")

        self.patch(self.index, "content", content)
        self.patch(self.inventory, "verified", lambda record: fail(IndexFailed("broken")))
        blob = self.open(digest)
        self.assertEqual(self.serve(blob), CONTENT)

    def test_bad_sector(self) -> None:
        """Nobody gets it from there any more."""
        digest = self.put(CONTENT)
        os.utime(self.directory.path(digest))

        def pread(*_: object) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

        self.patch(os, "pread", pread)
        self.open(digest).close()
        self.check_condemned(digest)

    def test_disk_fails(self) -> None:
        """Which says nothing about the content."""
        digest = self.put(CONTENT)
        os.utime(self.directory.path(digest))

        def pread(*_: object) -> bytes:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")

        self.patch(os, "pread", pread)
        blob = self.open(digest)
        self.failureResultOf(blob.when_readable(0, None), OSError)
        blob.close()
        self.assertEqual(self.quarantine(), [])
        self.assertTrue(self.store.has(digest))


class StepTests(VerificationCase):
    """One step of a worker after the other."""

    workers: Later

    def make_workers(self) -> Workers:
        return Later()

    def doubted(self, content: bytes = CONTENT) -> Digest:
        digest = Digest.of(CONTENT)
        self.drop(digest, content)
        return digest

    def test_last_byte(self) -> None:
        """It is held back until the end of the check."""
        for start, end in ((0, 1024), (10, 20), (1023, 1024)):
            taker = Taker()
            blob = self.open(self.doubted())
            sending = ensureDeferred(send(partial(Buffered, taker), blob, start, end))
            self.assertEqual(taker.data, CONTENT[start : end - 1])
            while not blob.verified:
                self.assertNoResult(sending)
                self.assertTrue(self.workers.step())
            self.successResultOf(sending)
            self.assertEqual(taker.data, CONTENT[start:end])
            blob.close()
            # And anew.
            self.inventory.forget(self.records())

    def test_cut(self) -> None:
        blob = self.open(self.doubted(DAMAGED))
        taker = Taker()
        sending = ensureDeferred(send(lambda: Buffered(taker), blob, 0, 1024))
        self.workers.all()
        self.failureResultOf(sending, Damaged)
        self.assertEqual(taker.data, DAMAGED[:-1])
        blob.close()
        self.check_condemned(blob.digest)

    def test_shared(self) -> None:
        """Several readers, one check. It goes on when they leave."""
        digest = self.doubted()
        first, second = self.open(digest), self.open(digest)
        self.assertEqual(len(self.workers), 1)
        waiting = [blob.when_readable(0, None) for blob in (first, second)]
        waiting[0].addErrback(lambda _: None).cancel()
        first.close()
        second.close()
        self.assertIn(digest, self.store.uses)
        self.workers.all()
        self.successResultOf(waiting[1])
        self.successResultOf(second.when_readable(0, None))
        self.successResultOf(self.store.flush_access_times())
        self.assertNotIn(digest, self.store.uses)
        self.assertTrue(self.open_and_close(digest).verified)

    def open_and_close(self, digest: Digest) -> StoredBlob:
        blob = self.open(digest)
        blob.close()
        return blob

    def test_read_fails(self) -> None:
        """After bytes that may be wrong nobody goes on with right ones from elsewhere."""
        digest = self.doubted()
        blob = self.open(digest)
        os.truncate(self.directory.path(digest), 100)
        reading = blob.read(100, 10)
        self.workers.all()
        self.failureResultOf(reading, Damaged)
        blob.close()

    def test_stored_anew_meanwhile(self) -> None:
        """The check was of another file: the new one stays, with its row."""
        blob = self.open(self.doubted(DAMAGED))
        self.workers.step()
        path = self.directory.path(blob.digest)
        path.rename(path.with_name("old"))
        self.put(CONTENT)
        waiting = blob.when_readable(0, None)
        self.workers.all()
        self.failureResultOf(waiting, Damaged)
        self.failureResultOf(blob.when_readable(0, None), Damaged)
        blob.close()
        self.assertEqual(self.verification.quarantined, 0)
        self.assertTrue(self.open_and_close(blob.digest).verified)

    def test_written_to_meanwhile(self) -> None:
        """The next reader checks anew."""
        digest = self.doubted()
        self.open_and_close(digest)
        self.workers.step()
        self.directory.path(digest).write_bytes(b"?" + CONTENT[1:])
        self.workers.all()
        self.assertFalse(self.open_and_close(digest).verified)
        self.workers.all()
        self.check_condemned(digest)


class PassTests(VerificationCase):
    """What is read without being asked for."""

    def setUp(self) -> None:
        super().setUp()
        self.paced: list[int] = []

    def pace(self, count: int) -> Deferred[None]:
        self.paced.append(count)
        return succeed(None)

    def damaged(self, contents: Iterable[bytes]) -> list[Digest]:
        digests = [self.put(content) for content in contents]
        for digest in digests:
            content = self.directory.path(digest).read_bytes()
            self.damage(digest, content[:-1] + b"?", noticed=False)
        return digests

    def test_one(self) -> None:
        right = self.put(CONTENT)
        self.time += 50.0
        self.assertTrue(self.finish(self.verification.verify(right)))
        record = self.index.content(right)
        assert record is not None
        self.assertEqual((record.verified_at, record.last_access), (1050.0, 1000.0))
        (wrong,) = self.damaged([b"one"])
        self.assertFalse(self.finish(self.verification.verify(wrong)))
        self.check_condemned(wrong)
        self.assertFalse(self.finish(self.verification.verify(wrong)))

    def test_due(self) -> None:
        """Longest ago first, and at the pace that is set."""
        old = self.damaged([b"one"])
        self.put(CONTENT)
        self.time += 50.0
        young = self.damaged([b"two"])
        self.time += 60.0
        self.finish(self.verification.verify_due(self.pace))
        self.check_condemned(*old)
        self.assertEqual(sorted(self.paced), [3, 124, 300, 300, 300])
        self.finish(self.verification.verify_due(self.pace))
        self.assertEqual(len(self.paced), 5)
        self.time += 60.0
        self.finish(self.verification.verify_due(self.pace))
        self.check_condemned(*old, *young)

    def test_never_due(self) -> None:
        self.verification.period = 0.0
        self.damaged([b"one"])
        self.time += 1e9
        self.finish(self.verification.verify_due(self.pace))
        self.assertEqual(self.paced, [])

    def test_all(self) -> None:
        digests = self.damaged([b"%d" % number for number in range(5)])
        self.time += 1.0
        self.finish(self.verification.verify_before(self.time))
        self.check_condemned(*digests)

    def test_told(self) -> None:
        """Of each, and of what was wrong with it."""
        self.put(CONTENT)
        (wrong,) = self.damaged([b"one"])
        self.time += 1.0
        told: dict[Digest, object] = {}

        def tell(record: ContentRecord, error: Exception | None) -> None:
            told[record.digest] = error

        self.finish(self.verification.verify_before(self.time, told=tell))
        self.assertIsInstance(told.pop(wrong), Damaged)
        self.assertEqual(told, {Digest.of(CONTENT): None})

    def test_adopted_first(self) -> None:
        """What nobody has looked into."""
        digest = Digest.of(CONTENT)
        self.inventory.adopt([ContentRecord(digest, len(CONTENT), 1.0, 1.0, 0.0, 0)])
        self.drop(digest, DAMAGED)
        self.finish(self.verification.verify_due(self.pace))
        self.check_condemned(digest)

    def test_gone(self) -> None:
        """A row without a file does not hold up the rest."""
        self.directory.path(self.put(b"gone")).unlink()
        digests = self.damaged([b"one"])
        self.time += 101.0
        self.finish(self.verification.verify_due(self.pace))
        self.check_condemned(*digests)

    def test_unreadable(self) -> None:
        """Nor does a file that cannot be opened."""
        unreadable = self.directory.path(self.put(b"unreadable"))
        digests = self.damaged([b"one"])
        real = os.open

        def refuse(path: object, *arguments: int) -> int:
            if path == str(unreadable):
                raise PermissionError(errno.EACCES, "Permission denied")
            return real(path, *arguments)  # type: ignore[arg-type]

        self.patch(os, "open", refuse)
        self.time += 101.0
        with capturedLogs() as events:
            self.finish(self.verification.verify_due(self.pace))
        self.assertIn("Permission denied", str([event.get("reason") for event in events]))
        self.assertEqual(self.verification.quarantined, len(digests))
