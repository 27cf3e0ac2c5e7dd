"""Tests of regproxy.oci.conditional."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.conditional import etag_of, match_failed, none_match
from regproxy.oci.names import Digest
from tests.oci.strategies import digests

ETAG = b'"a"'
NAMING = (
    [ETAG],
    [b"*"],
    [b" * "],
    [b'"x" , "a"'],
    [b',,"a"'],
    [b'"x"', b'"a"'],
    [b"a"],
    [b'"x,y","a"'],
    [b'"a" "b', b'"a"'],
)
NOT_NAMING = ([b'"b"'], [b""], [b'"A"'], [b'"x,"a""'], [b'x"a"'], [b'"a" "b"'], [b'w/"a"'])


class EntityTagTests(SynchronousTestCase):
    """etag_of"""

    def test_quoted_digest(self) -> None:
        """The tag is the digest in quotes."""
        digest = Digest.of(b"")
        self.assertEqual(etag_of(digest), b'"' + str(digest).encode() + b'"')


class IfNoneMatchTests(SynchronousTestCase):
    """none_match"""

    def test_modified(self) -> None:
        """No field, or one that names others."""
        self.assertFalse(none_match([], ETAG))
        for values in NOT_NAMING:
            self.assertFalse(none_match(values, ETAG), values)

    def test_not_modified(self) -> None:
        """A list, several lines, a star, a tag without quotes, a weak tag."""
        for values in (*NAMING, [b'W/"a"']):
            self.assertTrue(none_match(values, ETAG), values)

    @given(st.lists(st.binary()), digests)
    def test_arbitrary(self, values: list[bytes], digest: Digest) -> None:
        """A field in front of or behind whatever is still read."""
        etag = etag_of(digest)
        self.assertTrue(none_match([*values, etag], etag))
        self.assertTrue(none_match([etag, *values], etag))

    def test_long_run_of_spaces(self) -> None:
        """Time is linear: this would take minutes otherwise."""
        self.assertFalse(none_match([b" " * 200_000 + b'"'], ETAG))


class IfMatchTests(SynchronousTestCase):
    """match_failed"""

    def test_holds(self) -> None:
        """No field, or one that names it."""
        for values in ([], *NAMING):
            self.assertFalse(match_failed(values, ETAG), values)

    def test_fails(self) -> None:
        """Others, and a weak tag."""
        for values in (*NOT_NAMING, [b'W/"a"']):
            self.assertTrue(match_failed(values, ETAG), values)
