from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.defer import ensureDeferred
from twisted.logger import capturedLogs

from regproxy.oci.names import Digest
from regproxy.policy.integrity import ContentRecord
from regproxy.store.disk import Workers
from regproxy.store.removal import BATCH, Removal
from tests.support.caches import CacheCase
from tests.support.workers import Later


class RemovalTests(CacheCase):
    def remove(self, records: list[ContentRecord]) -> list[ContentRecord]:
        removal = Removal(self.directory, self.inventory, self.workers)
        return self.finish(removal.remove(records))

    def test_some(self) -> None:
        """More than one batch of them."""
        digests = [self.put(b"%d" % number) for number in range(BATCH + 2)]
        records = self.records()
        self.assertEqual(self.remove(records[1:]), records[1:])
        self.assertEqual(self.files(), {records[0].digest})
        self.assertEqual(self.rows(), {records[0].digest})
        self.assertEqual(len(digests), len(records))

    def test_nothing(self) -> None:
        self.assertEqual(self.remove([]), [])

    def test_gone_already(self) -> None:
        self.directory.path(self.put(b"gone")).unlink()
        self.assertEqual(len(self.remove(self.records())), 1)
        self.assertEqual(self.rows(), set())

    def test_read_on(self) -> None:
        """Who has it open has it for as long."""
        blob = self.open(self.put(b"content"))
        self.remove(self.records())
        self.assertIs(self.store.open(blob.digest), None)
        self.assertEqual(self.successResultOf(blob.read(0, 100)), b"content")
        blob.close()

    def test_cannot_be_removed(self) -> None:
        """It stays, with its row; the others go."""
        one, other = self.put(b"one"), self.put(b"other")
        unlink = Path.unlink

        def refuse(path: Path, missing_ok: bool = False) -> None:
            if path.name == one.hex:
                raise PermissionError(1, os.strerror(1))
            unlink(path, missing_ok)

        self.patch(Path, "unlink", refuse)
        with capturedLogs() as events:
            (removed,) = self.remove(self.records())
        self.assertEqual(removed.digest, other)
        self.assertEqual((self.files(), self.rows()), ({one}, {one}))
        (event,) = events
        self.assertEqual((event["digest"], event["reason"]), (str(one), os.strerror(1)))


class LaterTests(CacheCase):
    def make_workers(self) -> Workers:
        self.later = Later()
        return self.later

    def test_stored_anew_meanwhile(self) -> None:
        """Its row is not forgotten."""
        digest = self.put(b"content")
        records = self.records()
        removing = ensureDeferred(
            Removal(self.directory, self.inventory, self.workers).remove(records)
        )
        self.time += 1.0
        self.put(b"content")
        self.later.all()
        self.successResultOf(removing)
        self.assertEqual(self.rows(), {digest})
        self.assertEqual(digest, Digest.of(b"content"))
