from __future__ import annotations

import fcntl
import os
import random
import sqlite3
from contextlib import closing
from pathlib import Path

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from regproxy.store import database as database_module
from regproxy.store.database import STEPS, Database
from regproxy.store.errors import IndexFailed, StoreUnusable
from tests.support.workers import Now

_INSERT = "INSERT INTO public VALUES (?, ?, ?)"
_COUNT = "SELECT count(*) FROM public"


class DatabaseCase(SynchronousTestCase):
    def setUp(self) -> None:
        directory = Path(self.mktemp())
        directory.mkdir()
        self.path = directory / "index.sqlite3"

    def open(self) -> Database:
        """The database, opened as by a process of its own."""
        database = Database(self.path, Now())
        database.open()
        self.addCleanup(database.close)
        return database

    def write(self, database: Database, host: str = "a") -> None:
        self.successResultOf(database.write(_INSERT, [(host, "b", 1.0)]))


class OpenTests(DatabaseCase):
    def test_fresh_process_on_an_old_file(self) -> None:
        old = Database(self.path, Now())
        old.open()
        self.write(old)
        old.close()
        self.assertEqual(self.open().row(_COUNT), (1,))

    def unusable(self) -> str:
        return str(self.assertRaises(StoreUnusable, Database(self.path, Now()).open))

    def test_version_of_the_future(self) -> None:
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute("PRAGMA user_version = 99")
        text = self.unusable()
        for part in (str(self.path), "version 99", "move the file away"):
            self.assertIn(part, text)
        # It is let go of, and left as it was.
        with closing(sqlite3.connect(self.path, timeout=0)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            self.assertEqual(connection.execute("SELECT * FROM sqlite_master").fetchall(), [])

    def test_no_directory(self) -> None:
        self.path = self.path.parent / "missing" / "index.sqlite3"
        self.assertIn("missing", self.unusable())

    def test_opened_after_it_was_unusable(self) -> None:
        self.path.mkdir()
        text = self.unusable()
        self.assertIn(str(self.path), text)
        self.assertIn("move the file away", text)
        self.path.rmdir()
        self.open()

    def test_one_process_at_a_time(self) -> None:
        """SQLite refuses one of two that switch a new file to WAL at once, and does not wait."""
        lock = os.open(self.path.parent, os.O_RDONLY)
        self.addCleanup(os.close, lock)
        flock = fcntl.flock

        waits: list[int] = []

        def other_is_first(descriptor: int, operation: int) -> None:
            waits.append(descriptor)
            self.assertFalse(self.path.exists())
            flock(lock, fcntl.LOCK_EX)
            with self.assertRaises(BlockingIOError):
                flock(descriptor, operation | fcntl.LOCK_NB)
            flock(lock, fcntl.LOCK_UN)
            flock(descriptor, operation)

        self.patch(fcntl, "flock", other_is_first)
        self.open()
        self.assertEqual(len(waits), 1)
        # It is let go of.
        flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


class DamageTests(DatabaseCase):
    """A file that is no database any more does not stop the start."""

    def repaired(self) -> None:
        """It opens, empty; the damaged file is kept, and told of."""
        with capturedLogs() as events:
            database = self.open()
        (aside,) = self.path.parent.glob("index.sqlite3.damaged-*Z")
        (event,) = events
        self.assertEqual(event["log_level"].name, "error")
        self.assertEqual((event["path"], event["aside"]), (str(self.path), aside.name))
        self.assertEqual(database.row(_COUNT), (0,))
        self.write(database)

    def filled(self) -> bytes:
        database = Database(self.path, Now())
        database.open()
        for number in range(1000):
            self.write(database, str(number))
        database.close()
        return self.path.read_bytes()

    def test_no_database(self) -> None:
        self.path.write_bytes(damaged := b"something else, and of some length" * 100)
        os.utime(self.path, (0, 86400))
        self.repaired()
        aside = self.path.with_name("index.sqlite3.damaged-19700102T000000Z")
        self.assertEqual(aside.read_bytes(), damaged)

    def test_first_page(self) -> None:
        content = self.filled()
        self.path.write_bytes(content[:100] + bytes(4000) + content[4100:])
        self.repaired()

    def test_any_page(self) -> None:
        """It opens and can be read in part: the check finds it."""
        content = bytearray(self.filled())
        chance = random.Random(1)
        for page in range(4096 * 4, len(content), 4096):
            content[page : page + 512] = chance.randbytes(512)
        self.path.write_bytes(content)
        self.repaired()

    def test_cut_off(self) -> None:
        self.path.write_bytes(self.filled()[: 4096 * 3])
        self.repaired()

    def test_journal(self) -> None:
        """What belongs to the damaged file goes with it, and is not replayed into the new one."""
        content = self.filled()
        database = self.open()
        self.write(database, "in the journal")
        journal = Path(f"{self.path}-wal").read_bytes()
        self.assertTrue(journal)
        other = self.path.parent / "other"
        other.mkdir()
        self.path = other / "index.sqlite3"
        self.path.write_bytes(content[:8192] + bytes(len(content) - 8192))
        Path(f"{self.path}-wal").write_bytes(journal)
        self.repaired()

    def test_locked_is_not_damaged(self) -> None:
        self.filled()
        self.patch(database_module, "_BUSY_TIMEOUT_MS", 1)
        with closing(sqlite3.connect(self.path)) as other:
            other.execute("PRAGMA locking_mode = EXCLUSIVE")
            other.execute("BEGIN EXCLUSIVE")
            text = str(self.assertRaises(StoreUnusable, Database(self.path, Now()).open))
        self.assertIn("locked", text)
        self.assertEqual(list(self.path.parent.glob("*damaged*")), [])


class MigrationTests(DatabaseCase):
    def old(self, version: int) -> None:
        """A file that an old program has written."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            for step in STEPS[:version]:
                for statement in step:
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {version}")
            connection.executemany(
                "INSERT INTO content (digest, size, stored_at, last_access) VALUES (?, ?, ?, ?)",
                [(f"sha256:{number:064x}", number, 10.0, 20.0) for number in range(5)],
            )
            connection.execute("INSERT INTO tag VALUES ('h', 'r', 't', 'a', 'd', 'm', 1.0)")

    def schema(self) -> list[tuple[str, str]]:
        with closing(sqlite3.connect(self.path)) as connection:
            rows = connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name")
            return [(str(name), str(sql)) for name, sql in rows]

    def test_from_version_1(self) -> None:
        self.old(1)
        database = self.open()
        self.assertEqual(database.row("PRAGMA user_version"), (len(STEPS),))
        self.assertEqual(database.row("SELECT * FROM total"), (10, 5))
        self.assertEqual(
            database.row("SELECT * FROM content WHERE size = 3"),
            (f"sha256:{3:064x}", 3, 10.0, 20.0, 0, 0.0, 0),
        )
        self.assertEqual(database.row("SELECT checked_at FROM tag"), (1.0,))
        migrated = self.schema()
        self.path = self.path.with_name("new.sqlite3")
        self.open()
        self.assertEqual(self.schema(), migrated)

    def test_from_a_later_file_of_version_1(self) -> None:
        """One that has the table of public repositories already."""
        self.old(1)
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute(STEPS[1][0])
            connection.execute(_INSERT, ("a", "b", 1.0))
        self.assertEqual(self.open().row(_COUNT), (1,))

    def test_interrupted(self) -> None:
        """A migration is one transaction."""
        self.old(1)
        before = self.schema()
        self.patch(database_module, "STEPS", (*STEPS, ("CREATE TABLE more (x)", "SYNTAX ERROR")))
        self.assertRaises(StoreUnusable, Database(self.path, Now()).open)
        self.assertEqual(self.schema(), before)


class UseTests(DatabaseCase):
    def test_failed_write_leaves_nothing(self) -> None:
        database = self.open()
        failure = self.failureResultOf(
            database.write(_INSERT, [("a", "b", 1.0), ("a", "b", 2.0)]), IndexFailed
        )
        self.assertIn(str(self.path), str(failure.value))
        self.assertEqual(database.row(_COUNT), (0,))
        self.write(database)

    def test_lock_is_never_let_go(self) -> None:
        self.patch(database_module, "_BUSY_TIMEOUT_MS", 1)
        database = self.open()
        with closing(sqlite3.connect(self.path)) as other:
            other.execute("BEGIN EXCLUSIVE")
            failure = self.failureResultOf(database.write(_INSERT, [("a", "b", 1.0)]), IndexFailed)
            self.assertIn("locked", str(failure.value))
            other.rollback()
        self.write(database)

    def test_read_fails(self) -> None:
        database = self.open()
        self.assertRaises(IndexFailed, database.rows, "SELECT * FROM nothing")
