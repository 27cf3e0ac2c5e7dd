"""The index: what tags point to, which repository has which content, when it was used.

SQLite in WAL mode: readers never wait for the writer, and several processes may have
the file open (https://sqlite.org/wal.html). Reads are look-ups by primary key on the
caller's thread; writes go through one worker thread, each in a transaction of its own.
Both fail with IndexFailed.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final

from attrs import frozen
from twisted.internet.defer import Deferred

from regproxy.oci.names import Digest, Host, Repository, Tag
from regproxy.store.disk import Workers
from regproxy.store.errors import IndexFailed, StoreUnusable

_VERSION: Final = 1

_SCHEMA: Final = """
CREATE TABLE content (
    digest TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    stored_at REAL NOT NULL,
    last_access REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE membership (
    host TEXT NOT NULL,
    repository TEXT NOT NULL,
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    PRIMARY KEY (host, repository, digest)
) WITHOUT ROWID;
CREATE TABLE public (
    host TEXT NOT NULL,
    repository TEXT NOT NULL,
    seen_at REAL NOT NULL,
    PRIMARY KEY (host, repository)
) WITHOUT ROWID;
CREATE TABLE tag (
    host TEXT NOT NULL,
    repository TEXT NOT NULL,
    tag TEXT NOT NULL,
    accept TEXT NOT NULL,
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    checked_at REAL NOT NULL,
    PRIMARY KEY (host, repository, tag, accept)
) WITHOUT ROWID;
"""

# A writer of another process holds the lock for one small transaction; ten
# seconds is far more than that and still an answer.
_BUSY_TIMEOUT_MS: Final = 10_000


@frozen
class TagKey:
    """What a client asked for: the same tag may be another manifest under another Accept."""

    host: Host
    repository: Repository
    tag: Tag
    accept: str


@frozen
class TagEntry:
    """Where a tag pointed when upstream was last asked.

    ``checked_at`` is in seconds since the epoch.
    """

    digest: Digest
    media_type: str
    checked_at: float


class Index:
    """The index of one cache directory.

    Args:
        path: the database file; made when it is not there.
        workers: runs the writes, one at a time.
    """

    def __init__(self, path: Path, workers: Workers) -> None:
        self._path = path
        self._workers = workers

    def open(self) -> None:
        """Open the database, which must not be held across a fork.

        Raises:
            StoreUnusable: it cannot be.
        """
        try:
            with _alone(self._path.parent), ExitStack() as stack:
                self._writer = stack.enter_context(closing(_connect(self._path)))
                _configure(self._writer)
                _migrate(self._writer, self._path)
                self._reader = stack.enter_context(closing(_connect(self._path)))
                _configure(self._reader)
                stack.pop_all()
        except (sqlite3.Error, OSError) as error:
            raise StoreUnusable(
                f"index {self._path} cannot be opened ({error}): move the file away to start"
                " with an empty one, or give another [cache] directory"
            ) from error

    def close(self) -> None:
        """Close the database; no write may be under way."""
        self._reader.close()
        self._writer.close()

    # Tags.

    def tag(self, key: TagKey) -> TagEntry | None:
        """Where *key* pointed, or None when it was never seen."""
        row = self._row(
            "SELECT digest, media_type, checked_at FROM tag"
            " WHERE host = ? AND repository = ? AND tag = ? AND accept = ?",
            *_tag_columns(key),
        )
        return None if row is None else TagEntry(Digest.parse(row[0]), row[1], row[2])

    def variants(self, host: Host, repository: Repository, tag: Tag) -> list[TagEntry]:
        """Where *tag* pointed under whatever Accept, what was checked last first."""
        rows = self._rows(
            "SELECT digest, media_type, checked_at FROM tag"
            " WHERE host = ? AND repository = ? AND tag = ? ORDER BY checked_at DESC",
            str(host),
            str(repository),
            str(tag),
        )
        return [TagEntry(Digest.parse(row[0]), row[1], row[2]) for row in rows]

    def put_tag(self, key: TagKey, entry: TagEntry) -> Deferred[None]:
        """Record where *key* points now."""
        return self._write(
            "INSERT OR REPLACE INTO tag VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(*_tag_columns(key), str(entry.digest), entry.media_type, entry.checked_at)],
        )

    def drop_tag(self, host: Host, repository: Repository, tag: Tag) -> Deferred[None]:
        """Forget *tag* under every Accept."""
        return self._write(
            "DELETE FROM tag WHERE host = ? AND repository = ? AND tag = ?",
            [(str(host), str(repository), str(tag))],
        )

    # Which repository has which content.

    def membership(self, host: Host, repository: Repository, digest: Digest) -> str | None:
        """The media type under which *repository* has *digest*; None when it is not known to."""
        row = self._row(
            "SELECT media_type FROM membership WHERE host = ? AND repository = ? AND digest = ?",
            str(host),
            str(repository),
            str(digest),
        )
        return None if row is None else str(row[0])

    def put_membership(
        self, host: Host, repository: Repository, digest: Digest, media_type: str
    ) -> Deferred[None]:
        """Record that *repository* has *digest*."""
        return self._write(
            "INSERT OR REPLACE INTO membership VALUES (?, ?, ?, ?)",
            [(str(host), str(repository), str(digest), media_type)],
        )

    def knows(self, host: Host) -> bool:
        """Whether anything of *host* is known."""
        row = self._row("SELECT 1 FROM membership WHERE host = ? LIMIT 1", str(host))
        return row is not None

    # Which repository anybody may read.

    def public_at(self, host: Host, repository: Repository) -> float | None:
        """When *repository* was last seen to be readable without a login, if ever."""
        row = self._row(
            "SELECT seen_at FROM public WHERE host = ? AND repository = ?",
            str(host),
            str(repository),
        )
        return None if row is None else float(row[0])

    def put_public(
        self, host: Host, repository: Repository, seen_at: float | None
    ) -> Deferred[None]:
        """Record when *repository* was readable without a login; None: it is not any more."""
        key = (str(host), str(repository))
        if seen_at is None:
            return self._write("DELETE FROM public WHERE host = ? AND repository = ?", [key])
        return self._write("INSERT OR REPLACE INTO public VALUES (?, ?, ?)", [(*key, seen_at)])

    # Content.

    def put_content(self, digest: Digest, size: int, now: float) -> Deferred[None]:
        """Record content that stands whole on disk."""
        return self._write(
            "INSERT INTO content VALUES (?, ?, ?, ?)"
            " ON CONFLICT (digest) DO UPDATE SET last_access = excluded.last_access",
            [(str(digest), size, now, now)],
        )

    def last_access(self, digest: Digest) -> float | None:
        """When *digest* was last used, in seconds since the epoch."""
        row = self._row("SELECT last_access FROM content WHERE digest = ?", str(digest))
        return None if row is None else float(row[0])

    def touch(self, used: dict[Digest, float]) -> Deferred[None]:
        """Record when each content was last used."""
        return self._write(
            "UPDATE content SET last_access = ? WHERE digest = ?",
            [(when, str(digest)) for digest, when in used.items()],
        )

    def _row(self, query: str, *key: str) -> Any:
        return next(iter(self._rows(query, *key)), None)

    def _rows(self, query: str, *key: str) -> list[Any]:
        try:
            return self._reader.execute(query, key).fetchall()
        except sqlite3.Error as error:
            raise IndexFailed(f"{self._path}: {error}") from error

    def _write(self, statement: str, rows: list[tuple[object, ...]]) -> Deferred[None]:
        def call() -> None:
            try:
                with self._writer:
                    self._writer.executemany(statement, rows)
            except sqlite3.Error as error:
                raise IndexFailed(f"{self._path}: {error}") from error

        return self._workers.run(call)


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


def _connect(path: Path) -> sqlite3.Connection:
    # The writer is used by one worker thread at a time, the reader by the
    # caller's; sqlite3 itself is built serialized.
    return sqlite3.connect(path, check_same_thread=False)


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
        if version == 0:
            for statement in filter(str.strip, _SCHEMA.split(";")):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {_VERSION}")
        elif version != _VERSION:
            raise StoreUnusable(
                f"index {path} is of version {version}, this program knows {_VERSION}:"
                " use the program that wrote it, or move the file away"
            )


def _tag_columns(key: TagKey) -> tuple[str, str, str, str]:
    return str(key.host), str(key.repository), str(key.tag), key.accept
