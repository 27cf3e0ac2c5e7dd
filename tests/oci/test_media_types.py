"""Tests of regproxy.oci.media_types."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.media_types import (
    DEFAULT_ACCEPT,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    accepts,
    normalise_accept,
)


class KnownTypeTests(SynchronousTestCase):
    """The types of manifests."""

    def test_default(self) -> None:
        """The proxy's own questions ask for what can be stored."""
        for media_type in (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST):
            self.assertTrue(accepts([DEFAULT_ACCEPT.encode()], media_type))


class NormaliseTests(SynchronousTestCase):
    """normalise_accept"""

    def test_same(self) -> None:
        """Order, case, white space, repetition, lines and q=1 change nothing."""
        for values in (
            [b"a/b, c/d"],
            [b"c/d,a/b"],
            [b"C/D", b" A/B "],
            [b"a/b,,a/b , c/d;q=1.0"],
            [b"a/b;Q=1, c/d ; q = 1.000"],
        ):
            self.assertEqual(normalise_accept(values), "a/b,c/d")

    def test_different(self) -> None:
        """Qualities and parameters do change an answer, and so does no Accept at all."""
        texts = [
            normalise_accept(values)
            for values in (
                [],
                [b"*/*"],
                [b"a/b"],
                [b"a/b;q=0"],
                [b"a/b;q=0.5"],
                [b"a/b;v=1"],
                [b"a/b;v=1;q=0.5"],
                [b"a/b;q=2"],
            )
        ]
        self.assertEqual(len(set(texts)), len(texts))
        self.assertEqual(texts[0], "")
        self.assertEqual(normalise_accept([b"a/b;v=1;w=2"]), normalise_accept([b"a/b;W=2;v=1"]))

    def test_bounded(self) -> None:
        """A long one becomes a hash that no client can write."""
        long = b",".join(b"a/%d" % number for number in range(500))
        text = normalise_accept([long])
        self.assertTrue(text.startswith("sha256 "))
        self.assertNotEqual(normalise_accept([text.encode()]), text)
        self.assertNotEqual(normalise_accept([long + b",a/b"]), text)

    @given(st.lists(st.binary()))
    def test_arbitrary(self, values: list[bytes]) -> None:
        """Always bounded, and a short one is its own normal form."""
        text = normalise_accept(values)
        self.assertLessEqual(len(text), 512)
        if not text.startswith("sha256 "):
            self.assertEqual(normalise_accept([text.encode("latin-1")]), text)


class AcceptsTests(SynchronousTestCase):
    """accepts"""

    def test_nothing_said(self) -> None:
        """Then everything is accepted."""
        self.assertTrue(accepts([], OCI_INDEX))
        self.assertTrue(accepts([b" , "], OCI_INDEX))

    def test_ranges(self) -> None:
        """Exact ones and both wildcards."""
        for value in (OCI_INDEX.encode(), b"application/*", b"*/*", b"a/b, */*;q=0.1"):
            self.assertTrue(accepts([value], OCI_INDEX), value)
        for value in (OCI_MANIFEST.encode(), b"text/*", b"application/json"):
            self.assertFalse(accepts([value], OCI_INDEX), value)

    def test_specific_range_decides(self) -> None:
        """q=0 refuses, and so does the absence of anything that fits."""
        self.assertFalse(accepts([b"*/*, " + OCI_INDEX.encode() + b";q=0"], OCI_INDEX))
        self.assertTrue(accepts([b"*/*;q=0", OCI_INDEX.encode()], OCI_INDEX))
        self.assertFalse(accepts([b"*/*;q=0"], OCI_INDEX))
