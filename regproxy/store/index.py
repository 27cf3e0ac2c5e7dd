"""The index: what tags point to, which repository has which content, when it was used.

Reads here are look-ups by primary key on the caller's thread; writes go through one
worker thread, each in a transaction of its own. Both fail with IndexFailed. What takes
longer is in :mod:`regproxy.store.inventory`.

Rows about tags and repositories tell when they were last looked up, so that they can be forgotten:
see :mod:`regproxy.store.forgetting`. To the day, so that it costs a write a day.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from attrs import frozen
from twisted.internet.defer import Deferred

from regproxy.config.model import DAY
from regproxy.oci.names import Digest, Host, Repository, Tag
from regproxy.policy.integrity import ContentRecord
from regproxy.store.catalog import Catalog
from regproxy.store.cataloguing import Cataloguing
from regproxy.store.curation import Curation
from regproxy.store.database import Database
from regproxy.store.disk import BlobDirectory, Workers
from regproxy.store.inventory import COLUMNS, KEYS, Inventory, Key, columns_of, record_of
from regproxy.store.uses import LastUses

#: Seconds by which the time that a row was last used may lag behind.
LAG: Final = DAY

#: Under how many Accepts a tag is looked for. Clients write what they want there.
VARIANTS: Final = 16

# The row of a table that has these values in the columns of its key.
_WHERE: Final = {
    table: " AND ".join(f"{column} = ?" for column in columns) for table, columns in KEYS.items()
}
# What is looked up in it, and when it was last used.
_SELECT: Final = {
    table: f"SELECT {columns}, used_at FROM {table} WHERE {_WHERE[table]}"
    for table, columns in (
        ("membership", "media_type"),
        ("tag", "digest, media_type, checked_at"),
        ("public", "seen_at"),
    )
}


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
        now: seconds since the epoch.

    Attributes:
        inventory: all that is in it.
        catalog: the images in it.
        curation: what the operator does with them.
    """

    def __init__(self, path: Path, workers: Workers, now: Callable[[], float] = time.time) -> None:
        self._database = Database(path, workers)
        self._now = now
        # Tables and keys of the rows whose time of last use is out of date.
        self._used: LastUses[tuple[str, Key]] = LastUses(now)
        self.inventory = Inventory(self._database)
        self.catalog = Catalog(self._database)
        self.curation = Curation(self._database)

    def open(self) -> None:
        """Open the database, which must not be held across a fork.

        Raises:
            StoreUnusable: it cannot be.
        """
        self._database.open()

    def close(self) -> None:
        """Close the database; no write may be under way."""
        self._database.close()

    def repair(self, readers: Workers) -> Awaitable[bool]:
        """See :meth:`~regproxy.store.database.Database.repair`."""
        return self._database.repair(readers)

    def cataloguing(self, directory: BlobDirectory, readers: Workers) -> Cataloguing:
        """What keeps the catalog up to date with the files of *directory*."""
        return Cataloguing(self._database, directory, readers)

    # Tags.

    def tag(self, key: TagKey) -> TagEntry | None:
        """Where *key* pointed, or None when it was never seen."""
        row = self._look_up("tag", _tag_columns(key))
        return None if row is None else TagEntry(Digest.parse(row[0]), row[1], row[2])

    def variants(self, host: Host, repository: Repository, tag: Tag) -> list[TagEntry]:
        """Where *tag* pointed under whatever Accept, what was checked last first; not all."""
        key = (str(host), str(repository), str(tag))
        rows = self._database.rows(
            "SELECT digest, media_type, checked_at, accept, used_at FROM tag"
            " WHERE host = ? AND repository = ? AND tag = ? ORDER BY checked_at DESC LIMIT ?",
            *key,
            VARIANTS,
        )
        for row in rows:
            self._note_use("tag", (*key, row[3]), row[4])
        return [TagEntry(Digest.parse(row[0]), row[1], row[2]) for row in rows]

    def put_tag(self, key: TagKey, entry: TagEntry) -> Deferred[None]:
        """Record where *key* points now."""
        return self._put(
            "tag", *_tag_columns(key), str(entry.digest), entry.media_type, entry.checked_at
        )

    def drop_tag(self, host: Host, repository: Repository, tag: Tag) -> Deferred[None]:
        """Forget *tag* under every Accept."""
        return self._database.write(
            "DELETE FROM tag WHERE host = ? AND repository = ? AND tag = ?",
            [(str(host), str(repository), str(tag))],
        )

    # Which repository has which content.

    def membership(self, host: Host, repository: Repository, digest: Digest) -> str | None:
        """The media type under which *repository* has *digest*; None when it is not known to."""
        row = self._look_up("membership", (str(host), str(repository), str(digest)))
        return None if row is None else str(row[0])

    def put_membership(
        self, host: Host, repository: Repository, digest: Digest, media_type: str
    ) -> Deferred[None]:
        """Record that *repository* has *digest*."""
        return self._put("membership", str(host), str(repository), str(digest), media_type)

    def adopted_at(self, host: Host, repository: Repository, digest: Digest) -> float | None:
        """When the operator put *digest* into *repository*, if ever."""
        row = self._database.row(
            f"SELECT adopted_at FROM adopted WHERE {_WHERE['membership']}",
            str(host),
            str(repository),
            str(digest),
        )
        return None if row is None else float(row[0])

    def knows(self, host: Host) -> bool:
        """Whether anything of *host* is known."""
        row = self._database.row("SELECT 1 FROM membership WHERE host = ? LIMIT 1", str(host))
        return row is not None

    # Which repository anybody may read.

    def public_at(self, host: Host, repository: Repository) -> float | None:
        """When *repository* was last seen to be readable without a login, if ever."""
        row = self._look_up("public", (str(host), str(repository)))
        return None if row is None else float(row[0])

    def put_public(
        self, host: Host, repository: Repository, seen_at: float | None
    ) -> Deferred[None]:
        """Record when *repository* was readable without a login; None: it is not any more."""
        key = (str(host), str(repository))
        if seen_at is None:
            return self._database.write(f"DELETE FROM public WHERE {_WHERE['public']}", [key])
        return self._put("public", *key, seen_at)

    # Content.

    def content(self, digest: Digest) -> ContentRecord | None:
        """What is known of the file of *digest*."""
        row = self._database.row(f"SELECT {COLUMNS} FROM content WHERE digest = ?", str(digest))
        return None if row is None else record_of(row)

    def put_content(self, record: ContentRecord, brought_by: str | None = None) -> Deferred[None]:
        """Record content that has just become durable, in the place of what was known of it.

        Args:
            brought_by: the address of the client that it was stored for.
        """
        return self._database.write(
            f"INSERT INTO content ({COLUMNS}, brought_by) VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (digest) DO UPDATE SET size = excluded.size,"
            " stored_at = excluded.stored_at, last_access = excluded.last_access,"
            " verified_at = excluded.verified_at, changed = excluded.changed",
            [(*columns_of(record), brought_by)],
        )

    def last_access(self, digest: Digest) -> float | None:
        """When *digest* was last used, in seconds since the epoch."""
        row = self._database.row("SELECT last_access FROM content WHERE digest = ?", str(digest))
        return None if row is None else float(row[0])

    def touch(self, used: dict[str, float]) -> Deferred[None]:
        """Record when each content was last used, by the text of its digest."""
        return self._database.write(
            "UPDATE content SET last_access = ? WHERE digest = ?",
            ((when, digest) for digest, when in used.items()),
        )

    # Rows about tags and repositories, and when they were last used.

    async def flush(self) -> None:
        """Record which rows were used.

        Raises:
            IndexFailed: the rest has to wait for the next time.
        """
        await self._used.tell(self._renew)

    def _renew(self, used: dict[tuple[str, Key], float]) -> Deferred[None]:
        def call(connection: sqlite3.Connection) -> None:
            for (table, key), when in used.items():
                connection.execute(
                    f"UPDATE {table} SET used_at = ? WHERE {_WHERE[table]}", (when, *key)
                )

        return self._database.run(call)

    def _look_up(self, table: str, key: Key) -> Any:
        row = self._database.row(_SELECT[table], *key)
        if row is not None:
            self._note_use(table, key, row[-1])
        return row

    def _note_use(self, table: str, key: Key, used_at: float) -> None:
        # A time in the future is one before the clock was set back.
        if not 0 <= self._now() - used_at < LAG:
            self._used.touch((table, key))

    def _put(self, table: str, *values: object) -> Deferred[None]:
        row = (*values, self._now())
        marks = ", ".join("?" * len(row))
        return self._database.write(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", [row])


def _tag_columns(key: TagKey) -> tuple[str, str, str, str]:
    return str(key.host), str(key.repository), str(key.tag), key.accept
