from __future__ import annotations

import errno
import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import ensureDeferred, fail
from twisted.logger import capturedLogs

from regproxy.config.model import CacheSection
from regproxy.oci.names import Digest, Host, Repository, Tag
from regproxy.store import eviction as eviction_module
from regproxy.store.disk import Workers
from regproxy.store.errors import IndexFailed
from regproxy.store.eviction import Eviction
from regproxy.store.index import TagEntry, TagKey
from regproxy.store.reconciliation import Reconciliation
from tests.support.caches import CacheCase
from tests.support.workers import Later, Now, no_pause


class EvictionCase(CacheCase):
    def setUp(self) -> None:
        super().setUp()
        self.eviction = Eviction(
            self.directory, self.inventory, self.workers, self.store.uses, lambda: self.time
        )

    def fill(self, count: int, size: int = 100) -> list[Digest]:
        """As many blobs, one used after the other."""
        digests = []
        for number in range(count):
            self.time += 1.0
            digests.append(self.put(b"%0*d" % (size, number)))
        return digests

    def check_kept(self, expected: list[Digest]) -> None:
        self.assertEqual(self.files(), set(expected))
        self.assertEqual(self.rows(), set(expected))
        total = self.successResultOf(self.inventory.total())
        self.assertEqual(total.blobs, len(expected))


class RunTests(EvictionCase):
    def run_(self, max_size: int = 1 << 40, inactive: float = 1e9, min_free: int = 0) -> None:
        rules = CacheSection(max_size=max_size, inactive=inactive, min_free=min_free)
        self.finish(self.eviction.run(rules))

    def test_within_bounds(self) -> None:
        digests = self.fill(10)
        self.run_(max_size=1000)
        self.check_kept(digests)

    def test_max_size(self) -> None:
        digests = self.fill(11)
        self.use(digests[0], self.time + 1.0)
        self.run_(max_size=1000)
        self.check_kept([digests[0], *digests[3:]])
        self.assertEqual((self.eviction.evicted, self.eviction.evicted_bytes), (2, 200))

    def test_in_batches(self) -> None:
        self.patch(eviction_module, "BATCH", 3)
        digests = self.fill(20)
        self.run_(max_size=1000)
        self.check_kept(digests[11:])

    def test_inactive(self) -> None:
        digests = self.fill(10)
        self.run_(inactive=4.5)
        self.check_kept(digests[5:])

    def test_min_free(self) -> None:
        digests = self.fill(10)
        free = self.finish(self.eviction.usage()).free
        real = os.statvfs

        def statvfs(path: Path) -> os.statvfs_result:
            values = list(real(path))
            # f_frsize, f_bavail: statvfs(3).
            values[1], values[4] = 1, 1000
            return os.statvfs_result(values)

        self.assertGreater(free, 0)
        self.patch(os, "statvfs", statvfs)
        self.run_(min_free=1140)
        self.check_kept(digests[2:])

    def test_served(self) -> None:
        """What a client reads stays; it goes when the client has gone."""
        digests = self.fill(10)
        blob = self.open(digests[0])
        self.successResultOf(self.store.flush_access_times())
        self.index.touch({str(digests[0]): 0.0})
        self.run_(max_size=900)
        self.check_kept([digests[0], *digests[3:]])
        self.assertEqual(len(self.successResultOf(blob.read(0, 200))), 100)
        blob.close()
        self.run_(max_size=750)
        self.check_kept(digests[3:])

    def test_used_after_the_index_was_told(self) -> None:
        digests = self.fill(10)
        self.open(digests[0]).close()
        self.run_(max_size=900)
        self.check_kept([digests[0], *digests[3:]])

    def test_pinned(self) -> None:
        digests = self.fill(10)
        self.pin(digests[0])
        self.run_(max_size=900)
        self.check_kept([digests[0], *digests[3:]])

    def test_nothing_may_go(self) -> None:
        """It ends, and says so."""
        digests = self.fill(10)
        self.pin(*digests)
        with capturedLogs() as events:
            self.run_(max_size=900)
        self.check_kept(digests)
        (event,) = events
        self.assertEqual(event["excess"], 145)

    def test_file_is_gone(self) -> None:
        """Another process has evicted it, or a crash came between."""
        digests = self.fill(10)
        self.directory.path(digests[0]).unlink()
        self.run_(max_size=990)
        self.check_kept(digests[1:])

    def test_file_cannot_be_removed(self) -> None:
        """One that stays does not stop the others; it keeps its row."""
        digests = self.fill(10)
        stubborn = self.directory.path(digests[0])
        unlink = Path.unlink

        def refuse(path: Path, missing_ok: bool = False) -> None:
            if path == stubborn:
                raise OSError(errno.EPERM, "Operation not permitted")
            unlink(path, missing_ok)

        self.patch(Path, "unlink", refuse)
        with capturedLogs() as events:
            self.run_(max_size=900)
        self.assertIn("Operation not permitted", [event.get("reason") for event in events])
        self.check_kept([digests[0], *digests[2:]])

    def test_index_forgets_nothing(self) -> None:
        """As on a full disk: there is room now, and the next run goes on."""
        digests = self.fill(10)
        patch = self.patch(self.inventory, "forget", lambda gone: fail(IndexFailed("full")))
        rules = CacheSection(max_size=900)
        self.failureResultOf(ensureDeferred(self.eviction.run(rules)), IndexFailed)
        self.assertEqual(self.files(), set(digests[2:]))
        patch.restore()
        self.run_(max_size=900)
        self.check_kept(digests[2:])

    def test_knowledge_stays(self) -> None:
        """What a tag points to is true whether the content is here or not."""
        (digest,) = self.fill(1)
        host, repository = Host("registry.example.test"), Repository("a/b")
        key = TagKey(host, repository, Tag("latest"), "*/*")
        self.index.put_tag(key, TagEntry(digest, "a/b", 1.0))
        self.index.put_membership(host, repository, digest, "a/b")
        self.run_(max_size=1)
        self.check_kept([])
        self.assertEqual(self.index.tag(key), TagEntry(digest, "a/b", 1.0))
        self.assertEqual(self.index.membership(host, repository, digest), "a/b")


