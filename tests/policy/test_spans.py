"""Spans against the plain set of positions that they stand for."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.policy.spans import Spans

POSITION = st.integers(0, 40)
PIECES = st.lists(st.tuples(POSITION, POSITION), max_size=12)


def positions(pieces: list[tuple[int, int]]) -> set[int]:
    return {position for start, end in pieces for position in range(start, end)}


class SpansTests(SynchronousTestCase):
    @given(PIECES)
    def test_is_the_set_of_what_was_added(self, pieces: list[tuple[int, int]]) -> None:
        spans = Spans(pieces)
        self.assertEqual(positions(list(spans)), positions(pieces))
        self.assertEqual(spans.total, len(positions(pieces)))

    @given(PIECES)
    def test_spans_neither_touch_nor_are_empty(self, pieces: list[tuple[int, int]]) -> None:
        spans = list(Spans(pieces))
        self.assertTrue(all(start < end for start, end in spans))
        self.assertTrue(all(end < start for (_, end), (start, _) in pairwise(spans)))

    @given(PIECES, POSITION)
    def test_run_ends_at_the_first_position_that_is_not_there(
        self, pieces: list[tuple[int, int]], offset: int
    ) -> None:
        there = positions(pieces)
        expected = offset
        while expected in there:
            expected += 1
        self.assertEqual(Spans(pieces).run(offset), expected)

    @given(PIECES, POSITION)
    def test_gap(self, pieces: list[tuple[int, int]], offset: int) -> None:
        there = positions(pieces)
        start, end = Spans(pieces).gap(offset)
        self.assertEqual(start, Spans(pieces).run(offset))
        later = sorted(position for position in there if position > start)
        self.assertEqual(end, later[0] if later else None)

    @given(PIECES, POSITION, POSITION)
    def test_missing_is_the_complement(
        self, pieces: list[tuple[int, int]], start: int, end: int
    ) -> None:
        missing = list(Spans(pieces).missing(start, end))
        self.assertEqual(positions(missing), set(range(start, end)) - positions(pieces))
        self.assertEqual(missing, list(Spans(missing)))

    @given(PIECES)
    def test_equality_is_that_of_sets(self, pieces: list[tuple[int, int]]) -> None:
        self.assertEqual(Spans(pieces), Spans(reversed(pieces)))
        self.assertNotEqual(Spans(pieces), Spans([*pieces, (41, 42)]))

    def test_repr_shows_the_spans(self) -> None:
        self.assertEqual(repr(Spans([(0, 2), (2, 3), (5, 6)])), "Spans([(0, 3), (5, 6)])")
