"""The index: what tags point to, which repository has which content, when it was used.

Reads here are look-ups by primary key on the caller's thread; writes go through one
worker thread, each in a transaction of its own. Both fail with IndexFailed. What takes
longer is in :mod:`regproxy.store.inventory`.
"""

from __future__ import annotations

from pathlib import Path

from attrs import frozen
from twisted.internet.defer import Deferred

from regproxy.oci.names import Digest, Host, Repository, Tag
from regproxy.policy.integrity import ContentRecord
from regproxy.store.database import Database
from regproxy.store.disk import Workers
from regproxy.store.inventory import COLUMNS, INSERT, Inventory, columns_of, record_of


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

    Attributes:
        inventory: the content in it as a whole.
    """

    def __init__(self, path: Path, workers: Workers) -> None:
        self._database = Database(path, workers)
        self.inventory = Inventory(self._database)

    def open(self) -> None:
        """Open the database, which must not be held across a fork.

        Raises:
            StoreUnusable: it cannot be.
        """
        self._database.open()

    def close(self) -> None:
        """Close the database; no write may be under way."""
        self._database.close()

    # Tags.

    def tag(self, key: TagKey) -> TagEntry | None:
        """Where *key* pointed, or None when it was never seen."""
        row = self._database.row(
            "SELECT digest, media_type, checked_at FROM tag"
            " WHERE host = ? AND repository = ? AND tag = ? AND accept = ?",
            *_tag_columns(key),
        )
        return None if row is None else TagEntry(Digest.parse(row[0]), row[1], row[2])

    def variants(self, host: Host, repository: Repository, tag: Tag) -> list[TagEntry]:
        """Where *tag* pointed under whatever Accept, what was checked last first."""
        rows = self._database.rows(
            "SELECT digest, media_type, checked_at FROM tag"
            " WHERE host = ? AND repository = ? AND tag = ? ORDER BY checked_at DESC",
            str(host),
            str(repository),
            str(tag),
        )
        return [TagEntry(Digest.parse(row[0]), row[1], row[2]) for row in rows]

    def put_tag(self, key: TagKey, entry: TagEntry) -> Deferred[None]:
        """Record where *key* points now."""
        return self._database.write(
            "INSERT OR REPLACE INTO tag VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(*_tag_columns(key), str(entry.digest), entry.media_type, entry.checked_at)],
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
        row = self._database.row(
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
        return self._database.write(
            "INSERT OR REPLACE INTO membership VALUES (?, ?, ?, ?)",
            [(str(host), str(repository), str(digest), media_type)],
        )

    def knows(self, host: Host) -> bool:
        """Whether anything of *host* is known."""
        row = self._database.row("SELECT 1 FROM membership WHERE host = ? LIMIT 1", str(host))
        return row is not None

    # Which repository anybody may read.

    def public_at(self, host: Host, repository: Repository) -> float | None:
        """When *repository* was last seen to be readable without a login, if ever."""
        row = self._database.row(
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
            return self._database.write(
                "DELETE FROM public WHERE host = ? AND repository = ?", [key]
            )
        return self._database.write(
            "INSERT OR REPLACE INTO public VALUES (?, ?, ?)", [(*key, seen_at)]
        )

    # Content.

    def content(self, digest: Digest) -> ContentRecord | None:
        """What is known of the file of *digest*."""
        row = self._database.row(f"SELECT {COLUMNS} FROM content WHERE digest = ?", str(digest))
        return None if row is None else record_of(row)

    def put_content(self, record: ContentRecord) -> Deferred[None]:
        """Record content that has just become durable, in the place of what was known of it."""
        return self._database.write(
            f"{INSERT} ON CONFLICT (digest) DO UPDATE SET size = excluded.size,"
            " stored_at = excluded.stored_at, last_access = excluded.last_access,"
            " verified_at = excluded.verified_at, changed = excluded.changed",
            [columns_of(record)],
        )

    def last_access(self, digest: Digest) -> float | None:
        """When *digest* was last used, in seconds since the epoch."""
        row = self._database.row("SELECT last_access FROM content WHERE digest = ?", str(digest))
        return None if row is None else float(row[0])

    def touch(self, used: dict[Digest, float]) -> Deferred[None]:
        """Record when each content was last used."""
        return self._database.write(
            "UPDATE content SET last_access = ? WHERE digest = ?",
            [(when, str(digest)) for digest, when in used.items()],
        )


def _tag_columns(key: TagKey) -> tuple[str, str, str, str]:
    return str(key.host), str(key.repository), str(key.tag), key.accept