class StepTests(EvictionCase):
    """One step of a worker after the other."""

    workers: Later

    def make_workers(self) -> Workers:
        return Later()

    def setUp(self) -> None:
        super().setUp()
        self.stepped = self.other_inventory(self.workers)
        self.eviction = Eviction(
            self.directory, self.stepped, self.workers, self.store.uses, lambda: self.time
        )

    def test_stored_anew_meanwhile(self) -> None:
        """Between the file and its row: the new file keeps its row."""
        (digest,) = self.fill(1)
        ensureDeferred(self.eviction.run(CacheSection(max_size=1)))
        while self.files():
            self.workers.step()
        self.assertEqual(self.rows(), {digest})
        self.time += 1.0
        self.put(b"%0*d" % (100, 0))
        self.workers.all()
        self.check_kept([digest])

    @given(st.integers(1, 8), st.integers(0, 900), st.integers(0, 20))
    def test_crash(self, batch: int, max_size: int, steps: int) -> None:
        """At any step: what is there is whole, and the next start brings the index up to date."""
        self.patch(eviction_module, "BATCH", batch)
        digests = self.fill(9)
        running = ensureDeferred(self.eviction.run(CacheSection(max_size=max(1, max_size))))
        for _ in range(steps):
            self.workers.step()
        running.addErrback(lambda _: None).cancel()
        left = self.files()
        # The youngest ones.
        self.assertEqual(left, set(digests[len(digests) - len(left) :]))
        for digest in left:
            content = self.directory.path(digest).read_bytes()
            self.assertEqual(Digest.of(content), digest)
        # What the process had begun is gone with it.
        self.workers.clear()
        self.finish(Reconciliation(self.directory, self.inventory, Now(), no_pause).run())
        self.check_kept(sorted(left, key=str))
