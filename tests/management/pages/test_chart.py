"""Tests for :mod:`regproxy.management.pages.chart`."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.management.pages.chart import HEIGHT, WIDTH, Chart, ceiling
from regproxy.management.values import Sample
from tests.support.management import MIB, NOW

# A time at which a row of the table and a step of the line begin.
FULL = NOW.replace(minute=5, second=0)


def sample(ago: float, sent: int = 0, fetched: int = 0, requests: int = 0, hits: int = 0) -> Sample:
    """A sample of ten seconds that began *ago* seconds before FULL."""
    return Sample(FULL - timedelta(seconds=ago), 10.0, sent, fetched, requests, hits)


def points(line: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (point.split(",") for point in line.split())]


class ChartTests(SynchronousTestCase):
    """What is drawn."""

    def test_nothing(self) -> None:
        """A proxy that has just begun has a scale and no line."""
        chart = Chart.of((), FULL)
        self.assertEqual((chart.to_clients, chart.from_upstream, chart.area), ("", "", ""))
        self.assertEqual((chart.top, chart.peak, list(chart.rows)), (MIB, 0, []))

    def test_lines(self) -> None:
        """Samples of one half minute are one point: the mean rate, where it began."""
        samples = [
            sample(60, 300 * MIB, 30 * MIB),
            sample(50, 300 * MIB, 0),
            sample(40, 300 * MIB, 0),
            sample(30, 1500 * MIB, 60 * MIB),
        ]
        chart = Chart.of(samples, FULL)
        self.assertEqual(chart.peak, 150 * MIB)
        self.assertEqual(chart.top, 200 * MIB)
        self.assertEqual(points(chart.to_clients), [(WIDTH - 2, 85.0), (WIDTH - 1, 25.0)])
        self.assertEqual(points(chart.from_upstream), [(WIDTH - 2, 99.5), (WIDTH - 1, 97.0)])
        self.assertEqual(
            points(chart.area),
            [(WIDTH - 2, HEIGHT), (WIDTH - 2, 85.0), (WIDTH - 1, 25.0), (WIDTH - 1, HEIGHT)],
        )

    def test_more_from_upstream(self) -> None:
        """What is fetched for nobody has room too."""
        self.assertEqual(Chart.of([sample(60, 0, 70 * MIB)], FULL).top, 10 * MIB)

    def test_hour(self) -> None:
        """What is older than an hour, or later than now, is not counted."""
        samples = [sample(3600, 7), sample(3590, 20), sample(10, 4), sample(-10, 7)]
        self.assertEqual(Chart.of(samples, FULL).total.bytes_to_clients, 24)

    def test_rows(self) -> None:
        """The table has the sums of five minutes each."""
        samples = [sample(310, 1, 2, 3, 4), sample(300, 10, 20, 30, 40), sample(10, 5, 5, 5, 5)]
        rows = [
            (row.time, row.bytes_to_clients, row.bytes_from_upstream, row.requests, row.hits)
            for row in Chart.of(samples, FULL).rows
        ]
        self.assertEqual(
            rows,
            [
                (FULL - timedelta(minutes=10), 1, 2, 3, 4),
                (FULL - timedelta(minutes=5), 15, 25, 35, 45),
            ],
        )

    @given(st.lists(st.tuples(st.integers(0, 1 << 50), st.integers(0, 1 << 50)), max_size=40))
    def test_stays_inside(self, amounts: list[tuple[int, int]]) -> None:
        """Whatever happened, it is within the drawing, from left to right."""
        samples = [sample(3600 - number * 90, *amount) for number, amount in enumerate(amounts, 1)]
        chart = Chart.of(samples, FULL)
        for line in chart.to_clients, chart.from_upstream:
            drawn = points(line)
            self.assertEqual(drawn, sorted(drawn, key=lambda point: point[0]))
            self.assertTrue(all(-1 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in drawn))


class CeilingTests(SynchronousTestCase):
    """The scale."""

    def test_round(self) -> None:
        for rate, top in ((0, 1), (1, 1), (1.1, 2), (3, 5), (170, 200), (501, 1024)):
            self.assertEqual(ceiling(rate * MIB), top * MIB)

    @given(st.floats(0, 1e15))
    def test_near(self, rate: float) -> None:
        """A line fills at least two fifths of the height, unless there is next to nothing."""
        top = ceiling(rate)
        self.assertGreaterEqual(top, rate)
        self.assertLessEqual(top, max(2.5 * rate, MIB))
