"""What the operator does with images: keeps them, lets go of them, puts them into repositories.

Each is one transaction in the index's worker thread, and fails with IndexFailed. What follows from
it has to be worked out afterwards, and what led to it before: see
:mod:`regproxy.store.cataloguing`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Final

from twisted.internet.defer import Deferred

from regproxy.oci.names import Digest, Host, Reference, Repository, Tag
from regproxy.policy.integrity import ContentRecord
from regproxy.store.catalog import HERE
from regproxy.store.database import Database
from regproxy.store.inventory import COLUMNS, record_of

_RECORD: Final = f"SELECT {COLUMNS} FROM content WHERE digest = ?"
_NOTE: Final = "INSERT OR REPLACE INTO pending (digest) VALUES (?)"


class Curation:
    """Changes what the index knows of images."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def pin(
        self, host: Host, repository: Repository, reference: Reference, pinned: bool
    ) -> Deferred[bool]:
        """Keep an image, or do not any more; whether there is one of that name."""
        names = str(host), str(repository)

        def call(connection: sqlite3.Connection) -> bool:
            digests = _digests(connection, *names, reference)
            if pinned and not digests:
                return False
            statement = "INSERT OR IGNORE INTO pin VALUES (?, ?, ?)"
            if not pinned:
                statement = "DELETE FROM pin WHERE host = ? AND repository = ? AND reference = ?"
            changed = connection.execute(statement, (*names, str(reference))).rowcount
            connection.executemany(_NOTE, ((digest,) for digest in digests))
            return bool(digests) or changed > 0

        return self._database.run(call)

    def release(
        self, host: Host, repository: Repository, reference: Reference
    ) -> Deferred[list[ContentRecord] | None]:
        """Forget an image, and its pin; the content that nothing refers to any more.

        A digest takes with it the tags of the repository that point to it. What other images of
        the repository have stays known in it. None: there is no such image.
        """
        names = str(host), str(repository)

        def call(connection: sqlite3.Connection) -> list[ContentRecord] | None:
            roots = _digests(connection, *names, reference)
            if not roots:
                return None
            references = {str(reference)}
            if isinstance(reference, Digest):
                references |= _tags(connection, *names, str(reference))
            for each in references:
                key = (*names, each)
                connection.execute(f"DELETE FROM tag WHERE {HERE} AND tag = ?3", key)
                connection.execute(f"DELETE FROM pin WHERE {HERE} AND reference = ?3", key)
            tree = _tree(connection, roots)
            for digest in _unnamed(connection, names, tree):
                connection.execute(
                    f"DELETE FROM membership WHERE {HERE} AND digest = ?3", (*names, digest)
                )
            gone = _unreferred(connection, tree)
            rows = [connection.execute(_RECORD, (digest,)).fetchone() for digest in gone]
            # What has been pinned with it may be so no more; that does not show any longer then.
            connection.executemany(_NOTE, ((digest,) for digest in tree))
            connection.executemany(
                "DELETE FROM part WHERE manifest = ?", ((digest,) for digest in gone)
            )
            return [record_of(row) for row in rows if row is not None]

        return self._database.run(call)

    def adopt(
        self,
        host: Host,
        repository: Repository,
        content: Mapping[Digest, str],
        tagged: tuple[Tag, str, Digest] | None,
        now: float,
    ) -> Deferred[None]:
        """Record that *repository* has *content*, because the operator says so.

        Args:
            content: with the media type of each.
            tagged: a tag, the Accept that it is for, and what of *content* it points to, whatever
                upstream said before, and to whom.
            now: seconds since the epoch.
        """
        names = str(host), str(repository)

        def call(connection: sqlite3.Connection) -> None:
            for digest, media_type in content.items():
                connection.execute(
                    "INSERT OR REPLACE INTO membership VALUES (?, ?, ?, ?, ?)",
                    (*names, str(digest), media_type, now),
                )
                connection.execute(
                    "INSERT OR REPLACE INTO adopted VALUES (?, ?, ?, ?)",
                    (*names, str(digest), now),
                )
            if tagged is not None:
                tag, accept, digest = tagged
                connection.execute(f"DELETE FROM tag WHERE {HERE} AND tag = ?3", (*names, str(tag)))
                connection.execute(
                    "INSERT INTO tag VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (*names, str(tag), accept, str(digest), content[digest], now, now),
                )

        return self._database.run(call)


def _digests(
    connection: sqlite3.Connection, host: str, repository: str, reference: Reference
) -> list[str]:
    """The stored or once stored manifests of this name in a repository."""
    if isinstance(reference, Tag):
        rows = connection.execute(
            f"SELECT digest FROM image WHERE {HERE} AND tag = ?3",
            (host, repository, str(reference)),
        )
        return [digest for (digest,) in rows]
    row = connection.execute(
        f"SELECT 1 FROM image WHERE {HERE} AND tag = '' AND digest = ?3",
        (host, repository, str(reference)),
    ).fetchone()
    return [] if row is None else [str(reference)]


def _tags(connection: sqlite3.Connection, host: str, repository: str, digest: str) -> set[str]:
    rows = connection.execute("SELECT host, repository, tag FROM image WHERE digest = ?", (digest,))
    return {tag for *names, tag in rows if names == [host, repository] and tag}


def _tree(connection: sqlite3.Connection, roots: list[str]) -> list[str]:
    """*roots* and all that is below them, each behind everything that names it."""
    seen: set[str] = set()
    order = []
    # Not by recursion: how deep it is, is up to whoever wrote it.
    to_do = [(root, False) for root in roots]
    while to_do:
        digest, done = to_do.pop()
        if done:
            order.append(digest)
        elif digest not in seen:
            seen.add(digest)
            to_do.append((digest, True))
            parts = connection.execute("SELECT digest FROM part WHERE manifest = ?", (digest,))
            to_do += [(part, False) for (part,) in parts.fetchall()]
    return order[::-1]


def _unnamed(connection: sqlite3.Connection, names: tuple[str, str], tree: list[str]) -> set[str]:
    """What of *tree* no image of a repository has any more; its tags are gone already."""
    gone: set[str] = set()
    for digest in tree:
        tagged = _tags(connection, *names, digest)
        above = connection.execute(
            "SELECT manifest FROM part CROSS JOIN image ON image.digest = manifest"
            f" WHERE part.digest = ?3 AND {HERE}",
            (*names, digest),
        )
        if not tagged and all(manifest in gone for (manifest,) in above):
            gone.add(digest)
    return gone


def _unreferred(connection: sqlite3.Connection, tree: list[str]) -> list[str]:
    """What of *tree* neither a repository knows as a manifest nor another manifest names."""
    gone: dict[str, None] = {}
    for digest in tree:
        known = connection.execute("SELECT 1 FROM image WHERE digest = ?", (digest,)).fetchone()
        above = connection.execute("SELECT manifest FROM part WHERE digest = ?", (digest,))
        if known is None and all(manifest in gone for (manifest,) in above):
            gone[digest] = None
    return list(gone)
