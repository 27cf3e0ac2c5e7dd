from __future__ import annotations

import os
import shutil
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import ensureDeferred
from twisted.logger import capturedLogs

from regproxy.oci.names import Digest
from regproxy.policy.integrity import ContentRecord
from regproxy.store import reconciliation as reconciliation_module
from regproxy.store.disk import Workers
from regproxy.store.reconciliation import Reconciled, Reconciliation
from tests.support.caches import CacheCase
from tests.support.workers import Later


class ReconciliationCase(CacheCase):
    def setUp(self) -> None:
        super().setUp()
        self.pauses = 0
        self.reconciliation = Reconciliation(
            self.directory, self.inventory, self.workers, self.pause
        )

    async def pause(self) -> None:
        self.pauses += 1

    def check_agree(self) -> None:
        self.assertEqual(self.files(), self.rows())
        for record in self.records():
            self.assertEqual(record.size, self.directory.path(record.digest).stat().st_size)


class RunTests(ReconciliationCase):
    def reconcile(self) -> Reconciled:
        return self.finish(self.reconciliation.run())

    def test_nothing_to_do(self) -> None:
        self.put(b"one")
        with capturedLogs() as events:
            self.assertEqual(self.reconcile(), Reconciled())
        self.assertEqual(events, [])

    def test_lost_index(self) -> None:
        """All is found again, in the order of use as far as the files tell it."""
        contents = [b"%d" % number for number in range(10)]
        for content in contents:
            self.time += 10.0
            self.drop(Digest.of(content), content)
        empty = Digest.of(b"", "sha512")
        self.drop(empty, b"")
        self.assertEqual(self.reconcile(), Reconciled(adopted=11))
        self.check_agree()
        oldest = self.successResultOf(self.inventory.oldest(None, 100))
        self.assertEqual([each.digest for each in oldest], [*map(Digest.of, contents), empty])
        record = self.index.content(Digest.of(b"0"))
        assert record is not None
        self.assertEqual((record.stored_at, record.last_access), (1010.0, 1010.0))
        # Nobody has looked into it.
        self.assertEqual(record.verified_at, 0.0)

    def test_used_later_than_written(self) -> None:
        digest = Digest.of(b"one")
        os.utime(self.drop(digest, b"one"), (5000.0, 1000.0))
        self.reconcile()
        self.assertEqual(self.index.last_access(digest), 5000.0)

    def test_what_is_known_is_kept(self) -> None:
        digest = self.put(b"one")
        known = self.index.content(digest)
        os.utime(self.directory.path(digest), (5000.0, 5000.0))
        self.drop(Digest.of(b"two"), b"two")
        self.assertEqual(self.reconcile(), Reconciled(adopted=1))
        self.assertEqual(self.index.content(digest), known)

    def test_lost_files(self) -> None:
        self.put(b"one")
        self.directory.path(self.put(b"two")).unlink()
        self.assertEqual(self.reconcile(), Reconciled(forgotten=1))
        self.check_agree()

    def test_no_files_at_all(self) -> None:
        for number in range(10):
            self.put(b"%d" % number)
        shutil.rmtree(self.root / "blobs" / "sha256")
        self.assertEqual(self.reconcile(), Reconciled(forgotten=10))
        self.check_agree()

    def test_in_batches(self) -> None:
        """Also where many are in one directory."""
        self.patch(reconciliation_module, "BATCH", 3)
        names = [f"ab{number:062x}" for number in range(20)]
        for name in names[:10]:
            self.drop(Digest("sha256", name), b"x")
        for name in names[10:]:
            record = ContentRecord(Digest("sha256", name), 1, 0.0, 0.0, 0.0, 0)
            self.successResultOf(self.index.put_content(record))
        self.assertEqual(self.reconcile(), Reconciled(adopted=10, forgotten=10))
        self.check_agree()

    def test_pauses(self) -> None:
        """After each directory."""
        for name in ("ab", "ac", "ad"):
            self.drop(Digest("sha256", f"{name:<064}"), b"x")
        self.reconcile()
        # blobs/, sha256/ in it, and those three.
        self.assertEqual(self.pauses, 5)

    def test_no_file_is_looked_at_that_the_index_knows(self) -> None:
        """It takes a million of them."""
        known = self.put(b"one")
        new = Digest.of(b"two")
        self.drop(new, b"two")
        looked: list[str] = []
        look = self.reconciliation._look

        def note(directory: Path, names: list[str]) -> list[ContentRecord | Path]:
            looked.extend(names)
            return look(directory, names)

        self.patch(self.reconciliation, "_look", note)
        self.reconcile()
        self.assertEqual(looked, [new.hex])
        self.assertEqual(self.rows(), {known, new})

    def test_strange_files(self) -> None:
        """What is no blob is not served, nor counted; it is set aside and told of."""
        blobs = self.root / "blobs"
        whole = Digest.of(b"one")
        self.drop(whole, b"one")
        self.drop(Digest.of(b"cut off"), b"")
        (blobs / "README").write_text("x")
        (blobs / "md5" / "ab").mkdir(parents=True)
        (blobs / "md5" / "ab" / ("ab" * 16)).write_text("x")
        (blobs / "sha256" / "zz").mkdir()
        (blobs / "sha256" / "zz" / whole.hex).write_text("in the wrong directory")
        with capturedLogs() as events:
            self.assertEqual(self.reconcile(), Reconciled(adopted=1, strange=4))
        self.check_agree()
        self.assertEqual(self.rows(), {whole})
        cut = Digest.of(b"cut off").hex
        self.assertEqual(
            self.quarantine(),
            [
                "README",
                f"md5-ab-{'ab' * 16}",
                f"sha256-{cut[:2]}-{cut}",
                f"sha256-zz-{whole.hex}",
            ],
        )
        self.assertEqual(sum(event["log_level"].name == "error" for event in events), 4)

    def test_links_are_left_alone(self) -> None:
        outside = self.root / "outside"
        outside.mkdir()
        (outside / "file").write_text("x")
        (self.root / "blobs" / "link").symlink_to(outside)
        (self.root / "blobs" / "other").symlink_to(outside / "file")
        self.assertEqual(self.reconcile(), Reconciled())
        self.assertEqual((outside / "file").read_text(), "x")


class MeanwhileTests(ReconciliationCase):
    """Content comes and goes while it works."""

    workers: Later

    def make_workers(self) -> Workers:
        return Later()

    def setUp(self) -> None:
        super().setUp()
        self.stepped = self.other_inventory(self.workers)

    @given(
        st.lists(st.tuples(st.sampled_from(["put", "evict", "step"]), st.integers(0, 5))),
        st.integers(1, 3),
    )
    def test_meanwhile(self, changes: list[tuple[str, int]], batch: int) -> None:
        """Whatever happens: a row is lost for no file; the next run finds nothing strange."""
        self.patch(reconciliation_module, "BATCH", batch)
        for digest in self.files():
            self.directory.path(digest).unlink()
        running = ensureDeferred(
            Reconciliation(self.directory, self.stepped, self.workers, self.pause).run()
        )
        for change, number in changes:
            content = b"%d" % number
            match change:
                case "put":
                    self.time += 1.0
                    self.put(content)
                case "evict":
                    self.directory.path(Digest.of(content)).unlink(missing_ok=True)
                    record = self.index.content(Digest.of(content))
                    self.inventory.forget([record] if record else [])
                case _:
                    self.workers.step()
        self.workers.all()
        self.successResultOf(running)
        self.check_agree()
