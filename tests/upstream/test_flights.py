"""Tests for :mod:`regproxy.upstream.flights`."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from regproxy.upstream.flights import Flights


class FlightsTests(SynchronousTestCase):
    """Several who wait for the same."""

    def setUp(self) -> None:
        self.flights: Flights[str, int] = Flights()
        self.begun: list[Deferred[int]] = []

    async def work(self) -> int:
        self.begun.append(Deferred())
        return await self.begun[-1]

    def join(self, key: str = "a") -> Deferred[int]:
        return self.flights.join(key, self.work)

    def test_shared(self) -> None:
        """One piece of work for each key, and a new one when it is over."""
        waiting = [self.join(), self.join(), self.join("b")]
        self.assertEqual(len(self.begun), 2)
        self.begun[0].callback(1)
        self.begun[1].callback(2)
        self.assertEqual(list(map(self.successResultOf, waiting)), [1, 1, 2])
        self.assertNoResult(self.join())
        self.assertEqual(len(self.begun), 3)

    def test_failed(self) -> None:
        waiting = [self.join(), self.join()]
        self.begun[0].errback(ValueError("x"))
        for each in waiting:
            self.failureResultOf(each, ValueError)

    def test_cancelled(self) -> None:
        """It goes on for the others, and for nobody."""
        first, second = self.join(), self.join()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.begun[0].callback(1)
        self.assertEqual(self.successResultOf(second), 1)
        alone = self.join()
        alone.cancel()
        self.failureResultOf(alone, CancelledError)
        self.begun[1].errback(ValueError("nobody's"))

    def test_at_once(self) -> None:
        """Work that does not wait."""

        async def work() -> int:
            return 7

        self.assertEqual(self.successResultOf(self.flights.join("a", work)), 7)
