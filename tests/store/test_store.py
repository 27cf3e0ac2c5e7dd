from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, fail
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from regproxy.interfaces import IBlob
from regproxy.oci.names import Digest
from regproxy.store.disk import BlobDirectory
from regproxy.store.errors import DigestMismatch, IndexFailed, SizeMismatch, Stopped
from regproxy.store.fill import Fill
from regproxy.store.index import Index
from regproxy.store.store import ABANDONED, Store, StoredBlob
from regproxy.upstream.errors import UpstreamBroken
from tests.support.descriptors import open_below
from tests.support.workers import Later, Now

CONTENT = b"a manifest"
DIGEST = Digest.of(CONTENT)


class StoreCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        self.directory = BlobDirectory(self.root)
        self.directory.prepare()
        self.index = Index(self.root / "index.sqlite3", Now())
        self.index.open()
        self.addCleanup(self.index.close)
        self.workers = Later()
        self.time = 1000.0
        self.store = Store(self.directory, self.index, self.workers, Clock(), lambda: self.time)

    def check_closed(self) -> None:
        for directory in (self.root / "blobs", self.directory.fills):
            self.assertEqual(open_below(directory), [])
        self.assertEqual(list(self.directory.fills.iterdir()), [])

    def begin(self, digest: Digest = DIGEST, size: int | None = None) -> Fill:
        beginning = ensureDeferred(self.store.begin(digest, size))
        self.workers.step()
        fill: Fill = self.successResultOf(beginning)
        return fill

    def put(self, digest: Digest = DIGEST, content: bytes = CONTENT) -> Deferred[None]:
        putting = ensureDeferred(self.store.put(digest, content))
        self.workers.all()
        return putting

    def open(self) -> StoredBlob:
        blob = self.store.open(DIGEST)
        assert blob is not None
        return blob


class StoreTests(StoreCase):
    def test_put_and_open(self) -> None:
        self.assertIsNone(self.store.open(DIGEST))
        self.assertFalse(self.store.has(DIGEST))
        self.successResultOf(self.put())
        self.assertTrue(self.store.has(DIGEST))
        blob = self.open()
        self.assertEqual(self.successResultOf(blob.read(0, 100)), CONTENT)
        blob.close()
        self.check_closed()

    def test_put_again(self) -> None:
        self.successResultOf(self.put())
        self.successResultOf(self.put())
        self.check_closed()

    def test_put_what_it_is_not(self) -> None:
        self.failureResultOf(self.put(DIGEST, b"something else"), DigestMismatch)
        self.assertFalse(self.store.has(DIGEST))
        self.check_closed()

    def test_content_outlives_the_process(self) -> None:
        self.successResultOf(self.put())
        store = Store(self.directory, self.index, self.workers, Clock(), lambda: self.time)
        blob = store.open(DIGEST)
        assert blob is not None
        self.assertTrue(blob.verified)
        blob.close()

    def test_files_can_be_read_by_others(self) -> None:
        self.successResultOf(self.put())
        self.assertEqual(self.directory.path(DIGEST).stat().st_mode & 0o777, 0o644)

    def test_row_tells_when_it_was_stored(self) -> None:
        self.successResultOf(self.put())
        self.assertEqual(self.index.last_access(DIGEST), 1000.0)


