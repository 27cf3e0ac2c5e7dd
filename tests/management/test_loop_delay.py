"""Tests for :mod:`regproxy.management.loop_delay`."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regproxy.management.loop_delay import DELAYS, INTERVAL, RECENT, LoopDelay


class LoopDelayTests(SynchronousTestCase):
    """LoopDelay"""

    def setUp(self) -> None:
        self.clock = Clock()
        self.held = 0.0
        self.delay = LoopDelay(self.clock, lambda: self.clock.seconds() + self.held)
        self.delay.startService()

    def test_in_time(self) -> None:
        """A reactor that is idle."""
        self.clock.pump([INTERVAL] * 20)
        self.assertEqual(self.delay.delays.counts[0], 20)
        self.assertAlmostEqual(self.delay.delays.sum, 0.0)

    def test_held(self) -> None:
        """Somebody holds it for 60 ms: the timer fires so much later."""
        self.held += 0.06
        self.clock.advance(INTERVAL)
        self.clock.pump([INTERVAL] * 3)
        self.assertAlmostEqual(self.delay.delays.sum, 0.06)
        self.assertEqual(self.delay.delays.counts[DELAYS.index(0.1)], 1)
        self.assertEqual(sum(self.delay.delays.counts), 4)

    def test_p99(self) -> None:
        """One of a hundred may be worse; what was more than a minute ago does not count."""
        self.assertIsNone(self.delay.p99)
        for held in *(0.25,) * 7, *(0.5,) * 6:
            self.held += held
            self.clock.advance(INTERVAL)
        self.assertAlmostEqual(self.delay.p99 or 0.0, 0.5)
        self.clock.pump([INTERVAL] * (RECENT - 13))
        self.assertAlmostEqual(self.delay.p99 or 0.0, 0.25)
        self.clock.pump([INTERVAL] * 13)
        self.assertAlmostEqual(self.delay.p99 or 0.0, 0.0)

    def test_early(self) -> None:
        """A timer that fires early is not late."""
        self.held -= 10
        self.clock.advance(INTERVAL)
        self.assertEqual(self.delay.delays.sum, 0.0)

    def test_stop(self) -> None:
        """Nothing is left behind; and it can begin again."""
        self.delay.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.delay.startService()
        self.clock.advance(INTERVAL)
        self.assertEqual(sum(self.delay.delays.counts), 1)
