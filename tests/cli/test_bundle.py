"""Tests of regproxy.cli.bundle."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.cli.archive import Archive
from regproxy.cli.bundle import Content, Verified
from regproxy.cli.errors import CommandFailed
from regproxy.oci.names import ALGORITHMS, Digest
from tests.support.archives import tar


class ContentTests(SynchronousTestCase):
    """Content"""

    def test_in_memory(self) -> None:
        content = Content.of(b"abc")
        self.assertEqual((content.size, content.open().read()), (3, b"abc"))
        self.assertEqual(content.open().read(), b"abc")

    def test_in_archive(self) -> None:
        archive = Archive(io.BytesIO(tar({"a": b"abc", "b": b"1234"})))
        first, second = (Content.in_archive(archive, archive.find(name)) for name in "ab")
        self.assertEqual((second.size, second.open().read()), (4, b"1234"))
        self.assertLess(first.place, second.place)


class VerifiedTests(SynchronousTestCase):
    """Verified"""

    def read(self, expected: bytes, found: bytes, step: int, algorithm: str = "sha256") -> bytes:
        """What comes through of *found*."""
        self.moved: list[int] = []
        self.through = b""
        digest = Digest.of(expected, algorithm)
        verified = Verified(digest, len(expected), io.BytesIO(found), self.moved.append)
        while block := verified.read(step):
            self.through += block
        return self.through

    @given(st.binary(), st.integers(1, 20), st.sampled_from(ALGORITHMS))
    def test_right(self, content: bytes, step: int, algorithm: str) -> None:
        self.assertEqual(self.read(content, content, step, algorithm), content)
        self.assertEqual(sum(self.moved), len(content))

    @given(st.binary(min_size=1), st.binary(min_size=1), st.integers(1, 20))
    def test_wrong(self, expected: bytes, found: bytes, step: int) -> None:
        """Never is as much let through as there should be."""
        if found.startswith(expected):
            # What follows is not read.
            found = bytes(len(expected)) if any(expected) else b"\1" * len(expected)
        error = self.assertRaises(CommandFailed, self.read, expected, found, step)
        self.assertIn(f"{Digest.of(expected)}: the content is other", error.message)
        self.assertLess(len(self.through), len(expected))

    def test_all_at_once(self) -> None:
        content = b"abc"
        verified = Verified(Digest.of(content), 3, io.BytesIO(b"abcdef"), lambda _: None)
        self.assertEqual((verified.read(), verified.read()), (b"abc", b""))
