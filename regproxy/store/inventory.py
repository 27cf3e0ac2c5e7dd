"""The content in the index as a whole: for those who keep house, not for those who serve.

Everything here runs in the index's worker thread. Whoever goes through all of it
takes a page at a time, by an index of the database and on from where the page before
ended. All fails with IndexFailed.
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
_PAGE: Final = f"SELECT {COLUMNS} FROM content WHERE digest > ? ORDER BY digest LIMIT ?"


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

    def page(self, after: ContentRecord | None, limit: int) -> Deferred[list[ContentRecord]]:
        """The next *limit* records in the order of digests."""
        return self._records(_PAGE, "" if after is None else str(after.digest), limit)

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

    def verified(self, record: ContentRecord) -> Deferred[None]:
        """Record that a file is what its name says."""
        return self._database.write(
            f"{INSERT} ON CONFLICT (digest) DO UPDATE SET size = excluded.size,"
            " verified_at = excluded.verified_at, changed = excluded.changed",
            [columns_of(record)],
        )

    def pin(self, digest: Digest, pinned: bool) -> Deferred[bool]:
        """Keep *digest* from being evicted, or do not any more; whether it is here."""

        def call(connection: sqlite3.Connection) -> bool:
            statement = "UPDATE content SET pinned = ? WHERE digest = ?"
            return connection.execute(statement, (pinned, str(digest))).rowcount > 0

        return self._database.run(call)

    def _records(self, query: str, *parameters: object) -> Deferred[list[ContentRecord]]:
        def call(connection: sqlite3.Connection) -> list[ContentRecord]:
            return [record_of(row) for row in connection.execute(query, parameters)]

        return self._database.run(call)
