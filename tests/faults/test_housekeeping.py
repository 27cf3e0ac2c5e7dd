"""What happens to stored content: it rots, it is lost, there is too much of it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from time import sleep

from tests.support.faults import Blob, FaultTestCase, MiB


class HousekeepingTests(FaultTestCase):
    """Each test has a proxy of its own."""

    def restart(self) -> None:
        """A new process over the same data."""
        self.proxy.process.stop()
        self.proxy.start()
        self.watch(self.proxy.process)

    def stored_blob(self, size: int = MiB) -> Blob:
        """One that was fetched."""
        blob = self.blob(size)
        self.assert_whole(self.fetch(blob), blob)
        self.wait_for(lambda: self.is_known(blob))
        return blob

    def is_known(self, blob: Blob) -> bool:
        """Whether it is in the index."""
        with closing(sqlite3.connect(self.proxy.cache / "index.sqlite3")) as index:
            query = "SELECT 1 FROM content WHERE digest = ?"
            return index.execute(query, (blob.digest,)).fetchone() is not None

    def assert_fetched(self, blob: Blob, times: int) -> None:
        """It was asked for so often."""
        self.assertEqual(len(self.requests(blob)), times)

    def damage(self, blob: Blob) -> Path:
        """Change one byte of the stored file, and what the file system says of its last write."""
        path = self.proxy.stored(blob.digest)
        before = path.stat()
        # The clock that the kernel stamps files with moves a few times in a hundredth of a second.
        sleep(0.05)
        with path.open("r+b") as file:
            file.seek(1000)
            byte = file.read(1)
            file.seek(1000)
            file.write(bytes([byte[0] ^ 1]))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return path

    def assert_quarantined(self, count: int) -> None:
        """So many files were set aside."""
        quarantine = self.proxy.cache / "quarantine"
        self.wait_for(lambda: len(list(quarantine.iterdir())) == count)

    def test_damaged(self) -> None:
        """A served copy is cut before its end, set aside, fetched again."""
        self.new_proxy()
        blob = self.stored_blob()
        self.damage(blob)
        self.assert_cut(self.fetch(blob))
        self.assert_quarantined(1)
        self.assert_whole(self.fetch(blob), blob)
        self.assert_fetched(blob, 2)
        self.assert_whole(self.fetch(blob), blob)
        self.assert_fetched(blob, 2)

    def test_damaged_part(self) -> None:
        """A part too is let go only when all of it is known to be right."""
        self.new_proxy()
        blob = self.stored_blob()
        self.damage(blob)
        self.assert_cut(self.fetch(blob, {"Range": f"bytes={MiB // 2}-"}))
        self.assert_quarantined(1)
        self.assert_whole(self.fetch(blob), blob)

    def test_cut_off(self) -> None:
        """A file that is too short is not served at all."""
        self.new_proxy()
        for size in (0, MiB // 2):
            blob = self.stored_blob()
            os.truncate(self.proxy.stored(blob.digest), size)
            self.assert_whole(self.fetch(blob), blob)
            self.assert_fetched(blob, 2)
        self.assert_quarantined(2)

    def test_damaged_while_stopped(self) -> None:
        """Found by the pass over what is due, without being asked for."""
        self.new_proxy(cache={"verify": "0.01s"})
        blob = self.stored_blob()
        self.proxy.process.stop()
        self.damage(blob)
        self.proxy.start()
        self.watch(self.proxy.process)
        self.assert_quarantined(1)
        self.assert_whole(self.fetch(blob), blob)
        self.assert_fetched(blob, 2)

    def test_lost_index(self) -> None:
        """It is built anew from the files, and nothing is fetched twice."""
        self.new_proxy()
        blob, tag = self.stored_blob(), self.tag("kept")
        self.assert_whole(self.fetch(tag), tag)
        self.proxy.process.stop()
        for path in self.proxy.cache.glob("index.sqlite3*"):
            path.unlink()
        self.proxy.start()
        self.watch(self.proxy.process)
        for content in (blob, tag):
            self.assert_whole(self.fetch(content), content)
        self.assert_fetched(blob, 1)

    def test_damaged_index(self) -> None:
        """It does not keep the proxy from starting."""
        self.new_proxy()
        blob = self.stored_blob()
        self.proxy.process.stop()
        index = self.proxy.cache / "index.sqlite3"
        index.write_bytes(os.urandom(64 << 10))
        self.proxy.start()
        self.watch(self.proxy.process)
        self.assert_whole(self.fetch(blob), blob)
        self.assert_fetched(blob, 1)
        self.assertEqual(len(list(self.proxy.cache.glob("index.sqlite3.damaged-*"))), 1)

    def test_too_much(self) -> None:
        """The least recently used goes; the bound holds after a restart too."""
        self.new_proxy(cache={"max_size": "4MiB"})
        kept = self.stored_blob()
        blobs = [self.stored_blob() for _ in range(3)]
        self.assert_whole(self.fetch(kept), kept)
        blobs.append(self.stored_blob())
        oldest = [self.proxy.stored(blob.digest) for blob in blobs[:2]]
        self.wait_for(lambda: not any(path.exists() for path in oldest))
        for blob in (kept, *blobs[2:]):
            self.assert_whole(self.fetch(blob), blob)
            self.assert_fetched(blob, 1)
        self.restart()
        blobs.append(self.stored_blob())
        blobs.append(self.stored_blob())
        self.wait_for(lambda: self.stored_bytes() <= 4 * MiB)
        self.assert_whole(self.fetch(blobs[0]), blobs[0])
        self.assert_fetched(blobs[0], 2)

    def stored_bytes(self) -> int:
        """All content."""
        files = (path for path in (self.proxy.cache / "blobs").rglob("*") if path.is_file())
        return sum(path.stat().st_size for path in files)
