from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from threading import current_thread
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SynchronousTestCase, TestCase

from regproxy.oci.names import Digest
from regproxy.policy.spans import Spans
from regproxy.store import disk
from regproxy.store.errors import StoreUnusable
from regproxy.store.partial import Partial
from tests.support.workers import Later, Now

CONTENT = b"0123456789" * 10
DIGEST = Digest.of(CONTENT)


def is_open(descriptor: int) -> bool:
    """Whether *descriptor* is a file of this process."""
    return os.path.exists(f"/proc/self/fd/{descriptor}")


class ReadTests(SynchronousTestCase):
    """Bytes come from the page cache at once, and from the disk by a worker."""

    def setUp(self) -> None:
        path = Path(self.mktemp())
        path.write_bytes(CONTENT)
        self.descriptor = disk.Descriptor(os.open(path, os.O_RDONLY))
        self.workers = Later()

    def tearDown(self) -> None:
        self.workers.all()
        self.descriptor.release()

    def read(self, length: int, offset: int) -> Deferred[bytes]:
        return disk.read(self.workers, self.descriptor, length, offset)

    def refuse(self, error: int) -> None:
        def preadv(*_: object) -> int:
            raise OSError(error, os.strerror(error))

        self.patch(os, "preadv", preadv)

    def test_page_cache(self) -> None:
        self.assertEqual(self.successResultOf(self.read(5, 3)), b"34567")
        self.assertEqual(len(self.workers), 0)

    def test_page_cache_has_a_part(self) -> None:
        preadv = os.preadv

        def first_two(descriptor: int, buffers: list[bytearray], *rest: int) -> int:
            return preadv(descriptor, [memoryview(buffers[0])[:2]], *rest)

        self.patch(os, "preadv", first_two)
        self.assertEqual(self.successResultOf(self.read(5, 3)), b"34")

    def test_would_block(self) -> None:
        """preadv2(2): EAGAIN, and EOPNOTSUPP of file systems that cannot tell."""
        for error in (errno.EAGAIN, errno.EOPNOTSUPP):
            self.refuse(error)
            reading = self.read(5, 3)
            self.assertNoResult(reading)
            self.workers.all()
            self.assertEqual(self.successResultOf(reading), b"34567")

    def test_nothing_is_not_always_the_end(self) -> None:
        """Linux 5.9 and 5.10 answer 0 in the middle of a file."""
        self.patch(os, "preadv", lambda *_: 0)
        reading = self.read(5, 3)
        self.workers.all()
        self.assertEqual(self.successResultOf(reading), b"34567")

    def test_end_of_file(self) -> None:
        reading = self.read(5, 1000)
        self.workers.all()
        self.assertEqual(self.successResultOf(reading), b"")

    def test_disk_error(self) -> None:
        self.refuse(errno.EIO)
        self.assertEqual(self.failureResultOf(self.read(5, 3), OSError).value.errno, errno.EIO)

    def test_disk_error_in_the_worker(self) -> None:
        self.refuse(errno.EAGAIN)

        def pread(*_: object) -> bytes:
            raise OSError(errno.EIO, "broken")

        self.patch(os, "pread", pread)
        reading = self.read(5, 3)
        self.workers.all()
        self.failureResultOf(reading, OSError)

    def test_file_stays_open_under_a_worker(self) -> None:
        """A closed number would soon be another file's."""
        self.refuse(errno.EAGAIN)
        self.descriptor.hold()
        number = self.descriptor.number
        reading = self.read(5, 3)
        self.descriptor.release()
        self.descriptor.release()
        self.assertTrue(is_open(number))
        reading.cancel()
        self.failureResultOf(reading)
        self.assertTrue(is_open(number))
        self.workers.all()
        self.assertFalse(is_open(number))
        self.descriptor = disk.Descriptor(os.open(os.devnull, os.O_RDONLY))

    def test_failure_after_a_cancel_is_nobodys(self) -> None:
        self.refuse(errno.EAGAIN)
        self.patch(os, "pread", lambda *_: 1 / 0)
        reading = self.read(5, 3)
        reading.cancel()
        self.workers.all()
        self.failureResultOf(reading)
        self.assertEqual(self.flushLoggedErrors(), [])


