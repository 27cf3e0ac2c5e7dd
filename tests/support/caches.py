"""A store in a directory of its own, for the tests of what goes on in it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.names import Digest
from regproxy.policy.integrity import ContentRecord
from regproxy.store.disk import BlobDirectory, Workers
from regproxy.store.index import Index
from regproxy.store.inventory import COLUMNS, Inventory, record_of
from regproxy.store.store import Store, StoredBlob
from tests.support.workers import Now

T = TypeVar("T")


class CacheCase(SynchronousTestCase):
    """The store's workers have always just finished unless :meth:`make_workers` says otherwise."""

    def make_workers(self) -> Workers:
        """Who works at the disk."""
        return Now()

    def setUp(self) -> None:
        """Open it."""
        self.root = Path(self.mktemp())
        self.directory = BlobDirectory(self.root)
        self.directory.prepare()
        self.time = 1000.0
        self.workers = self.make_workers()
        self.index = Index(self.root / "index.sqlite3", Now(), lambda: self.time)
        self.index.open()
        self.addCleanup(self.index.close)
        self.inventory = self.index.inventory
        self.store = Store(self.directory, self.index, self.workers, Clock(), lambda: self.time)

    def other_inventory(self, workers: Workers) -> Inventory:
        """The inventory of the same index over other *workers*."""
        index = Index(self.root / "index.sqlite3", workers, lambda: self.time)
        index.open()
        self.addCleanup(index.close)
        return index.inventory

    def put(self, content: bytes, algorithm: str = "sha256") -> Digest:
        """Store *content* as of now, as a transfer does it."""
        digest = Digest.of(content, algorithm)
        path = self.drop(digest, content)
        changed = path.stat().st_ctime_ns
        record = ContentRecord(digest, len(content), self.time, self.time, self.time, changed)
        self.successResultOf(self.index.put_content(record))
        return digest

    def drop(self, digest: Digest, content: bytes) -> Path:
        """Put a file there without telling the index."""
        path = self.directory.path(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (self.time, self.time))
        return path

    def pin(self, *digests: Digest) -> None:
        """Have *digests* be pinned, as if they belonged to pinned images."""
        with closing(sqlite3.connect(self.root / "index.sqlite3")) as index, index:
            for digest in digests:
                index.execute("UPDATE content SET pinned = 1 WHERE digest = ?", (str(digest),))

    def files(self) -> set[Digest]:
        """What is there."""
        paths = (path for path in (self.root / "blobs").rglob("*") if path.is_file())
        return {Digest.parse(f"{path.parent.parent.name}:{path.name}") for path in paths}

    def records(self) -> list[ContentRecord]:
        """What the index says is there, in the order of digests."""
        with closing(sqlite3.connect(self.root / "index.sqlite3")) as index:
            rows = index.execute(f"SELECT {COLUMNS} FROM content ORDER BY digest")
            return [record_of(row) for row in rows]

    def rows(self) -> set[Digest]:
        """What the index says is there."""
        return {record.digest for record in self.records()}

    def quarantine(self) -> list[str]:
        """What was set aside."""
        return sorted(path.name for path in self.directory.quarantine.iterdir())

    def open(self, digest: Digest) -> StoredBlob:
        """Open *digest*, which is there."""
        blob = self.store.open(digest)
        assert blob is not None
        return blob

    def use(self, digest: Digest, when: float) -> None:
        """A client uses *digest*, and the index is told."""
        self.time = when
        self.open(digest).close()
        self.successResultOf(self.store.flush_access_times())

    def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of *work*, which comes to its end at once."""
        result: T = self.successResultOf(ensureDeferred(work))
        return result
