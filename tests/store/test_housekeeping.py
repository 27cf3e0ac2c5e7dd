from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Coroutine
from contextlib import closing
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, fail
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.model import DAY, CacheSection
from regproxy.oci.media_types import OCI_MANIFEST
from regproxy.oci.names import Digest, Host, Repository
from regproxy.store import disk
from regproxy.store.catalog import Order
from regproxy.store.disk import Workers
from regproxy.store.errors import DiskFailed, IndexFailed
from regproxy.store.housekeeping import (
    FORGET_INTERVAL,
    KEPT,
    LEAST,
    RATE,
    SHARE,
    Errand,
    Housekeeping,
    Leisure,
    StoreStats,
)
from regproxy.store.inventory import Total
from regproxy.store.partial import Partial
from tests.support.caches import CacheCase
from tests.support.workers import Later


class ErrandTests(CacheCase):
    def setUp(self) -> None:
        super().setUp()
        self.waiting: list[Deferred[None]] = []
        self.errand = Errand("Sweeping", self.work)

    def work(self) -> Deferred[None]:
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def test_never_twice_at_a_time(self) -> None:
        """However often it is asked for, it is done once more."""
        self.errand.start()
        self.errand.start()
        self.errand.start()
        self.assertEqual(len(self.waiting), 1)
        self.waiting[0].callback(None)
        self.assertEqual(len(self.waiting), 2)
        self.assertTrue(self.errand.under_way)
        self.waiting[1].callback(None)
        self.assertEqual(len(self.waiting), 2)
        self.assertFalse(self.errand.under_way)
        self.errand.start()
        self.assertEqual(len(self.waiting), 3)

    def test_done(self) -> None:
        """Fires when it was done from the beginning to the end: not by what was under way."""
        self.errand.start()
        done = self.errand.done()
        self.waiting[0].callback(None)
        self.assertNoResult(done)
        self.waiting[1].callback(None)
        self.successResultOf(done)
        self.successResultOf(self.errand_done())
        self.assertFalse(self.errand.under_way)

    def errand_done(self) -> Deferred[None]:
        done = self.errand.done()
        self.waiting[-1].callback(None)
        return done

    def test_done_fails(self) -> None:
        """For all who wait, also for those who came while it was under way."""
        cancelled, done, late = self.errand.done(), self.errand.done(), self.errand.done()
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        with capturedLogs():
            self.waiting[0].errback(IndexFailed("disk full"))
        self.failureResultOf(done, IndexFailed)
        self.failureResultOf(late, IndexFailed)
        again = self.errand.done()
        self.waiting[1].callback(None)
        self.assertEqual(len(self.waiting), 2)
        self.successResultOf(again)

    def test_done_is_stopped(self) -> None:
        done = self.errand.done()
        self.errand.stop()
        self.failureResultOf(done, CancelledError)

    def test_asked_for_by_itself(self) -> None:
        done: list[None] = []

        async def work() -> None:
            done.append(None)
            if len(done) < 3:
                errand.start()

        errand = Errand("Sweeping", work)
        errand.start()
        self.assertEqual(len(done), 3)

    def test_failure(self) -> None:
        """One line tells of what can go wrong; and the next time is another one."""
        for error in (IndexFailed("disk full"), OSError(errno.EIO, "Input/output error")):
            self.errand.start()
            with capturedLogs() as events:
                self.waiting[-1].errback(error)
            (event,) = events
            self.assertEqual((event["what"], event["reason"]), ("Sweeping", str(error)))
        self.errand.start()
        self.assertEqual(len(self.waiting), 3)

    def test_bug(self) -> None:
        self.errand.start()
        self.waiting[0].errback(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertFalse(self.errand.under_way)

    def test_stop(self) -> None:
        self.errand.stop()
        self.errand.start()
        with capturedLogs() as events:
            self.errand.stop()
        self.assertEqual(events, [])
        self.assertFalse(self.errand.under_way)


class LeisureTests(SynchronousTestCase):
    def test_share(self) -> None:
        """However long each step of the work takes."""
        clock = Clock()
        leisure = Leisure(clock)
        for took in (0.01, 5.0, 0.2):
            clock.advance(took)
            pausing = ensureDeferred(leisure.pause())
            clock.advance(took / SHARE - took - 0.001)
            self.assertNoResult(pausing)
            clock.advance(0.001)
            self.successResultOf(pausing)

    def test_no_time(self) -> None:
        leisure = Leisure(Clock())
        self.successResultOf(ensureDeferred(leisure.pause()))


class HousekeepingCase(CacheCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.housekeeping = self.keep(CacheSection())

    def keep(self, rules: CacheSection) -> Housekeeping:
        return Housekeeping(
            self.store, self.directory, self.workers, self.clock, lambda: self.time, rules
        )

    def fill(self, count: int, size: int = 100) -> list[Digest]:
        """As many blobs, one used after the other."""
        digests = []
        for number in range(count):
            self.time += 1.0
            digests.append(self.put(b"%0*d" % (size, number)))
        return digests

    def set_aside(self, age: float) -> None:
        path = self.directory.quarantine / f"{age}"
        path.write_text("damaged")
        os.utime(path, (self.time - age,) * 2)


class HousekeepingTests(HousekeepingCase):
    def commit(self, content: bytes) -> Digest:
        """Store as transfers do."""
        digest = Digest.of(content)
        self.finish(self.store.put(digest, content))
        return digest

    def test_start(self) -> None:
        """Files and index first, then the bounds; old transfers and damaged files go."""
        self.time = 1e9
        contents = [b"%0100d" % number for number in range(11)]
        for content in contents:
            self.time += 10.0
            self.drop(Digest.of(content), content)
        partial = self.directory.fills / "old"
        partial.touch()
        os.utime(partial, (0.0, 0.0))
        for age in (KEPT - 1.0, KEPT + 1.0):
            self.set_aside(age)
        self.housekeeping.follow(CacheSection(max_size=1000))
        self.housekeeping.start()
        self.assertEqual(self.rows(), set(map(Digest.of, contents[2:])))
        self.assertEqual(self.files(), self.rows())
        self.assertFalse(partial.exists())
        self.assertEqual(self.quarantine(), [f"{KEPT - 1.0}"])

    def test_commit(self) -> None:
        """One that passes the bound pushes the oldest out."""
        digests = self.fill(10)
        self.housekeeping.follow(CacheSection(max_size=1000))
        self.time += 1.0
        last = self.commit(b"x" * 100)
        self.assertEqual(self.files(), {*digests[2:], last})

    def test_what_was_used_counts(self) -> None:
        """Also what the index has not been told of."""
        digests = self.fill(10)
        self.time += 1.0
        self.open(digests[0]).close()
        self.housekeeping.follow(CacheSection(max_size=1000))
        last = self.commit(b"x" * 100)
        self.assertEqual(self.files(), {digests[0], *digests[3:], last})
        self.assertEqual(self.index.last_access(digests[0]), self.time)

    def test_read_from_a_transfer(self) -> None:
        """Whoever has read along is not done when the transfer is."""
        self.housekeeping.follow(CacheSection(max_size=1))
        content = b"x" * 100
        digest = Digest.of(content)
        fill = self.finish(self.store.begin(digest, 100))
        reader = fill.reader()
        fill.write(0, content)
        self.housekeeping.tick()
        self.assertEqual(self.files(), {digest})
        reader.close()
        self.housekeeping.tick()
        self.assertEqual(self.files(), set())

    def test_tick(self) -> None:
        """What has become inactive or due."""
        digests = self.fill(3)
        damaged = self.put(b"damaged")
        self.directory.path(damaged).write_bytes(b"changed")
        self.housekeeping.follow(CacheSection(inactive=1e6, verify=100.0))
        self.time += 200.0
        self.housekeeping.tick()
        self.clock.pump([1.0] * 10)
        self.assertEqual(self.files(), set(digests))
        self.assertEqual(len(self.quarantine()), 1)
        self.time += 1e6
        self.housekeeping.tick()
        self.assertEqual(self.files(), set())

    def test_rate(self) -> None:
        """Verification takes its time."""
        self.put(b"x" * (RATE // 4))
        self.time += 1.0
        self.put(b"y" * (RATE // 4))
        self.housekeeping.follow(CacheSection(verify=1.0))
        self.time += 100.0
        self.housekeeping.tick()
        self.assertEqual(self.verified_at(), {1000.0, 1001.0})
        self.clock.advance(0.2)
        self.assertEqual(self.verified_at(), {1000.0, 1001.0})
        self.clock.advance(0.05)
        self.assertEqual(self.verified_at(), {1101.0, 1001.0})
        self.clock.advance(0.25)
        self.assertEqual(self.verified_at(), {1101.0})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_rate_of_small_files(self) -> None:
        """To open one and to record what was found is work too."""
        for number in range(3):
            self.time += 1.0
            self.put(b"%d" % number)
        self.housekeeping.follow(CacheSection(verify=1.0))
        self.time += 100.0
        self.housekeeping.tick()
        steps = 0
        while self.verified_at() != {self.time}:
            self.clock.advance(LEAST / RATE)
            steps += 1
        self.assertEqual(steps, 3)

    def test_forget(self) -> None:
        """Once a day what has no use any more; not before files and index are as one."""
        host, repository = Host("registry.example.test"), Repository("library/debian")
        gone = Digest.of(b"gone")

        def learn() -> None:
            self.index.put_membership(host, repository, gone, "a/b")
            self.time += 3 * DAY

        def known() -> bool:
            # Not by a look-up, which is a use.
            with closing(sqlite3.connect(self.root / "index.sqlite3")) as index:
                return index.execute("SELECT 1 FROM membership").fetchone() is not None

        learn()
        self.housekeeping.tick()
        self.assertTrue(known())
        self.housekeeping.start()
        self.housekeeping.tick()
        self.assertFalse(known())
        learn()
        self.clock.advance(FORGET_INTERVAL - 1.0)
        self.housekeeping.tick()
        self.assertTrue(known())
        self.clock.advance(1.0)
        self.housekeeping.tick()
        self.assertFalse(known())

    def test_catalog(self) -> None:
        """Images are known before anybody looks."""
        host, repository = Host("registry.example.test"), Repository("library/debian")
        digest = self.put(b'{"layers": []}')
        self.index.put_membership(host, repository, digest, OCI_MANIFEST)
        self.housekeeping.tick()
        found = self.index.catalog.images(Order.REFERENCE, None, 5)
        ((image,), _) = self.finish(found)
        self.assertEqual((image.repository, image.digest), (repository, digest))

    def test_looked_up_just_now(self) -> None:
        """The index is told before anything is forgotten."""
        host, repository = Host("registry.example.test"), Repository("library/debian")
        digest = self.put(b"here")
        self.index.put_membership(host, repository, digest, "a/b")
        self.time += 30 * DAY
        self.open(digest).close()
        self.index.membership(host, repository, digest)
        self.housekeeping.follow(CacheSection(inactive=10 * DAY, verify=0.0))
        self.housekeeping.start()
        self.housekeeping.tick()
        self.assertEqual(self.index.membership(host, repository, digest), "a/b")

    def test_damaged_index(self) -> None:
        """A new one is begun, and filled from the files."""
        digests = {self.put(b"%d" % number) for number in range(200)}
        self.index.close()
        path = self.root / "index.sqlite3"
        content = bytearray(path.read_bytes())
        content[-4096:] = bytes(4096)
        path.write_bytes(content)
        self.index.open()
        with capturedLogs() as events:
            self.housekeeping.start()
        self.assertEqual(self.rows(), digests)
        self.assertIn(str(path), [event.get("path") for event in events])

    def verified_at(self) -> set[float]:
        return {record.verified_at for record in self.records()}

    def test_stop(self) -> None:
        self.fill(3)
        self.time += 1e9
        self.housekeeping.follow(CacheSection(inactive=1e12, verify=1.0))
        self.housekeeping.tick()
        self.housekeeping.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stats(self) -> None:
        self.fill(10)
        self.housekeeping.follow(CacheSection(max_size=900))
        self.housekeeping.tick()
        digest = self.put(b"damaged")
        self.directory.path(digest).write_bytes(b"")
        self.store.open(digest)
        self.housekeeping.relieve(0)
        asked = []
        inventory = self.index.inventory
        total = inventory.total

        def count() -> Deferred[Total]:
            asked.append(1)
            return total()

        self.patch(inventory, "total", count)
        stats = self.finish(self.housekeeping.stats())
        # The index is asked no more than once.
        self.assertEqual(asked, [1])
        self.assertGreater(stats.free, 0)
        self.assertEqual(
            stats,
            StoreStats(
                bytes=800,
                blobs=8,
                limit=900,
                free=stats.free,
                evicted=2,
                evicted_bytes=200,
                quarantined=1,
                disk_full=1,
            ),
        )


class FullTests(HousekeepingCase):
    """The disk has no room."""

    def setUp(self) -> None:
        super().setUp()
        self.digests = self.fill(10)
        self.set_aside(1.0)
        real = os.statvfs

        def statvfs(path: Any) -> os.statvfs_result:
            values = list(real(path))
            # f_frsize, f_bavail: statvfs(3).
            values[1], values[4] = 1, 1000 - 100 * len(self.files())
            return os.statvfs_result(values)

        self.patch(os, "statvfs", statvfs)

    def check_relieved(self, evicted: int) -> None:
        self.assertEqual(self.files(), set(self.digests[evicted:]))
        self.assertEqual(self.quarantine(), [])

    def test_relieve(self) -> None:
        self.housekeeping.relieve(250)
        self.check_relieved(3)

    def test_nobody_knows_how_much(self) -> None:
        self.housekeeping.relieve(0)
        self.check_relieved(1)

    def test_index_takes_nothing(self) -> None:
        """The last uses cannot be written; what they tell counts all the same."""
        self.open(self.digests[0]).close()
        patch = self.patch(self.index, "touch", lambda used: fail(IndexFailed("full")))
        self.housekeeping.relieve(250)
        self.assertEqual(self.files(), {self.digests[0], *self.digests[4:]})
        patch.restore()
        self.time += 5.0
        self.successResultOf(self.store.flush_access_times())
        self.assertEqual(self.index.last_access(self.digests[0]), self.time - 5.0)

    def refuse(self, *_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def test_transfer_cannot_begin(self) -> None:
        self.patch(Partial, "open", self.refuse)
        beginning = ensureDeferred(self.store.begin(Digest.of(b"x"), 250))
        self.failureResultOf(beginning, OSError)
        self.check_relieved(3)

    def test_transfer_fails(self) -> None:
        self.patch(Partial, "write", self.refuse)
        fill = self.finish(self.store.begin(Digest.of(b"x" * 250), 250))
        fill.write(0, b"x" * 100)
        self.failureResultOf(fill.when_ended(), DiskFailed)
        self.check_relieved(3)
        self.flushLoggedErrors(OSError)

    def test_commit_fails(self) -> None:
        self.patch(disk.BlobDirectory, "commit", self.refuse)
        fill = self.finish(self.store.begin(Digest.of(b"x" * 250), 250))
        fill.write(0, b"x" * 250)
        self.failureResultOf(fill.when_ended(), DiskFailed)
        self.check_relieved(3)

    def test_other_failure(self) -> None:
        """A disk that is broken is not full."""

        def write(*_: object) -> None:
            raise OSError(errno.EIO, "Input/output error")

        self.patch(Partial, "write", write)
        fill = self.finish(self.store.begin(Digest.of(b"x" * 250), 250))
        fill.write(0, b"x" * 100)
        self.failureResultOf(fill.when_ended(), DiskFailed)
        self.assertEqual(self.files(), set(self.digests))
        self.flushLoggedErrors(OSError)


class StepTests(HousekeepingCase):
    """One step of a worker after the other."""

    workers: Later

    def make_workers(self) -> Workers:
        return Later()

    def test_alarm_during_eviction(self) -> None:
        """It is seen to when that is over; the largest one counts."""
        digests = self.fill(10)
        runs: list[int | None] = []

        def run(rules: CacheSection, wanted: int | None = None) -> Coroutine[Any, Any, None]:
            runs.append(wanted)
            return eviction(rules, wanted)

        eviction = self.housekeeping._eviction.run
        self.patch(self.housekeeping._eviction, "run", run)
        self.housekeeping.tick()
        for wanted in (1, 3, 2):
            self.housekeeping.relieve(wanted)
        self.workers.all()
        self.assertEqual(runs, [None, 3])
        self.assertEqual(self.files(), set(digests))

    def test_nothing_leaves_while_the_index_is_built(self) -> None:
        """The oldest of what is known so far may be the youngest of all."""
        digests = self.fill(10)
        self.inventory.forget(self.records()[:8])
        self.housekeeping.follow(CacheSection(max_size=900, verify=0.0))
        self.housekeeping.start()
        self.housekeeping.tick()
        self.assertEqual(len(self.files()), 10)
        self.workers.all()
        self.assertEqual(self.files(), set(digests[2:]))
