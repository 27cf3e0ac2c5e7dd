"""A cache directory that takes no more."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tests.support.faults import FaultProxy, FaultTestCase, KiB, MiB, together
from tests.support.programs import needs, needs_root, program
from tests.support.turns import Turn

#: Bytes that the disk takes.
DISK = 8 * MiB

_MOUNT = 'mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && exec "$@"'


class SmallDiskProxy(FaultProxy):
    """A proxy whose cache is on a disk of its own, which nobody else sees."""

    def arguments(self) -> list[str]:
        """The command line: in a mount namespace, with the file system mounted."""
        cache = self.data / "cache"
        cache.mkdir(parents=True, exist_ok=True)
        return [
            *(program("unshare"), "--mount", "sh", "-c", _MOUNT, "sh", str(DISK), str(cache)),
            *super().arguments(),
        ]

    @property
    def cache(self) -> Path:
        """The cache directory, as the process sees it: proc(5), ``root``."""
        return Path(f"/proc/{self.process.pid}/root{self.data}/cache")


@needs("unshare", "mount")
@needs_root
class DiskFullTests(FaultTestCase):
    """Pulls go on, uncached, from a disk that is full."""

    def setUp(self) -> None:
        super().setUp()
        self.new_proxy(SmallDiskProxy)

    def test_larger_than_the_disk(self) -> None:
        """One blob, several clients: each gets all of it."""
        blob = self.blob(2 * DISK, Turn(rate=4 * DISK))
        for outcome in together([partial(self.fetch, blob)] * 4):
            self.assert_whole(outcome, blob)
        self.assert_not_stored(blob)

    def test_full(self) -> None:
        """Small blobs, one after the other, until long after it is full: each comes whole."""
        blobs = [self.blob(MiB) for _ in range(DISK // MiB + 4)]
        for blob in blobs * 2:
            self.assert_whole(self.fetch(blob), blob)
        for blob in blobs:
            path = self.proxy.stored(blob.digest)
            self.assertTrue(not path.exists() or path.read_bytes() == blob.content)
        self.assertEqual(self.proxy.get("/healthz"), b"ok\n")

    def test_range(self) -> None:
        """A part of what does not fit."""
        blob = self.blob(2 * DISK)
        outcome = self.fetch(blob, {"Range": f"bytes={DISK}-{DISK + KiB - 1}"})
        if outcome.status == 206:
            self.assertTrue(outcome.complete)
            self.assertEqual(outcome.start, blob.content[DISK : DISK + KiB])
        else:
            # A server may ignore a range (RFC 9110 section 14.2).
            self.assert_whole(outcome, blob)

    def test_tag(self) -> None:
        """Manifests and tags on a disk that takes nothing."""
        filler = [self.blob(MiB) for _ in range(DISK // MiB + 2)]
        for blob in filler:
            self.assert_whole(self.fetch(blob), blob)
        tag = self.tag("on a full disk")
        for _ in range(2):
            self.assert_whole(self.fetch(tag), tag)
