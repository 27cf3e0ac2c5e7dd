"""Images, repositories and blobs as people look at them: lists in pages.

A page goes on behind the key of the row before it, by an index of the database: the hundredth
costs what the first does. Of rows that are searched by something that no index has, a bounded
number is looked at in one call. Everything runs in the index's worker thread, and fails with
IndexFailed. What it finds is as :mod:`regproxy.store.cataloguing` has left it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from enum import StrEnum
from functools import partial
from typing import Any, Final

from attrs import frozen
from twisted.internet.defer import Deferred

from regproxy.oci.names import Digest, Host, Reference, Repository, Tag
from regproxy.policy.integrity import ContentRecord
from regproxy.store.database import Database
from regproxy.store.inventory import COLUMNS, record_of

#: Rows that one call looks at: some milliseconds.
SCAN: Final = 1000

#: What stands before all names, sizes and times.
Key = tuple[Any, ...]


class Order(StrEnum):
    """What a list of images is sorted by."""

    #: Registry, repository and tag.
    REFERENCE = "reference"
    #: The last use, the latest first.
    LAST_USED = "last_used"
    #: The size, the largest first.
    BYTES = "bytes"


@frozen
class ImageRecord:
    """An image. Sizes are in bytes, times in seconds since the epoch.

    Attributes:
        tag: None when it is known by its digest only.
        media_type: under which it was served last.
        bytes: of what is stored of it.
        complete: it can be used as it is: of an index, what is stored of it.
        checked_at: when the tag was last seen to point to it; None without a tag.
        brought_by: the address of the client that its manifest was first stored for, if known.
    """

    host: Host
    repository: Repository
    tag: Tag | None
    digest: Digest
    media_type: str
    bytes: int
    complete: bool
    pinned: bool
    last_used: float
    checked_at: float | None
    stored_at: float
    brought_by: str | None


@frozen
class RepositoryRecord:
    """A repository with images.

    Attributes:
        tags: how many of them are here.
        bytes: of all stored content that it is known to have.
        last_used: when an image of it was last used, in seconds since the epoch.
    """

    host: Host
    repository: Repository
    tags: int
    bytes: int
    last_used: float


@frozen
class BlobRecord:
    """Content.

    Attributes:
        content: what is known of its file.
        pinned: it is not evicted.
        brought_by: the address of the client that it was first stored for, if known.
    """

    content: ContentRecord
    pinned: bool
    brought_by: str | None


@frozen
class PartRecord:
    """What is known of something that manifests name.

    Attributes:
        size: of what is stored, in bytes; None when it is not here.
        shared_by: how many stored manifests name it.
    """

    size: int | None
    shared_by: int


@frozen
class _Sorted:
    """How an order walks through the images: its columns, and the comparison of keys."""

    columns: str
    after: str
    direction: str
    first: Key


_NAME: Final = "host, repository, tag, digest"
_ORDERS: Final = {
    Order.REFERENCE: _Sorted(_NAME, ">", "ASC", ("", "", "", "")),
    Order.LAST_USED: _Sorted(f"last_used, {_NAME}", "<", "DESC", (float("inf"), "", "", "", "")),
    Order.BYTES: _Sorted(f"bytes, {_NAME}", "<", "DESC", (float("inf"), "", "", "", "")),
}


def _walk(order: Order, fixed: int) -> str:
    """The next rows in *order*, the first *fixed* columns of which are given."""
    found = _ORDERS[order]
    columns = found.columns.split(", ")
    given = "".join(f" AND {column} = ?" for column in columns[:fixed])
    rest = ", ".join(columns[fixed:])
    marks = ", ".join("?" * (len(columns) - fixed))
    sort = ", ".join(f"{column} {found.direction}" for column in columns[fixed:])
    return (
        f"SELECT {_NAME}, bytes, complete, last_used FROM image"
        f" WHERE shown{given} AND ({rest}) {found.after} ({marks}) ORDER BY {sort} LIMIT ?"
    )


_NEXT_REPOSITORY: Final = (
    "SELECT host, repository FROM image WHERE shown AND (host, repository) > (?, ?)"
    " ORDER BY host, repository LIMIT 1"
)
_NEXT_REPOSITORY_OF: Final = (
    "SELECT host, repository FROM image WHERE shown AND host = ? AND repository > ?"
    " ORDER BY repository LIMIT 1"
)
_TAGS_OF: Final = (
    "SELECT tag, max(last_used) FROM image WHERE shown AND host = ? AND repository = ? GROUP BY tag"
)
_BYTES_OF: Final = (
    "SELECT coalesce(sum(size), 0) FROM membership"
    " JOIN content ON content.digest = membership.digest WHERE host = ? AND repository = ?"
)
_BLOBS: Final = (
    f"SELECT {COLUMNS}, pinned, brought_by FROM content WHERE digest > ? ORDER BY digest LIMIT ?"
)
_BLOB: Final = f"SELECT {COLUMNS}, pinned, brought_by FROM content WHERE digest = ?"
_IMAGES_OF: Final = (
    f"SELECT {_NAME}, bytes, complete, last_used FROM image"
    " WHERE host = ? AND repository = ? AND tag = ? AND shown"
)
#: The rows of a repository.
HERE: Final = "host = ?1 AND repository = ?2"
# Under what media type an image was served last, and when its tag was seen to point to it.
_TAG_SEEN: Final = (
    f"SELECT media_type, max(checked_at) FROM tag WHERE {HERE} AND tag = ?3 AND digest = ?4"
)
_MEMBER_SEEN: Final = (
    f"SELECT media_type, NULL FROM membership WHERE {HERE} AND ?3 = '' AND digest = ?4"
)


class Catalog:
    """What the index knows of images and blobs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # Lists.

    async def images(
        self,
        order: Order,
        after: Key | None,
        limit: int,
        *,
        host: Host | None = None,
        repository: Repository | None = None,
        search: str = "",
        tagged: bool = False,
    ) -> tuple[list[ImageRecord], Key | None]:
        """The images behind *after*, at most *limit*; the key of the last one if there are more.

        Args:
            after: a key of the same list; None for its beginning.
            repository: of *host*, which is given then.
            search: what the reference has in it, whatever its case.
            tagged: only those with a tag.
        """
        names = [str(name) for name in (host, repository) if name is not None]
        # Only in the order of names do they stand together.
        fixed = len(names) if order is Order.REFERENCE else 0
        query = _walk(order, fixed)
        search = search.lower()
        found: list[Any] = []

        def wanted(row: Any) -> bool:
            name = _reference(*row[:4]).lower()
            return (
                list(row[: len(names)]) == names and search in name and (not tagged or row[2] != "")
            )

        key = _ORDERS[order].first if after is None else after
        while len(found) <= limit:
            rows = await self._rows(query, *names[:fixed], *key[fixed:], SCAN)
            found += filter(wanted, rows)
            if len(rows) < SCAN:
                break
            key = _key(order, rows[-1])
        page = found[:limit]
        records = await self._database.run(partial(_image_records, page))
        return records, _key(order, page[-1]) if len(found) > limit and page else None

    async def repositories(
        self, after: Key | None, limit: int, *, host: Host | None = None, search: str = ""
    ) -> tuple[list[RepositoryRecord], Key | None]:
        """The repositories with images behind *after*, by name; see :meth:`images`."""
        search = search.lower()
        found: list[Key] = []
        key = after or ("", "")
        count = SCAN if search else limit + 1
        while len(found) <= limit:
            names = await self._database.run(partial(_repositories, host, key, count))
            found += [name for name in names if search in "/".join(name).lower()]
            if len(names) < count:
                break
            key = names[-1]
        page = found[:limit]
        records = [await self._database.run(partial(_repository_record, name)) for name in page]
        return records, page[-1] if len(found) > limit and page else None

    async def blobs(self, after: Key | None, limit: int) -> tuple[list[BlobRecord], Key | None]:
        """All content behind *after*, by digest; see :meth:`images`."""
        rows = await self._rows(_BLOBS, *(after or ("",)), limit + 1)
        page = rows[:limit]
        return list(map(_blob_of, page)), (page[-1][0],) if len(rows) > limit and page else None

    # Single ones.

    async def blob(self, digest: Digest) -> BlobRecord | None:
        """What is known of content; None when it is not here."""
        for row in await self._rows(_BLOB, str(digest)):
            return _blob_of(row)
        return None

    def image(
        self, host: Host, repository: Repository, reference: Reference
    ) -> Deferred[ImageRecord | None]:
        """The image of this name, the last one that the tag was seen to point to."""

        def call(connection: sqlite3.Connection) -> ImageRecord | None:
            names = str(host), str(repository)
            if isinstance(reference, Tag):
                rows = connection.execute(_IMAGES_OF, (*names, str(reference))).fetchall()
            else:
                rows = connection.execute(
                    f"SELECT {_NAME}, bytes, complete, last_used FROM image"
                    " WHERE host = ? AND repository = ? AND tag = '' AND digest = ?"
                    " AND EXISTS (SELECT 1 FROM content WHERE content.digest = image.digest)",
                    (*names, str(reference)),
                ).fetchall()
            records = _image_records(rows, connection)
            return max(records, key=lambda each: each.checked_at or 0.0, default=None)

        return self._database.run(call)

    def parts(self, digests: Iterable[Digest]) -> Deferred[dict[Digest, PartRecord]]:
        """What is known of each of *digests*."""

        def call(connection: sqlite3.Connection) -> dict[Digest, PartRecord]:
            found = {}
            for digest in digests:
                text = (str(digest),)
                row = connection.execute("SELECT size FROM content WHERE digest = ?", text)
                size = row.fetchone()
                (count,) = connection.execute(
                    "SELECT count(*) FROM part WHERE digest = ?", text
                ).fetchone()
                found[digest] = PartRecord(None if size is None else size[0], count)
            return found

        return self._database.run(call)

    async def _rows(self, query: str, *parameters: object) -> list[Any]:
        def call(connection: sqlite3.Connection) -> list[Any]:
            return connection.execute(query, parameters).fetchall()

        return await self._database.run(call)