class FillingTests(StoreCase):
    def test_as_long_as_it_is_in_flight(self) -> None:
        self.assertIsNone(self.store.filling(DIGEST))
        fill = self.begin(size=len(CONTENT))
        self.assertIs(self.store.filling(DIGEST), fill)
        fill.write(0, CONTENT)
        self.workers.step()
        # On its way to be durable: whoever comes now still reads along.
        self.assertIs(self.store.filling(DIGEST), fill)
        self.workers.all()
        self.assertIsNone(self.store.filling(DIGEST))
        self.check_closed()

    def test_content_is_here_when_it_is_not_filling(self) -> None:
        """There is no moment between in which it is neither."""
        fill = self.begin(size=len(CONTENT))
        seen: list[bool] = []
        fill.when_ended().addCallback(lambda _: seen.append(self.store.has(DIGEST)))
        fill.write(0, CONTENT)
        while self.workers.step():
            self.assertTrue(self.store.has(DIGEST) or self.store.filling(DIGEST) is fill)
        self.assertEqual(seen, [True])

    def test_failed(self) -> None:
        fill = self.begin()
        fill.fail(Failure(SizeMismatch("too short")))
        self.assertIsNone(self.store.filling(DIGEST))
        self.workers.all()
        again = self.begin()
        self.assertIs(self.store.filling(DIGEST), again)
        again.fail(Failure(SizeMismatch("too short")))
        self.workers.all()
        self.check_closed()

    def test_second_transfer_replaces_the_first(self) -> None:
        """The first, ending, must not take the other's place away."""
        first = self.begin()
        second = self.begin()
        first.fail(Failure(SizeMismatch("too short")))
        self.assertIs(self.store.filling(DIGEST), second)
        second.write(0, CONTENT)
        second.announce(len(CONTENT))
        self.workers.all()
        self.assertTrue(self.store.has(DIGEST))
        self.check_closed()

    def test_disk_does_not_take_it(self) -> None:
        for path in (self.directory.fills, self.root / "blobs"):
            path.rmdir()
        beginning = ensureDeferred(self.store.begin(DIGEST, None))
        self.workers.all()
        self.failureResultOf(beginning, OSError)
        self.assertIsNone(self.store.filling(DIGEST))

    def test_whoever_begins_may_leave(self) -> None:
        """The file that a thread makes meanwhile is closed and removed."""
        beginning = ensureDeferred(self.store.begin(DIGEST, None))
        beginning.cancel()
        self.failureResultOf(beginning, CancelledError)
        self.workers.all()
        self.assertIsNone(self.store.filling(DIGEST))
        self.check_closed()

    def broken_off(self) -> Fill:
        """A transfer that left its first four bytes; they are not put away yet."""
        fill = self.begin(size=len(CONTENT))
        fill.write(0, CONTENT[:4])
        fill.fail(Failure(UpstreamBroken("reset")), keep=True)
        return fill

    def test_gone_on_with(self) -> None:
        """Whoever comes too early waits until all that came is put away."""
        self.broken_off()
        asking = ensureDeferred(self.store.resumable(DIGEST))
        self.assertNoResult(asking)
        beginning = ensureDeferred(self.store.begin(DIGEST, None))
        self.workers.all()
        self.assertEqual(self.successResultOf(asking), 4)
        fill: Fill = self.successResultOf(beginning)
        self.assertEqual((fill.state.size, fill.state.covered(0)), (len(CONTENT), 4))
        fill.write(4, CONTENT[4:])
        self.workers.all()
        self.assertTrue(self.store.has(DIGEST))
        self.assertEqual(self.successResultOf(ensureDeferred(self.resumable())), 0)
        self.check_closed()

    async def resumable(self) -> int:
        asking = ensureDeferred(self.store.resumable(DIGEST))
        self.workers.all()
        return await asking

    def test_counted(self) -> None:
        """What was begun, gone on with, and came to nothing."""
        self.broken_off()
        self.workers.all()
        self.begin().fail(Failure(SizeMismatch("too short")))
        self.workers.all()
        self.begin().fail(Failure(ValueError()))
        self.workers.all()
        self.begin().write(0, CONTENT)
        self.workers.all()
        counts = self.store.fill_counts
        self.assertEqual((counts.started, counts.resumed), (4, 1))
        self.assertEqual(counts.failed, {"broken": 1, "size": 1, "other": 1})

    def test_whoever_begins_again_may_leave(self) -> None:
        """What is there stays for the next one."""
        self.broken_off()
        self.workers.all()
        beginning = ensureDeferred(self.store.begin(DIGEST, None))
        beginning.cancel()
        self.failureResultOf(beginning, CancelledError)
        self.workers.all()
        self.assertEqual(self.successResultOf(ensureDeferred(self.resumable())), 4)


