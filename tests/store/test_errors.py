from __future__ import annotations

import errno
import sqlite3

from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.names import Digest
from regproxy.store.errors import (
    Damaged,
    DigestMismatch,
    DiskFailed,
    FillFailed,
    IndexFailed,
    SizeMismatch,
    Stopped,
    StoreError,
    StoreUnusable,
    disk_full,
)


class StoreErrorTests(SynchronousTestCase):
    def test_one_tree(self) -> None:
        for kind in (StoreUnusable, IndexFailed, Damaged, FillFailed):
            self.assertTrue(issubclass(kind, StoreError), kind)

    def test_a_reader_need_not_know_why_content_is_wrong(self) -> None:
        for kind in (DigestMismatch, DiskFailed, SizeMismatch, Stopped):
            self.assertTrue(issubclass(kind, FillFailed), kind)

    def test_damaged_is_not_the_disks_failure(self) -> None:
        """After it nobody may go on from elsewhere."""
        self.assertFalse(issubclass(Damaged, DiskFailed))

    def test_texts(self) -> None:
        right, wrong = Digest.of(b"a"), Digest.of(b"b")
        self.assertEqual(
            str(DigestMismatch(right, wrong)), f"content is {wrong} where {right} was asked for"
        )
        self.assertIn(str(right), str(Damaged(right)))


class DiskFullTests(SynchronousTestCase):
    def test_full(self) -> None:
        for code in (errno.ENOSPC, errno.EDQUOT):
            self.assertTrue(disk_full(OSError(code, "full")))

    def test_other_errors(self) -> None:
        for error in (OSError(errno.EIO, "broken"), OSError("?"), IndexFailed("?"), None):
            self.assertFalse(disk_full(error))

    def test_cause(self) -> None:
        error = DiskFailed("full")
        error.__cause__ = OSError(errno.ENOSPC, "full")
        self.assertTrue(disk_full(error))

    def test_database(self) -> None:
        connection = sqlite3.connect(":memory:")
        self.addCleanup(connection.close)
        connection.execute("CREATE TABLE t (x)")
        connection.execute("PRAGMA max_page_count = 2")
        error = IndexFailed("full")
        error.__cause__ = self.assertRaises(
            sqlite3.Error, connection.execute, "INSERT INTO t VALUES (zeroblob(100000))"
        )
        self.assertTrue(disk_full(error))
        error.__cause__ = self.assertRaises(sqlite3.Error, connection.execute, "nonsense")
        self.assertFalse(disk_full(error))
