"""Tests for :mod:`regproxy.figures`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.figures import Histogram, reason_of

BOUNDS = (0.001, 0.01, 0.5, 1.0, 30.0)


class HistogramTests(SynchronousTestCase):
    """Histogram"""

    def test_bounds(self) -> None:
        """A bound belongs to its bucket, as Prometheus's ``le`` means it."""
        histogram = Histogram((1.0, 2.0))
        for value in 0.0, 1.0, 1.5, 2.0, 2.5, 100.0:
            histogram.add(value)
        self.assertEqual(histogram.counts, [2, 2, 2])
        self.assertEqual(histogram.sum, 107.0)

    @given(st.lists(st.floats(0, 1000)))
    def test_all_are_counted(self, values: list[float]) -> None:
        histogram = Histogram(BOUNDS)
        for value in values:
            histogram.add(value)
        for index, bound in enumerate(BOUNDS):
            expected = sum(value <= bound for value in values)
            self.assertEqual(sum(histogram.counts[: index + 1]), expected)
        self.assertEqual(sum(histogram.counts), len(values))

    @given(st.lists(st.floats(0, 1000)), st.lists(st.floats(0, 1000)))
    def test_include(self, some: list[float], more: list[float]) -> None:
        """As if all had been added to one."""
        one, other, both = Histogram(BOUNDS), Histogram(BOUNDS), Histogram(BOUNDS)
        for value in some:
            one.add(value)
            both.add(value)
        for value in more:
            other.add(value)
            both.add(value)
        counts = list(other.counts)
        one.include(other)
        self.assertEqual(one.counts, both.counts)
        self.assertAlmostEqual(one.sum, both.sum, places=3)
        self.assertEqual(other.counts, counts)


class ReasonTests(SynchronousTestCase):
    """reason_of"""

    def test_of_its_class(self) -> None:
        class Late(Exception):
            reason = "late"

        class VeryLate(Late):
            pass

        self.assertEqual(reason_of(VeryLate()), "late")

    def test_others(self) -> None:
        """An attribute of that name may be something else: OpenSSL's errors have one."""

        class Odd(Exception):
            reason = 7

        self.assertEqual([reason_of(Odd()), reason_of(ValueError())], ["other", "other"])
