"""Tests of regproxy.oci.ranges."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.ranges import (
    MAX_RANGES,
    ContentRange,
    Satisfiable,
    Unsatisfiable,
    Whole,
    content_range,
    if_range_matches,
    parse_content_range,
    parse_range,
    unsatisfied_range,
)


class ParseRangeTests(SynchronousTestCase):
    """parse_range"""

    def test_single(self) -> None:
        """The forms of one range, of ten bytes."""
        for header, expected in {
            b"bytes=0-0": (0, 1),
            b"bytes=2-4": (2, 5),
            b"bytes=2-": (2, 10),
            b"bytes=0-": (0, 10),
            b"bytes=9-99": (9, 10),
            b"bytes=-3": (7, 10),
            b"bytes=-10": (0, 10),
            b"bytes=-11": (0, 10),
            b"BYTES=2-4": (2, 5),
            b" bytes=2-4\t": (2, 5),
            b"bytes= ,2-4 ,": (2, 5),
            b"bytes=0-" + b"9" * 400: (0, 10),
        }.items():
            self.assertEqual(parse_range(header, 10), Satisfiable((expected,)), header)

    def test_several(self) -> None:
        """They stay in their order; those outside are left out."""
        self.assertEqual(
            parse_range(b"bytes=-2, 0-1,99-, 4-4", 10), Satisfiable(((8, 10), (0, 2), (4, 5)))
        )

    def test_unsatisfiable(self) -> None:
        """Nothing begins inside."""
        for header in (b"bytes=10-", b"bytes=10-12", b"bytes=-0", b"bytes=-0,44-"):
            self.assertEqual(parse_range(header, 10), Unsatisfiable(), header)

    def test_ignored(self) -> None:
        """Malformed ones, other units, and those that ask for too much."""
        for header in (
            None,
            b"",
            b"bytes",
            b"bytes=",
            b"bytes=,",
            b"bytes=-",
            b"bytes=a-b",
            b"bytes=4-2",
            b"bytes=0-1,x",
            b"bytes=+1-2",
            b"bytes=1 - 2",
            b"bytes =0-1",
            b"bytes=0-1\n",
            b"bytes=--5",
            b"items=0-1",
            b"bytes=0-4,4-5",
            b"bytes=0-,0-,0-",
            b"bytes=" + b",".join(b"%d-%d" % (n, n) for n in range(0, 2 * MAX_RANGES + 2, 2)),
            b"bytes=0-" + b"9" * 5000,
        ):
            self.assertEqual(parse_range(header, 10_000), Whole(), header)

    def test_no_content(self) -> None:
        """Of nothing, the last bytes are everything and the first are outside."""
        self.assertEqual(parse_range(b"bytes=-5", 0), Whole())
        self.assertEqual(parse_range(b"bytes=0-", 0), Unsatisfiable())

    @given(st.binary(), st.integers(0, 100))
    def test_arbitrary(self, header: bytes, size: int) -> None:
        """Whatever stands there, what comes out lies inside and never overlaps."""
        for value in (header, b"bytes=" + header):
            self._check(value, size)

    @given(
        st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=6),
        st.integers(0, 50),
    )
    def test_numbers(self, pairs: list[tuple[int, int]], size: int) -> None:
        """The same for well-formed ones."""
        self._check(b"bytes=" + b",".join(b"%d-%d" % pair for pair in pairs), size)

    def _check(self, header: bytes, size: int) -> None:
        result = parse_range(header, size)
        if isinstance(result, Satisfiable):
            covered = [offset for pair in result.ranges for offset in range(*pair)]
            self.assertEqual(len(covered), len(set(covered)))
            self.assertTrue(covered)
            self.assertTrue(all(0 <= offset < size for offset in covered))


class ContentRangeTests(SynchronousTestCase):
    """Content-Range, both ways."""

    def test_format(self) -> None:
        """Offsets are inclusive on the wire."""
        self.assertEqual(content_range(2, 5, 10), b"bytes 2-4/10")
        self.assertEqual(unsatisfied_range(10), b"bytes */10")

    def test_parse(self) -> None:
        """The size may be unknown."""
        self.assertEqual(parse_content_range(b"bytes 2-4/10"), ContentRange(2, 5, 10))
        self.assertEqual(parse_content_range(b" Bytes 0-0/* "), ContentRange(0, 1, None))

    def test_malformed(self) -> None:
        """A 206 with any of these cannot be used."""
        for value in (
            b"",
            b"bytes */10",
            b"bytes 4-2/10",
            b"bytes 2-10/10",
            b"bytes 2-4",
            b"bytes=2-4/10",
            b"items 2-4/10",
            b"bytes -2-4/10",
            b"bytes 2-4/10\n",
            b"bytes 0-" + b"9" * 5000 + b"/*",
        ):
            self.assertRaises(ValueError, parse_content_range, value)

    @given(st.integers(0, 1 << 50), st.integers(1, 1 << 50), st.integers(0, 1 << 50))
    def test_round_trip(self, start: int, length: int, after: int) -> None:
        """What is written here is read here."""
        end, size = start + length, start + length + after
        self.assertEqual(
            parse_content_range(content_range(start, end, size)), ContentRange(start, end, size)
        )


class IfRangeTests(SynchronousTestCase):
    """if_range_matches"""

    def test_strong_only(self) -> None:
        """The same strong tag, or no condition."""
        self.assertTrue(if_range_matches(None, b'"a"'))
        self.assertTrue(if_range_matches(b'"a" ', b'"a"'))
        for header in (b'W/"a"', b'"b"', b"a", b"", b"Sun, 06 Nov 1994 08:49:37 GMT", b'"a","b"'):
            self.assertFalse(if_range_matches(header, b'"a"'))