class DescriptorTests(SynchronousTestCase):
    def test_last_holder_closes(self) -> None:
        number = os.open(os.devnull, os.O_RDONLY)
        first = disk.Descriptor(number)
        second = first.hold()
        first.release()
        self.assertTrue(is_open(number))
        second.release()
        self.assertFalse(is_open(number))

    def test_closed_file_cannot_be_used(self) -> None:
        descriptor = disk.Descriptor(os.open(os.devnull, os.O_RDONLY))
        descriptor.release()
        self.assertRaises(ValueError, descriptor.hold)
        error = self.failureResultOf(disk.read(Now(), descriptor, 1, 0), OSError).value
        self.assertEqual(error.errno, errno.EBADF)


class BlobDirectoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        self.directory = disk.BlobDirectory(self.root)
        self.directory.prepare()
        self.steps: list[tuple[str, str]] = []

    def partial(self, content: bytes = CONTENT) -> Partial:
        path = self.directory.fills / "partial"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        os.write(descriptor, content)
        self.addCleanup(os.close, descriptor)
        return Partial(descriptor, path, Spans(), None)

    def test_layout(self) -> None:
        self.assertEqual(
            self.directory.path(DIGEST), self.root / "blobs/sha256" / DIGEST.hex[:2] / DIGEST.hex
        )

    def test_prepare_twice_leaves_nothing_else(self) -> None:
        self.directory.prepare()
        self.assertEqual(list(self.directory.fills.iterdir()), [])

    def test_private(self) -> None:
        """Other users of this machine do not read what is private upstream."""
        self.assertEqual(self.root.stat().st_mode & 0o777, 0o700)

    def test_prepare_while_another_process_does(self) -> None:
        """It may remove the file that shows that files can be made."""
        touch = Path.touch

        def touch_and_lose(path: Path) -> None:
            touch(path)
            path.unlink()

        self.patch(Path, "touch", touch_and_lose)
        self.directory.prepare()

    def test_unusable(self) -> None:
        self.root.joinpath("file").touch()
        error = self.assertRaises(
            StoreUnusable, disk.BlobDirectory(self.root / "file" / "cache").prepare
        )
        self.assertIn(f"{self.root}/file/cache", str(error))
        self.assertIn("[cache] directory", str(error))

    def test_open(self) -> None:
        self.assertIsNone(self.directory.open(DIGEST))
        self.directory.commit(self.partial(), DIGEST, len(CONTENT))
        found = self.directory.open(DIGEST)
        assert found is not None
        descriptor, stat = found
        self.addCleanup(os.close, descriptor)
        self.assertEqual((os.pread(descriptor, 1000, 0), stat.st_size), (CONTENT, len(CONTENT)))

    def commit(self, fail_at: int | None = None) -> None:
        """Commit, and note each step and what stands under the name after it."""
        partial = self.partial()
        steps = self.steps = []

        def watched(name: str, real: Callable[..., None]) -> Callable[..., None]:
            def call(target: int | Path, *rest: Path) -> None:
                if len(steps) == fail_at:
                    raise OSError(errno.EIO, "broken")
                path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else target
                real(target, *rest)
                steps.append((name, os.path.relpath(path, self.root.resolve())))
                self.check_name()

            return call

        patches = [
            self.patch(os, "fsync", watched("fsync", os.fsync)),
            # Not the method itself: what is patched in must get the path too.
            self.patch(Path, "rename", lambda path, to: watched("rename", os.rename)(path, to)),
        ]
        try:
            self.directory.commit(partial, DIGEST, len(CONTENT))
        finally:
            for patch in patches:
                patch.restore()

    def check_name(self) -> None:
        path = self.directory.path(DIGEST)
        if path.exists():
            self.assertEqual(path.read_bytes(), CONTENT)

    def test_order_of_a_commit(self) -> None:
        """The bytes are on disk before the name is, and the name before anybody is told."""
        self.commit()
        self.assertEqual(
            self.steps,
            [
                ("fsync", "fills/partial"),
                ("rename", "fills/partial"),
                ("fsync", f"blobs/sha256/{DIGEST.hex[:2]}"),
                # Where directories were new.
                ("fsync", "blobs/sha256"),
                ("fsync", "blobs"),
            ],
        )

    def test_directories_that_were_there_are_not_synced_again(self) -> None:
        self.directory.path(DIGEST).parent.mkdir(parents=True)
        self.commit()
        self.assertEqual([name for name, _ in self.steps], ["fsync", "rename", "fsync"])

    def test_broken_off_before_each_step(self) -> None:
        """The name is absent or whole."""
        for step in range(5):
            self.assertRaises(OSError, self.commit, fail_at=step)
            self.check_name()
            self.assertEqual(self.directory.path(DIGEST).exists(), step >= 2, step)
            shutil.rmtree(self.root / "blobs")
            self.directory.prepare()

    def test_commit_of_what_is_there(self) -> None:
        """Another process was faster."""
        self.directory.commit(self.partial(), DIGEST, len(CONTENT))
        self.directory.commit(self.partial(), DIGEST, len(CONTENT))
        self.check_name()

    def test_what_is_beyond_the_end_is_cut_off(self) -> None:
        """An earlier transfer that believed in another size may have left it."""
        self.directory.commit(self.partial(CONTENT + b"more"), DIGEST, len(CONTENT))
        self.check_name()


class SetAsideTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = disk.BlobDirectory(Path(self.mktemp()))
        self.directory.prepare()
        self.path = self.directory.root / "blobs" / "sha256" / "ab" / "file"
        self.path.parent.mkdir(parents=True)
        self.path.write_text("damaged")
        os.utime(self.path, (0, 0))

    def test_moved(self) -> None:
        """How long it is kept counts from now."""
        self.assertTrue(self.directory.set_aside(self.path, self.path.stat()))
        self.assertFalse(self.path.exists())
        (aside,) = self.directory.quarantine.iterdir()
        self.assertEqual((aside.name, aside.read_text()), ("sha256-ab-file", "damaged"))
        self.assertGreater(aside.stat().st_mtime, 0)

    def test_gone(self) -> None:
        seen = self.path.stat()
        self.path.unlink()
        self.assertFalse(self.directory.set_aside(self.path, seen))

    def test_another_one_by_now(self) -> None:
        seen = self.path.stat()
        self.path.rename(self.path.with_name("old"))
        self.path.write_text("right")
        self.assertFalse(self.directory.set_aside(self.path, seen))
        self.assertEqual(self.path.read_text(), "right")


class ShieldedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.unwanted: list[int] = []
        self.work: Deferred[int] = Deferred()
        self.waiter = disk.shielded(self.work, self.unwanted.append)

    def test_result(self) -> None:
        self.work.callback(1)
        self.assertEqual(self.successResultOf(self.waiter), 1)
        self.assertEqual(self.unwanted, [])

    def test_failure(self) -> None:
        self.work.errback(KeyError())
        self.failureResultOf(self.waiter, KeyError)

    def test_cancelled(self) -> None:
        self.waiter.cancel()
        self.failureResultOf(self.waiter)
        self.work.callback(1)
        self.assertEqual(self.unwanted, [1])

    def test_fails_after_the_cancel(self) -> None:
        self.waiter.cancel()
        self.failureResultOf(self.waiter)
        self.work.errback(KeyError())
        self.assertEqual(self.unwanted, [])

    def test_result_at_once(self) -> None:
        self.assertEqual(self.successResultOf(disk.shielded(succeed(1), self.unwanted.append)), 1)


class ThreadWorkersTests(TestCase):
    """With real threads."""

    async def test_runs_in_a_thread(self) -> None:
        pool = ThreadPool(0, 1, "test")
        pool.start()
        self.addCleanup(pool.stop)
        name = await disk.ThreadWorkers(cast(Any, reactor), pool).run(lambda: current_thread().name)
        self.assertIn("test", name)