class AccessTimeTests(StoreCase):
    def use(self, when: float) -> None:
        self.time = when
        self.open().close()

    def test_flush(self) -> None:
        self.successResultOf(self.put())
        self.use(2000.0)
        self.use(3000.0)
        self.assertEqual(self.index.last_access(DIGEST), 1000.0)
        self.successResultOf(self.store.flush_access_times())
        self.assertEqual(self.index.last_access(DIGEST), 3000.0)

    def test_nothing_to_flush(self) -> None:
        self.patch(self.index, "touch", lambda _: self.fail("touched"))
        self.successResultOf(self.store.flush_access_times())

    def test_index_fails(self) -> None:
        """It is called by a timer that would not call again after a failure."""
        self.successResultOf(self.put())
        self.use(2000.0)
        patch = self.patch(self.index, "touch", lambda _: fail(IndexFailed("full")))
        self.successResultOf(self.store.flush_access_times())
        patch.restore()
        self.use(3000.0)
        self.successResultOf(self.store.flush_access_times())
        self.assertEqual(self.index.last_access(DIGEST), 3000.0)


class StopTests(StoreCase):
    def test_transfers_are_left_to_a_later_process(self) -> None:
        fill = self.begin(size=len(CONTENT))
        fill.write(0, CONTENT[:4])
        stopping = ensureDeferred(self.store.stop())
        self.assertNoResult(stopping)
        self.workers.all()
        self.successResultOf(stopping)
        self.failureResultOf(fill.when_ended(), Stopped)
        later = Store(self.directory, self.index, self.workers, Clock(), lambda: self.time)
        resuming = ensureDeferred(later.resumable(DIGEST))
        self.workers.all()
        self.assertEqual(self.successResultOf(resuming), 4)

    def test_commit_is_waited_for(self) -> None:
        fill = self.begin(size=len(CONTENT))
        fill.write(0, CONTENT)
        while not fill.state.verified:
            self.workers.step()
        stopping = ensureDeferred(self.store.stop())
        self.assertNoResult(stopping)
        self.workers.all()
        self.successResultOf(stopping)
        self.assertIsNotNone(self.index.content(DIGEST))

    def test_access_times(self) -> None:
        self.successResultOf(self.put())
        self.time = 2000.0
        self.open().close()
        self.successResultOf(ensureDeferred(self.store.stop()))
        self.assertEqual(self.index.last_access(DIGEST), 2000.0)


class SweepTests(StoreCase):
    def test_what_nobody_writes_to(self) -> None:
        self.time = 10 * ABANDONED
        fill = self.begin(size=len(CONTENT))
        (mine,) = self.directory.fills.iterdir()
        os.utime(mine, (self.time, self.time))
        old = self.directory.fills / "old"
        old.touch()
        os.utime(old, (self.time - ABANDONED - 1,) * 2)
        sweeping = self.store.sweep()
        self.workers.all()
        self.assertEqual(self.successResultOf(sweeping), 1)
        fill.write(0, CONTENT)
        self.workers.all()
        self.assertTrue(self.store.has(DIGEST))


class StoredBlobTests(StoreCase):
    def setUp(self) -> None:
        super().setUp()
        self.successResultOf(self.put())

    def test_interface(self) -> None:
        blob = self.open()
        verifyObject(IBlob, blob)
        self.assertEqual((blob.digest, blob.size), (DIGEST, len(CONTENT)))
        self.successResultOf(blob.when_readable(0, None))
        blob.close()

    def test_readable(self) -> None:
        blob = self.open()
        self.assertEqual([blob.readable(at) for at in (0, 4, 10, 11)], [10, 6, 0, 0])
        blob.close()

    def test_closed_twice(self) -> None:
        """The second time, it would be another one's file."""
        blob = self.open()
        blob.close()
        other = self.open()
        blob.close()
        self.assertEqual(self.successResultOf(other.read(2, 8)), b"manifest")
        other.close()
        self.check_closed()

    def test_removed_while_it_is_read(self) -> None:
        blob = self.open()
        self.directory.path(DIGEST).unlink()
        self.assertEqual(self.successResultOf(blob.read(0, 100)), CONTENT)
        blob.close()
