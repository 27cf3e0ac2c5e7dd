from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regproxy.web.deadline import Deadline


class DeadlineTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.deadline = Deadline(self.clock)
        self.missed: list[tuple[str, float]] = []

    def set(self, seconds: float, name: str = "it") -> None:
        self.deadline.set(seconds, lambda: self.missed.append((name, self.clock.seconds())))

    def test_missed_once(self) -> None:
        self.set(10)
        self.clock.pump([9.0, 1.0, 100.0])
        self.assertEqual(self.missed, [("it", 10.0)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_moved(self) -> None:
        """To later, at no cost; to earlier as well; and it may be for something else."""
        self.set(10, "first")
        (call,) = self.clock.getDelayedCalls()
        for _ in range(100):
            self.clock.advance(1)
            self.set(10, "second")
            self.assertLessEqual(len(self.clock.getDelayedCalls()), 1)
            if self.clock.seconds() < 10:
                self.assertEqual(self.clock.getDelayedCalls(), [call])
        self.set(3, "third")
        self.clock.pump([1.0] * 100)
        self.assertEqual(self.missed, [("third", 103.0)])

    def test_cancelled(self) -> None:
        self.set(10)
        self.clock.advance(5)
        self.deadline.cancel()
        self.clock.advance(100)
        self.assertEqual(self.missed, [])
        self.set(10)
        self.clock.advance(10)
        self.assertEqual(self.missed, [("it", 115.0)])

    def test_set_when_it_is_missed(self) -> None:
        self.deadline.set(10, lambda: self.set(5, "next"))
        self.clock.advance(10)
        self.clock.advance(5)
        self.assertEqual(self.missed, [("next", 15.0)])

    def test_end(self) -> None:
        self.deadline.end()
        self.set(10)
        self.deadline.end()
        self.assertEqual(self.clock.getDelayedCalls(), [])
