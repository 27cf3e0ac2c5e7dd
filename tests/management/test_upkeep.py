"""Tests for :mod:`regproxy.management.upkeep`."""

from __future__ import annotations

import errno

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.defer import fail as defer_failure
from twisted.logger import capturedLogs

from regproxy.management.values import Job, JobKind, JobState, Unit
from regproxy.oci.names import Digest
from regproxy.store import disk
from regproxy.store.errors import IndexFailed
from regproxy.store.housekeeping import StoreStats
from regproxy.store.inventory import Inventory
from tests.support.api import PartsCase


class UpkeepCase(PartsCase):
    def job(self, job: Job) -> Job:
        """How *job* stands."""
        return self.parts.jobs.get(job.id)


class VerifyTests(UpkeepCase):
    def verify(self) -> Job:
        job = self.parts.upkeep.verify()
        self.assertEqual((job.kind, job.unit), (JobKind.VERIFY, Unit.BYTES))
        return self.job(job)

    def test_right(self) -> None:
        self.put(b"one")
        self.put(b"three")
        self.time += 1
        job = self.verify()
        self.assertEqual((job.state, job.done, job.total), (JobState.DONE, 8, 8))
        self.assertEqual((job.message, job.failures), ("2 verified, 0 damaged", ()))
        self.assertEqual({record.verified_at for record in self.records()}, {self.time})

    def test_nothing(self) -> None:
        job = self.verify()
        self.assertEqual((job.state, job.done, job.total), (JobState.DONE, 0, 0))

    def test_damaged(self) -> None:
        """It is put aside, and named."""
        self.put(b"right")
        digest = self.put(b"wrong")
        self.directory.path(digest).write_bytes(b"wrung")
        self.time += 1
        job = self.verify()
        self.assertEqual((job.state, job.message), (JobState.DONE, "1 verified, 1 damaged"))
        self.assertEqual(job.failures, (f"{digest} was damaged, and is put aside",))
        self.assertEqual(len(self.quarantine()), 1)

    def test_unreadable(self) -> None:
        """The others are read all the same."""
        digests = [self.put(b"one"), self.put(b"two")]
        self.time += 1

        def fail(directory: disk.BlobDirectory, digest: Digest) -> None:
            raise OSError(errno.EACCES, "Permission denied", "/some/path")

        self.patch(disk.BlobDirectory, "open", fail)
        job = self.verify()
        self.assertEqual((job.state, job.message), (JobState.DONE, "0 verified, 0 damaged"))
        expected = {f"{each} cannot be read: Permission denied" for each in digests}
        self.assertEqual(set(job.failures), expected)

    def test_index_fails(self) -> None:
        async def fail() -> StoreStats:
            raise IndexFailed("disk I/O error")

        self.patch(self.rooms.housekeeping, "stats", fail)
        job = self.verify()
        self.assertEqual((job.state, job.message), (JobState.FAILED, "disk I/O error"))


class CollectTests(UpkeepCase):
    def setUp(self) -> None:
        super().setUp()
        self.rules = evolve(self.config.cache, max_size=6)
        self.rooms.housekeeping.follow(self.rules)

    def test_collected(self) -> None:
        """Files and index agree, and the bounds are kept."""
        self.put(b"old")
        self.time += 1
        kept = self.put(b"new")
        lost = Digest.of(b"lost")
        self.drop(lost, b"lost").unlink()
        found = self.drop(Digest.of(b"x"), b"x")
        job = self.job(self.parts.upkeep.collect())
        self.assertEqual((job.kind, job.state), (JobKind.GC, JobState.DONE))
        self.assertEqual((job.done, job.total), (3, 3))
        self.assertEqual(job.message, "evicted: 1 blobs, 3 bytes")
        self.assertEqual(self.files(), self.rows())
        self.assertIn(kept, self.files())
        self.assertTrue(found.exists())

    def test_fails(self) -> None:
        def fail(*_: object) -> Deferred[None]:
            return defer_failure(IndexFailed("disk I/O error"))

        self.patch(Inventory, "compare", fail)
        with capturedLogs():
            job = self.job(self.parts.upkeep.collect())
        self.assertEqual((job.state, job.message), (JobState.FAILED, "disk I/O error"))
        self.assertEqual(job.done, 0)
