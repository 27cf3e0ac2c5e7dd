"""Which images are stored, and how much of each: worked out from manifests, tags and content.

Tags and repositories are noted as clients ask for them, content as it comes and goes; images are
noted nowhere. What is known of them follows from the rest:

- the rows of ``part`` say what each stored manifest names. They are read from its file;
- a row of ``image`` says how much is stored of a manifest and all that it names, and whether it
  counts as an image: by each tag, and by its digest where no tag and no other manifest of the
  repository names it;
- content is pinned when an image is pinned that it belongs to: by a tag, what that points to now.

Triggers of the index note each digest of which something has changed (``pending``), whoever
changed it; here it is worked out what follows from that, for the manifests above it too. Until
that is done the rows are late, and nothing worse.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Final

from twisted.logger import Logger

from regproxy.oci.manifests import Manifest, ManifestInvalid, parse_manifest
from regproxy.oci.names import Digest
from regproxy.store.database import Database
from regproxy.store.disk import BlobDirectory, Workers

# Digests of one call of the index's worker: some ten milliseconds if each is an index of many
# platforms, and some hundred microseconds as a rule.
BATCH: Final = 32
#: The largest file that is read as a manifest, in bytes: what registries take at most
#: (distribution's ``defaultMaxManifestBodySize`` is 4 MiB).
MAX_SIZE: Final = 4 << 20

# How deep manifests are looked into: an index of images has two levels, and nobody makes four.
# Somebody may make thousands.
DEPTH: Final = 8

_TO_DO: Final = "SELECT digest FROM pending LIMIT ?"
_UNREAD: Final = (
    "SELECT 1 FROM content WHERE digest = ?1 AND size <= ?2"
    " AND EXISTS (SELECT 1 FROM image WHERE image.digest = ?1)"
    " AND NOT EXISTS (SELECT 1 FROM part WHERE manifest = ?1)"
)
_NOTE: Final = "INSERT OR IGNORE INTO pending VALUES (?, FALSE)"
_NOTE_PARTS: Final = (
    "INSERT OR IGNORE INTO pending SELECT digest, FALSE FROM part WHERE manifest = ?"
)
_PARTS: Final = (
    "SELECT part.digest, is_blob, size FROM part"
    " LEFT JOIN content ON content.digest = part.digest WHERE manifest = ?"
)
_NAMED_BY: Final = "SELECT manifest FROM part WHERE digest = ?"
_CHANGED: Final = "SELECT changed FROM pending WHERE digest = ?"
_PINNED: Final = (
    "SELECT EXISTS (SELECT 1 FROM image JOIN pin ON pin.host = image.host"
    " AND pin.repository = image.repository AND pin.reference IN (image.tag, image.digest)"
    " WHERE image.digest = ?1)"
    " OR EXISTS (SELECT 1 FROM part JOIN content ON content.digest = manifest"
    " WHERE part.digest = ?1 AND pinned)"
)
# CROSS JOIN in SQLite says in which order: there may be more images in a repository than
# manifests that name something (https://sqlite.org/optoverview.html, "Manual Control").
_RESULT: Final = (
    "UPDATE image SET bytes = ?2, complete = ?3, last_used = ?4, shown = ?5 AND (tag != ''"
    " OR NOT EXISTS (SELECT 1 FROM image AS other WHERE other.digest = ?1"
    " AND other.host = image.host AND other.repository = image.repository AND other.tag != '')"
    " AND NOT EXISTS (SELECT 1 FROM part CROSS JOIN image AS above ON above.digest = manifest"
    " WHERE part.digest = ?1 AND above.host = image.host"
    " AND above.repository = image.repository)) WHERE digest = ?1"
)


class Cataloguing:
    """Keeps what is known of images up to date.

    Several may be at it at a time, in other processes too: what follows is worked out from what is
    in the index then, in one transaction.

    Args:
        database: of the index.
        workers: read the files.
    """

    _log = Logger()

    def __init__(self, database: Database, directory: BlobDirectory, workers: Workers) -> None:
        self._database = database
        self._directory = directory
        self._workers = workers

    async def run(self, pause: Callable[[], Awaitable[None]]) -> None:
        """Work until nothing is left to be worked out, with a pause after each step.

        Raises:
            IndexFailed: it cannot be gone on with.
        """
        while await self.step():
            await pause()

    async def step(self) -> bool:
        """Work out what follows from some changes; whether there were any.

        Raises:
            IndexFailed: it cannot be gone on with.
        """
        to_do, unread = await self._database.run(_next)
        if not to_do:
            return False
        manifests = {}
        if unread:
            manifests = await self._workers.run(partial(self._read_all, unread))
        await self._database.run(partial(_work_out, to_do, set(unread), manifests))
        return True

    async def manifest(self, digest: Digest) -> Manifest | None:
        """What a stored manifest says; None when it is not here.

        Raises:
            ManifestInvalid: it is none, or too large.
            OSError: it cannot be read.
        """
        return await self._workers.run(partial(self._read, digest))

    # In a worker thread.

    def _read_all(self, digests: Iterable[str]) -> dict[str, Manifest]:
        """Those of *digests* that can be read."""
        read = {}
        for digest in digests:
            try:
                manifest = self._read(Digest.parse(digest))
            except ManifestInvalid as error:
                self._log.debug("{digest}: {reason}", digest=digest, reason=error.message)
                continue
            except OSError as error:
                # The others can be; this one is found by those who verify.
                self._log.error(
                    "{digest} cannot be read: {reason}", digest=digest, reason=error.strerror
                )
                continue
            if manifest is not None:
                read[digest] = manifest
        return read

    def _read(self, digest: Digest) -> Manifest | None:
        try:
            with self._directory.path(digest).open("rb") as file:
                content = file.read(MAX_SIZE + 1)
        except FileNotFoundError:
            return None
        if len(content) > MAX_SIZE:
            raise ManifestInvalid(f"it has more than {MAX_SIZE} bytes")
        # It is not a client that will find out.
        if Digest.of(content, digest.algorithm) != digest:
            raise ManifestInvalid("the file is damaged")
        return parse_manifest(content)


def _next(connection: sqlite3.Connection) -> tuple[list[str], list[str]]:
    """Some digests of which something has changed, and those of them whose files are to be read."""
    to_do = [digest for (digest,) in connection.execute(_TO_DO, (BATCH,))]
    return to_do, [digest for digest in to_do if _is_unread(connection, digest)]


def _is_unread(connection: sqlite3.Connection, digest: str) -> bool:
    return connection.execute(_UNREAD, (digest, MAX_SIZE)).fetchone() is not None


def _work_out(
    to_do: list[str],
    looked_at: set[str],
    manifests: dict[str, Manifest],
    connection: sqlite3.Connection,
) -> None:
    for digest in to_do:
        if digest not in looked_at and _is_unread(connection, digest):
            # It has come since: the next step reads it.
            continue
        (changed,) = connection.execute(_CHANGED, (digest,)).fetchone() or (False,)
        connection.execute("DELETE FROM pending WHERE digest = ?", (digest,))
        content = connection.execute(
            "SELECT last_access, pinned FROM content WHERE digest = ?", (digest,)
        ).fetchone()
        last_used = 0.0
        if content is None:
            connection.execute(_NOTE_PARTS, (digest,))
            connection.execute("DELETE FROM part WHERE manifest = ?", (digest,))
        else:
            last_used, pinned = content
            if digest in manifests:
                _record(connection, digest, manifests[digest])
            _pin(connection, digest, pinned)
        size, complete = _measure(connection, digest)
        connection.execute(_RESULT, (digest, size, complete, last_used, content is not None))
        if changed:
            connection.executemany(_NOTE, ((above,) for above in _above(connection, digest)))


def _above(connection: sqlite3.Connection, digest: str) -> set[str]:
    """The manifests that name *digest*, and those that name them."""
    found: set[str] = set()
    level = {digest}
    for _ in range(DEPTH):
        level = {
            manifest
            for each in level
            for (manifest,) in connection.execute(_NAMED_BY, (each,)).fetchall()
        } - found
        found |= level
    return found


def _record(connection: sqlite3.Connection, digest: str, manifest: Manifest) -> None:
    # What is to be had elsewhere is no part of what can be had here.
    parts = [(digest, str(part.digest), False) for part in manifest.manifests]
    parts += [(digest, str(part.digest), True) for part in manifest.blobs if not part.foreign]
    connection.executemany("INSERT OR IGNORE INTO part VALUES (?, ?, ?)", parts)
    connection.execute(_NOTE_PARTS, (digest,))


def _pin(connection: sqlite3.Connection, digest: str, pinned: int) -> None:
    (now,) = connection.execute(_PINNED, (digest,)).fetchone()
    if now != pinned:
        connection.execute("UPDATE content SET pinned = ? WHERE digest = ?", (now, digest))
        connection.execute(_NOTE_PARTS, (digest,))


def _measure(connection: sqlite3.Connection, digest: str) -> tuple[int, bool]:
    """The bytes of all that is stored of a manifest, and whether it can be used as it is.

    It can when none of the blobs is missing that its stored manifests name, and there are some: of
    an index clients fetch what is for their platform.
    """
    row = connection.execute("SELECT size FROM content WHERE digest = ?", (digest,)).fetchone()
    if row is None:
        return 0, False
    total, usable, lacking = row[0], False, False
    seen, level = {digest}, [digest]
    for _ in range(DEPTH):
        manifests, level = level, []
        for manifest in manifests:
            for part, is_blob, size in connection.execute(_PARTS, (manifest,)).fetchall():
                usable |= bool(is_blob)
                lacking |= bool(is_blob) and size is None
                if size is not None and part not in seen:
                    seen.add(part)
                    total += size
                    if not is_blob:
                        level.append(part)
    return total, usable and not lacking
