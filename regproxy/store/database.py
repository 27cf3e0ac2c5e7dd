"""The database file behind the index: its schema, its connections, its repair.

SQLite in WAL mode: readers never wait for the writer, and several processes may have
the file open (https://sqlite.org/wal.html).

A damaged file is moved aside, and a new one made: what is in it can be learnt again. Damage
that shows when it is opened is seen to at once. To find the rest takes as long as to read the
file, seconds for a million blobs; that is done while requests are served.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Final, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from regproxy.store.disk import Workers
from regproxy.store.errors import IndexFailed, StoreUnusable

T = TypeVar("T")

# Whether a media type is that of a manifest, for the step in which it is used.
_IS_MANIFEST: Final = (
    "lower(trim(substr({0}, 1, instr({0} || ';', ';') - 1))) IN ("
    "'application/vnd.oci.image.index.v1+json',"
    " 'application/vnd.oci.image.manifest.v1+json',"
    " 'application/vnd.docker.distribution.manifest.list.v2+json',"
    " 'application/vnd.docker.distribution.manifest.v2+json')"
)

# The statements that make each version out of the one before; the first, out of nothing.
STEPS: Final[tuple[tuple[str, ...], ...]] = (
    (
        """CREATE TABLE content (
            digest TEXT PRIMARY KEY,
            size INTEGER NOT NULL,
            stored_at REAL NOT NULL,
            last_access REAL NOT NULL
        ) WITHOUT ROWID""",
        """CREATE TABLE membership (
            host TEXT NOT NULL,
            repository TEXT NOT NULL,
            digest TEXT NOT NULL,
            media_type TEXT NOT NULL,
            PRIMARY KEY (host, repository, digest)
        ) WITHOUT ROWID""",
        """CREATE TABLE tag (
            host TEXT NOT NULL,
            repository TEXT NOT NULL,
            tag TEXT NOT NULL,
            accept TEXT NOT NULL,
            digest TEXT NOT NULL,
            media_type TEXT NOT NULL,
            checked_at REAL NOT NULL,
            PRIMARY KEY (host, repository, tag, accept)
        ) WITHOUT ROWID""",
    ),
    (
        # The later files of version 1 have it already.
        """CREATE TABLE IF NOT EXISTS public (
            host TEXT NOT NULL,
            repository TEXT NOT NULL,
            seen_at REAL NOT NULL,
            PRIMARY KEY (host, repository)
        ) WITHOUT ROWID""",
        "ALTER TABLE content ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0",
        # When the file was last seen to be what its name says, and its st_ctime_ns then.
        "ALTER TABLE content ADD COLUMN verified_at REAL NOT NULL DEFAULT 0",
        "ALTER TABLE content ADD COLUMN changed INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX content_by_use ON content (last_access, digest) WHERE pinned = 0",
        "CREATE INDEX content_by_verification ON content (verified_at, digest)",
        # Kept by the triggers, so that nobody has to add up: it holds with several writers.
        "CREATE TABLE total (bytes INTEGER NOT NULL, blobs INTEGER NOT NULL)",
        "INSERT INTO total SELECT coalesce(sum(size), 0), count(*) FROM content",
        """CREATE TRIGGER content_added AFTER INSERT ON content BEGIN
            UPDATE total SET bytes = bytes + new.size, blobs = blobs + 1;
        END""",
        """CREATE TRIGGER content_removed AFTER DELETE ON content BEGIN
            UPDATE total SET bytes = bytes - old.size, blobs = blobs - 1;
        END""",
        """CREATE TRIGGER content_resized AFTER UPDATE OF size ON content BEGIN
            UPDATE total SET bytes = bytes - old.size + new.size;
        END""",
    ),
    # When a row was written or, give or take a day, last looked up: regproxy.store.forgetting.
    # Of what is here already nobody knows: it counts as used now.
    tuple(
        statement
        for table in ("membership", "tag", "public")
        for statement in (
            f"ALTER TABLE {table} ADD COLUMN used_at REAL NOT NULL DEFAULT 0",
            f"UPDATE {table} SET used_at = strftime('%s', 'now')",
        )
    ),
    # Images, and what they consist of: see regproxy.store.cataloguing. The triggers note what has
    # become of which manifest, so that nobody who writes the tables above has to know of images.
    (
        # The address of the client for which it was first stored.
        "ALTER TABLE content ADD COLUMN brought_by TEXT",
        # What a stored manifest names; what is not a blob is a manifest itself.
        """CREATE TABLE part (
            manifest TEXT NOT NULL,
            digest TEXT NOT NULL,
            is_blob INTEGER NOT NULL,
            PRIMARY KEY (manifest, digest)
        ) WITHOUT ROWID""",
        "CREATE INDEX part_by_digest ON part (digest)",
        # Manifests by what they are called: by each tag, under whatever Accept; with '' for a tag,
        # by each repository that has it. What stands after the key is worked out, and may be late.
        """CREATE TABLE image (
            host TEXT NOT NULL,
            repository TEXT NOT NULL,
            tag TEXT NOT NULL,
            digest TEXT NOT NULL,
            shown INTEGER NOT NULL DEFAULT 0,
            bytes INTEGER NOT NULL DEFAULT 0,
            complete INTEGER NOT NULL DEFAULT 0,
            last_used REAL NOT NULL DEFAULT 0,
            PRIMARY KEY (host, repository, tag, digest)
        ) WITHOUT ROWID""",
        "CREATE INDEX image_by_digest ON image (digest)",
        "CREATE INDEX image_by_name ON image (host, repository, tag, digest) WHERE shown",
        "CREATE INDEX image_by_use ON image (last_used, host, repository, tag, digest) WHERE shown",
        "CREATE INDEX image_by_size ON image (bytes, host, repository, tag, digest) WHERE shown",
        # Digests for which something is to be worked out; and for all manifests above them, if it
        # was they that changed.
        """CREATE TABLE pending (
            digest TEXT PRIMARY KEY,
            changed INTEGER NOT NULL DEFAULT 1
        ) WITHOUT ROWID""",
        # What is to be kept: an image by its tag or digest.
        """CREATE TABLE pin (
            host TEXT NOT NULL,
            repository TEXT NOT NULL,
            reference TEXT NOT NULL,
            PRIMARY KEY (host, repository, reference)
        ) WITHOUT ROWID""",
        # What an operator has put into a repository, and when: see regproxy.registry.permissions.
        """CREATE TABLE adopted (
            host TEXT NOT NULL,
            repository TEXT NOT NULL,
            digest TEXT NOT NULL,
            adopted_at REAL NOT NULL,
            PRIMARY KEY (host, repository, digest)
        ) WITHOUT ROWID""",
        # Before, as what is replaced is still there then; and most rows are only renewed.
        """CREATE TRIGGER tag_changed BEFORE INSERT ON tag
            WHEN NOT EXISTS (
                SELECT 1 FROM tag WHERE host = new.host AND repository = new.repository
                AND tag = new.tag AND accept = new.accept AND digest = new.digest
            ) BEGIN
            INSERT OR REPLACE INTO pending (digest) SELECT digest FROM tag WHERE host = new.host
                AND repository = new.repository AND tag = new.tag AND accept = new.accept;
            DELETE FROM image WHERE host = new.host AND repository = new.repository
                AND tag = new.tag AND digest = (
                    SELECT digest FROM tag WHERE host = new.host AND repository = new.repository
                    AND tag = new.tag AND accept = new.accept
                ) AND NOT EXISTS (
                    SELECT 1 FROM tag WHERE host = new.host AND repository = new.repository
                    AND tag = new.tag AND digest = image.digest AND accept != new.accept
                );
            INSERT INTO image (host, repository, tag, digest)
                SELECT new.host, new.repository, new.tag, new.digest WHERE NOT EXISTS (
                    SELECT 1 FROM image WHERE host = new.host AND repository = new.repository
                    AND tag = new.tag AND digest = new.digest
                );
            INSERT OR REPLACE INTO pending (digest) VALUES (new.digest);
        END""",
        """CREATE TRIGGER tag_removed AFTER DELETE ON tag BEGIN
            DELETE FROM image WHERE host = old.host AND repository = old.repository
                AND tag = old.tag AND digest = old.digest AND NOT EXISTS (
                    SELECT 1 FROM tag WHERE host = old.host AND repository = old.repository
                    AND tag = old.tag AND digest = old.digest
                );
            INSERT OR REPLACE INTO pending (digest) VALUES (old.digest);
        END""",
        f"""CREATE TRIGGER membership_added BEFORE INSERT ON membership
            WHEN {_IS_MANIFEST.format("new.media_type")} AND NOT EXISTS (
                SELECT 1 FROM image WHERE host = new.host AND repository = new.repository
                AND tag = '' AND digest = new.digest
            ) BEGIN
            INSERT INTO image (host, repository, tag, digest)
                VALUES (new.host, new.repository, '', new.digest);
            INSERT OR REPLACE INTO pending (digest) VALUES (new.digest);
        END""",
        """CREATE TRIGGER membership_removed AFTER DELETE ON membership BEGIN
            DELETE FROM adopted WHERE host = old.host AND repository = old.repository
                AND digest = old.digest;
            INSERT OR REPLACE INTO pending (digest) SELECT digest FROM image WHERE host = old.host
                AND repository = old.repository AND tag = '' AND digest = old.digest;
            DELETE FROM image WHERE host = old.host AND repository = old.repository
                AND tag = '' AND digest = old.digest;
        END""",
        *(
            f"""CREATE TRIGGER content_{event}_noted AFTER {action} ON content
            WHEN EXISTS (SELECT 1 FROM part WHERE digest = {row}.digest)
                OR EXISTS (SELECT 1 FROM image WHERE digest = {row}.digest) BEGIN
            INSERT OR REPLACE INTO pending (digest) VALUES ({row}.digest);
        END"""
            for event, action, row in (("added", "INSERT", "new"), ("removed", "DELETE", "old"))
        ),
        """CREATE TRIGGER content_used AFTER UPDATE OF last_access ON content BEGIN
            UPDATE image SET last_used = new.last_access WHERE digest = new.digest;
        END""",
        """INSERT INTO image (host, repository, tag, digest)
            SELECT DISTINCT host, repository, tag, digest FROM tag""",
        f"""INSERT INTO image (host, repository, tag, digest)
            SELECT host, repository, '', digest FROM membership
            WHERE {_IS_MANIFEST.format("media_type")}""",
        "INSERT INTO pending (digest) SELECT DISTINCT digest FROM image",
    ),
)

# A writer of another process holds the lock for one small transaction; ten
# seconds is far more than that and still an answer.
_BUSY_TIMEOUT_MS: Final = 10_000


class Database:
    """The database of one cache directory.

    Args:
        path: the file; made when it is not there.
        workers: runs what is given to :meth:`run`, one at a time.
    """

    _log = Logger()

    def __init__(self, path: Path, workers: Workers) -> None:
        self._path = path
        self._workers = workers
        # Held while the reader is used, and while the connections are changed.
        self._using = Lock()

    def open(self) -> None:
        """Open the file, which must not be held across a fork; a new one if it is damaged.

        Raises:
            StoreUnusable: it cannot be opened.
        """
        try:
            with _alone(self._path.parent):
                try:
                    self._connect()
                except sqlite3.DatabaseError as error:
                    if not _is_damage(error):
                        raise
                    self._move_aside(str(error))
                    self._connect()
        except (sqlite3.Error, OSError) as error:
            raise StoreUnusable(
                f"index {self._path} cannot be opened ({error}): move the file away to start"
                " with an empty one, or give another [cache] directory"
            ) from error

    def close(self) -> None:
        """Close the file; nothing may be under way."""
        self._reader.close()
        self._writer.close()

    async def repair(self, readers: Workers) -> bool:
        """Read all of the file, and make a new one if it is damaged; whether it was.

        Args:
            readers: one of them reads it. Neither look-ups nor writes wait for that.

        Raises:
            IndexFailed: it cannot be read, or no new one be made.
        """
        with self._told():
            file = self._path.stat()
            connection = sqlite3.connect(self._path, check_same_thread=False)
        try:
            damage = await readers.run(partial(self._examine, connection))
        except CancelledError:
            # It may just have come to its end.
            with suppress(sqlite3.ProgrammingError):
                connection.interrupt()
            raise
        if damage is None:
            return False
        await self._workers.run(partial(self._renew, file, damage))
        return True

    def row(self, query: str, *key: object) -> Any:
        """The first row of a look-up by *key*, or None.

        On the caller's thread. Raises IndexFailed.
        """
        return next(iter(self.rows(query, *key)), None)

    def rows(self, query: str, *key: object) -> list[Any]:
        """The rows of a look-up by *key*.

        On the caller's thread. Raises IndexFailed.
        """
        try:
            with self._using:
                return self._reader.execute(query, key).fetchall()
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def run(self, call: Callable[[sqlite3.Connection], T]) -> Deferred[T]:
        """The result of *call* in the worker thread, in a transaction of its own.

        Fails with IndexFailed.
        """

        def work() -> T:
            with self._told(), self._writer:
                return call(self._writer)

        return self._workers.run(work)

    def write(self, statement: str, rows: Iterable[tuple[object, ...]]) -> Deferred[None]:
        """Have *statement* done for each of *rows*, in one transaction.

        *rows* are gone through in the worker thread. Fails with IndexFailed.
        """

        def call(connection: sqlite3.Connection) -> None:
            connection.executemany(statement, rows)

        return self.run(call)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> IndexFailed:
        return IndexFailed(f"{self._path}: {error}")

    def _examine(self, connection: sqlite3.Connection) -> str | None:
        """What is wrong with the file, if anything is. In a worker thread."""
        with self._told(), closing(connection):
            try:
                (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                return str(error)
        return None if found == "ok" else str(found)

    def _renew(self, file: os.stat_result, damage: str) -> None:
        """Begin anew in the place of *file*.

        In the worker thread, so that no write is under way; look-ups wait.
        """
        with self._told(), _alone(self._path.parent), self._using:
            self.close()
            # Another process may have come first.
            if os.path.samestat(self._path.stat(), file):
                self._move_aside(damage)
            self._connect()

    def _connect(self) -> None:
        with ExitStack() as stack:
            # The writer is used by one worker thread at a time, the reader by the
            # caller's; sqlite3 itself is built serialized.
            self._writer, self._reader = (
                stack.enter_context(closing(sqlite3.connect(self._path, check_same_thread=False)))
                for _ in range(2)
            )
            _configure(self._writer)
            _migrate(self._writer, self._path)
            _configure(self._reader)
            # A table cannot be read where the schema cannot.
            self._reader.execute("SELECT * FROM total").fetchone()
            stack.pop_all()

    def _move_aside(self, damage: str) -> None:
        written = datetime.fromtimestamp(self._path.stat().st_mtime, UTC)
        aside = self._path.with_name(f"{self._path.name}.damaged-{written:%Y%m%dT%H%M%SZ}")
        # The journal first: it would be replayed into the next file of that name.
        for suffix in ("-wal", "-shm", ""):
            with suppress(FileNotFoundError):
                Path(f"{self._path}{suffix}").rename(f"{aside}{suffix}")
        self._log.error(
            "The index {path} is damaged ({reason}); it is now {aside}, and a new one is built",
            path=str(self._path),
            aside=aside.name,
            reason=damage,
        )


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Let one process at a time open the index of *directory*.

    Two that switch a new file to WAL at once do not wait for each other, whatever the
    busy timeout: SQLite refuses one of them, as waiting could be a deadlock.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    # Being locked, or a disk that fails, is a DatabaseError too.
    code = getattr(error, "sqlite_errorcode", None)
    # The low byte is the primary code: https://sqlite.org/rescode.html
    return code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _configure(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA journal_mode = WAL")
    # In WAL mode this loses the last transactions at a power cut, never the
    # file's consistency; a lost row costs a HEAD, not content.
    connection.execute("PRAGMA synchronous = NORMAL")


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(STEPS):
            raise StoreUnusable(
                f"index {path} is of version {version}, this program knows {len(STEPS)}:"
                " use the program that wrote it, or move the file away"
            )
        if version == len(STEPS):
            return
        for step in STEPS[version:]:
            for statement in step:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(STEPS)}")
