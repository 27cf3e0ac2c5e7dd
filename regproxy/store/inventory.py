"""All that is in the index: for those who keep house, not for those who serve.

Everything here runs in the index's worker thread. Whoever goes through all of it
takes a page at a time, by an index of the database and on from where the page before
ended: memory and the time of one call do not grow with what is stored. All fails with
IndexFailed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any, Final

from attrs import astuple, frozen
from twisted.internet.defer import Deferred

from regproxy.oci.names import Digest
from regproxy.policy.integrity import ContentRecord
from regproxy.store.database import Database

#: The columns of a :class:`ContentRecord`.
COLUMNS: Final = "digest, size, stored_at, last_access, verified_at, changed"

#: Takes :func:`columns_of` a record.
INSERT: Final = f"INSERT INTO content ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"

#: What is known about upstream: the tables, and the columns that name a row of them.
KEYS: Final = {
    "membership": ("host", "repository", "digest"),
    "tag": ("host", "repository", "tag", "accept"),
    "public": ("host", "repository"),
}

#: The values of those columns.
Key = tuple[str, ...]

# Before all times and all digests.
_FIRST: Final = (float("-inf"), "")

_OLDEST: Final = (
    f"SELECT {COLUMNS} FROM content WHERE pinned = 0 AND (last_access, digest) > (?, ?)"
    " ORDER BY last_access, digest LIMIT ?"
)
_DUE: Final = (
    f"SELECT {COLUMNS} FROM content WHERE (verified_at, digest) > (?, ?) AND verified_at < ?"
    " ORDER BY verified_at, digest LIMIT 1"
)
_BETWEEN: Final = "SELECT digest FROM content WHERE digest >= ? AND digest < ?"
_ONE: Final = f"SELECT {COLUMNS} FROM content WHERE digest = ?"


def _page_of(table: str) -> str:
    """The next rows of a table of KEYS: the key, the last use, whether nobody needs it any more."""
    key, marks = ", ".join(KEYS[table]), ", ".join("?" * len(KEYS[table]))
    # That anybody may read a repository is said of no content.
    lost, pinned = "FALSE", "FALSE"
    if table != "public":
        lost = f"NOT EXISTS (SELECT 1 FROM content WHERE content.digest = {table}.digest)"
        pinned = f"EXISTS (SELECT 1 FROM content WHERE content.digest = {table}.digest AND pinned)"
    return (
        f"SELECT {key}, used_at, (used_at < ? AND NOT {pinned}) OR (used_at < ? AND {lost})"
        f" FROM {table}"
        f" WHERE ({key}) > ({marks}) ORDER BY {key} LIMIT ?"
    )


_PAGES: Final = {table: _page_of(table) for table in KEYS}


def record_of(row: Any) -> ContentRecord:
    """The record in a row of COLUMNS."""
    digest, *rest = row
    return ContentRecord(Digest.parse(digest), *rest)


def columns_of(record: ContentRecord) -> tuple[object, ...]:
    """The values of COLUMNS."""
    return (str(record.digest), *astuple(record, recurse=False)[1:])


@frozen
class Total:
    """How much there is."""

    bytes: int
    blobs: int


class Inventory:
    """What the index says is here."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def total(self) -> Deferred[Total]:
        """How much there is; kept as it changes, not added up."""

        def call(connection: sqlite3.Connection) -> Total:
            return Total(*connection.execute("SELECT bytes, blobs FROM total").fetchone())

        return self._database.run(call)

    def oldest(self, after: ContentRecord | None, limit: int) -> Deferred[list[ContentRecord]]:
        """The *limit* records that are next to be evicted, *after* another one; none pinned."""
        begin = _FIRST if after is None else (after.last_access, str(after.digest))
        return self._records(_OLDEST, *begin, limit)

    def due(self, after: ContentRecord | None, before: float) -> Deferred[list[ContentRecord]]:
        """The one record verified longest ago, *after* another one and *before* a time, if any."""
        begin = _FIRST if after is None else (after.verified_at, str(after.digest))
        return self._records(_DUE, *begin, before)

    def compare(
        self, algorithm: str, beginning: str, here: set[str]
    ) -> Deferred[tuple[set[str], set[str]]]:
        """What of *here* is not recorded, and what is recorded and not *here*.

        Both in hexadecimal. The caller has room for all digests of *algorithm* with
        this *beginning*.
        """
        first = f"{algorithm}:{beginning}"
        # Behind all hexadecimal digits.
        last = f"{first}g"
        start = len(algorithm) + 1

        def call(connection: sqlite3.Connection) -> tuple[set[str], set[str]]:
            rows = connection.execute(_BETWEEN, (first, last))
            recorded = {digest[start:] for (digest,) in rows}
            return here - recorded, recorded - here

        return self._database.run(call)

    def records(self, digests: Iterable[str]) -> Deferred[list[ContentRecord]]:
        """The records of those of *digests* that there are."""

        def call(connection: sqlite3.Connection) -> list[ContentRecord]:
            rows = (connection.execute(_ONE, (digest,)).fetchone() for digest in digests)
            return [record_of(row) for row in rows if row is not None]

        return self._database.run(call)

    def adopt(self, found: Iterable[ContentRecord]) -> Deferred[int]:
        """Record files that the index may not know; how many it did not."""
        rows = [columns_of(record) for record in found]

        def call(connection: sqlite3.Connection) -> int:
            return connection.executemany(f"{INSERT} ON CONFLICT DO NOTHING", rows).rowcount

        return self._database.run(call)

    def forget(self, gone: Iterable[ContentRecord]) -> Deferred[None]:
        """Remove records whose files are gone, except of what was stored anew meanwhile."""
        return self._database.write(
            "DELETE FROM content WHERE digest = ? AND stored_at = ?",
            [(str(each.digest), each.stored_at) for each in gone],
        )

    def forget_useless(
        self, table: str, after: Key | None, unused: float, lost: float, limit: int
    ) -> Deferred[tuple[Key | None, int]]:
        """Remove what nobody needs any more of the next *limit* rows of a table of KEYS.

        Args:
            after: the key of the row before them.
            unused: rows last used before this time go.
            lost: rows whose content is not here go if they were last used before this time.

        Returns:
            the key of the last of them, None if there are none left; and how many went.
        """
        begin = after or ("",) * len(KEYS[table])
        where = " AND ".join(f"{column} = ?" for column in KEYS[table])

        def call(connection: sqlite3.Connection) -> tuple[Key | None, int]:
            page = connection.execute(_PAGES[table], (unused, lost, *begin, limit)).fetchall()
            # Not what another process has used since.
            gone = [row[:-1] for row in page if row[-1]]
            statement = f"DELETE FROM {table} WHERE {where} AND used_at = ?"
            count = connection.executemany(statement, gone).rowcount if gone else 0
            return page[-1][: len(begin)] if page else None, count

        return self._database.run(call)

    def verified(self, record: ContentRecord) -> Deferred[None]:
        """Record that a file is what its name says."""
        return self._database.write(
            f"{INSERT} ON CONFLICT (digest) DO UPDATE SET size = excluded.size,"
            " verified_at = excluded.verified_at, changed = excluded.changed",
            [columns_of(record)],
        )

    def _records(self, query: str, *parameters: object) -> Deferred[list[ContentRecord]]:
        def call(connection: sqlite3.Connection) -> list[ContentRecord]:
            return [record_of(row) for row in connection.execute(query, parameters)]

        return self._database.run(call)
