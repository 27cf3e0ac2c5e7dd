"""Tests for :mod:`regproxy.management.history`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regproxy.management.history import KEPT, STEP, History, Totals
from regproxy.management.values import Sample

STARTED = datetime(2026, 11, 24, 13, 0, tzinfo=UTC)


class HistoryTests(SynchronousTestCase):
    """History"""

    def setUp(self) -> None:
        self.clock = Clock()
        # The clock on the wall.
        self.ahead = STARTED.timestamp()
        # It was counted before.
        self.totals = Totals(1000, 100, 10, 5)
        self.history = History(
            lambda: self.totals, lambda: self.clock.seconds() + self.ahead, self.clock.seconds
        )
        self.history.tick()

    def step(self, seconds: float = STEP) -> None:
        self.clock.advance(seconds)
        self.history.tick()

    def test_growth(self) -> None:
        """Of each step by itself; nothing is known of what was before the first one."""
        self.assertEqual(self.history.samples(), ())
        self.totals = Totals(1500, 130, 14, 6)
        self.step()
        self.step(12.5)
        self.totals = Totals(1501, 130, 15, 7)
        self.step()
        self.assertEqual(
            self.history.samples(),
            (
                Sample(STARTED, 10.0, 500, 30, 4, 1),
                Sample(STARTED + timedelta(seconds=10), 12.5, 0, 0, 0, 0),
                Sample(STARTED + timedelta(seconds=22.5), 10.0, 1, 0, 1, 1),
            ),
        )

    def test_an_hour(self) -> None:
        """The oldest go."""
        self.assertEqual(STEP * KEPT, 3600)
        for _ in range(KEPT + 5):
            self.step()
        samples = self.history.samples()
        self.assertEqual(len(samples), KEPT)
        self.assertEqual(samples[0].time, STARTED + timedelta(seconds=5 * STEP))

    def test_clock_set(self) -> None:
        """How long a sample is does not depend on the clock on the wall."""
        self.ahead += 3600
        self.step()
        (sample,) = self.history.samples()
        self.assertEqual(sample.seconds, STEP)
        self.assertEqual(sample.time, STARTED + timedelta(hours=1))