# Rows.


def _reference(host: str, repository: str, tag: str, digest: str) -> str:
    return f"{host}/{repository}:{tag}" if tag else f"{host}/{repository}@{digest}"


def _key(order: Order, row: Any) -> Key:
    host, repository, tag, digest, size, _, last_used = row
    name = host, repository, tag, digest
    match order:
        case Order.REFERENCE:
            return name
        case Order.LAST_USED:
            return last_used, *name
        case Order.BYTES:
            return size, *name


def _blob_of(row: Any) -> BlobRecord:
    *content, pinned, brought_by = row
    return BlobRecord(record_of(content), bool(pinned), brought_by)


def _image_records(rows: list[Any], connection: sqlite3.Connection) -> list[ImageRecord]:
    """The images of *rows*; what has left meanwhile is left out."""
    records = []
    for row in rows:
        host, repository, tag, digest, size, complete, last_used = row
        stored = connection.execute(
            "SELECT stored_at, brought_by FROM content WHERE digest = ?", (digest,)
        ).fetchone()
        seen = connection.execute(
            _TAG_SEEN if tag else _MEMBER_SEEN, (host, repository, tag, digest)
        ).fetchone()
        if stored is None or seen is None or seen[0] is None:
            continue
        pinned = connection.execute(
            f"SELECT 1 FROM pin WHERE {HERE} AND reference IN (?3, ?4)",
            (host, repository, tag, digest),
        ).fetchone()
        records.append(
            ImageRecord(
                Host.parse(host),
                Repository(repository),
                Tag(tag) if tag else None,
                Digest.parse(digest),
                seen[0],
                size,
                bool(complete),
                pinned is not None,
                last_used,
                seen[1],
                stored[0],
                stored[1],
            )
        )
    return records


def _repositories(
    host: Host | None, after: Key, count: int, connection: sqlite3.Connection
) -> list[Key]:
    """The names of the next *count* repositories behind *after*, of *host* if that is given."""
    found: list[Key] = []
    query, key = _NEXT_REPOSITORY, after
    if host is not None:
        query, key = _NEXT_REPOSITORY_OF, (str(host), after[1])
    while len(found) < count:
        row = connection.execute(query, key).fetchone()
        if row is None:
            break
        found.append(row)
        key = row
    return found


def _repository_record(name: Key, connection: sqlite3.Connection) -> RepositoryRecord:
    tags = connection.execute(_TAGS_OF, name).fetchall()
    (size,) = connection.execute(_BYTES_OF, name).fetchone()
    host, repository = name
    return RepositoryRecord(
        Host.parse(host),
        Repository(repository),
        sum(tag != "" for tag, _ in tags),
        size,
        max((last_used for _, last_used in tags), default=0.0),
    )
