from __future__ import annotations

import fcntl
import os
import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from regproxy.store import database as database_module
from regproxy.store.database import STEPS, Database
from regproxy.store.errors import IndexFailed, StoreUnusable
from tests.support.workers import Later, Now

T = TypeVar("T")

_INSERT = "INSERT INTO public VALUES (?, ?, ?, 0)"
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

    def repaired(self, database: Database | None = None) -> None:
        """It opens, empty, or is made so; the damaged file is kept, and told of."""
        with capturedLogs() as events:
            if database is None:
                database = self.open()
            else:
                repairing = ensureDeferred(database.repair(Now()))
                self.assertTrue(self.successResultOf(repairing))
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

    def damage(self) -> None:
        """Have a file that opens, and can be read in part."""
        content = bytearray(self.filled())
        chance = random.Random(1)
        for page in range(4096 * self.pages(), len(content), 4096):
            content[page : page + 512] = chance.randbytes(512)
        self.path.write_bytes(content)

    def pages(self) -> int:
        """How many pages an empty one has."""
        empty = Database(self.path.with_name("empty"), Now())
        empty.open()
        (count,) = empty.row("PRAGMA page_count")
        empty.close()
        return int(count)

    def test_any_page(self) -> None:
        """The whole file is read, and what is wrong with it is found."""
        self.damage()
        self.repaired(self.open())

    def test_cut_off(self) -> None:
        content = self.filled()
        self.path.write_bytes(content[: 4096 * self.pages()])
        self.repaired()

    def test_sound(self) -> None:
        self.filled()
        database = self.open()
        repairing = ensureDeferred(database.repair(Now()))
        self.assertFalse(self.successResultOf(repairing))
        self.assertEqual(database.row(_COUNT), (1000,))
        self.assertEqual(list(self.path.parent.glob("*damaged*")), [])

    def test_meanwhile(self) -> None:
        """While it is read, others look things up and write."""
        self.filled()
        database = self.open()
        readers = Later()
        repairing = ensureDeferred(database.repair(readers))
        self.write(database, "meanwhile")
        self.assertEqual(database.row(_COUNT), (1001,))
        self.assertNoResult(repairing)
        readers.all()
        self.assertFalse(self.successResultOf(repairing))

    def test_found_by_two(self) -> None:
        """Of two processes one makes the new file, and both use it."""
        self.damage()
        first, second = self.open(), self.open()
        readers = Later()
        with capturedLogs() as events:
            repairing = [ensureDeferred(each.repair(readers)) for each in (first, second)]
            readers.all()
        for each in repairing:
            self.assertTrue(self.successResultOf(each))
        self.assertEqual(len(events), 1)
        self.assertEqual(len(list(self.path.parent.glob("*.damaged-*Z"))), 1)
        self.write(first)
        self.assertEqual(second.row(_COUNT), (1,))

    def test_given_up(self) -> None:
        """The reading ends when nobody waits for it any more, so that a stop need not wait."""
        database = self.open()
        connect: Callable[..., sqlite3.Connection] = sqlite3.connect
        failures: list[object] = []

        def connected(*args: Any, **options: Any) -> sqlite3.Connection:
            connection = connect(*args, **options)
            connection.set_progress_handler(lambda: repairing.cancel(), 1)
            return connection

        def examine(connection: sqlite3.Connection) -> None:
            failures.append(self.assertRaises(IndexFailed, examined, connection))

        self.patch(sqlite3, "connect", connected)
        examined = database._examine
        self.patch(database, "_examine", examine)
        readers = Later()
        repairing = ensureDeferred(database.repair(readers))
        readers.all()
        self.failureResultOf(repairing, CancelledError)
        self.assertEqual(len(failures), 1)

    def test_given_up_too_late(self) -> None:
        """It has come to its end, and the reactor does not know yet."""

        class Ended(Now):
            def run(self, call: Callable[[], T]) -> Deferred[T]:
                call()
                return Deferred()

        repairing = ensureDeferred(self.open().repair(Ended()))
        repairing.cancel()
        self.failureResultOf(repairing, CancelledError)

    def test_cannot_be_read(self) -> None:
        """Not to know is no reason to begin anew."""
        database = self.open()
        self.path.rename(self.path.with_name("elsewhere"))
        self.failureResultOf(ensureDeferred(database.repair(Now())), IndexFailed)

    def test_no_new_one(self) -> None:
        """Nothing can be looked up then, but nothing worse happens."""
        self.damage()
        database = self.open()

        def refuse(*_: object) -> None:
            raise sqlite3.OperationalError("disk full")

        patch = self.patch(database_module, "_migrate", refuse)
        with capturedLogs():
            self.failureResultOf(ensureDeferred(database.repair(Now())), IndexFailed)
        self.assertRaises(IndexFailed, database.row, _COUNT)
        self.failureResultOf(database.write(_INSERT, [("a", "b", 1.0)]), IndexFailed)
        patch.restore()
        self.assertEqual(self.open().row(_COUNT), (0,))

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
            (f"sha256:{3:064x}", 3, 10.0, 20.0, 0, 0.0, 0, None),
        )
        checked_at, used_at = database.row("SELECT checked_at, used_at FROM tag")
        self.assertEqual(checked_at, 1.0)
        # Nobody knows: now.
        self.assertLess(abs(time.time() - used_at), 60.0)
        migrated = self.schema()
        self.path = self.path.with_name("new.sqlite3")
        self.open()
        self.assertEqual(self.schema(), migrated)

    def test_from_a_later_file_of_version_1(self) -> None:
        """One that has the table of public repositories already."""
        self.old(1)
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute(STEPS[1][0])
            connection.execute("INSERT INTO public VALUES ('a', 'b', 1.0)")
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
