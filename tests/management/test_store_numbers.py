"""Tests for :mod:`regproxy.management.store_numbers`."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, fail, succeed
from twisted.logger import capturedLogs

from regproxy.management.store_numbers import PATIENCE, store_numbers
from regproxy.store.errors import IndexFailed
from regproxy.store.housekeeping import StoreStats
from tests.support.api import PartsCase

STATS = StoreStats(1, 2, 3, 4, 5, 6, 7, 8)


class StoreNumbersTests(PartsCase):
    def ask(self, stats: Deferred[StoreStats]) -> Deferred[StoreStats | None]:
        """What is told when the store answers with *stats*."""
        self.patch(self.rooms.housekeeping, "stats", lambda: stats)
        return ensureDeferred(store_numbers(self.rooms.housekeeping, self.clock))

    def test_told(self) -> None:
        self.assertEqual(self.successResultOf(self.ask(succeed(STATS))), STATS)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_fails(self) -> None:
        """The log says why."""
        for error in IndexFailed("disk full"), OSError(5, "Input/output error"):
            with capturedLogs() as events:
                self.assertIsNone(self.successResultOf(self.ask(fail(error))))
            self.assertEqual([event["reason"] for event in events], [str(error)])

    def test_hangs(self) -> None:
        """It is not waited for."""
        asking = self.ask(Deferred())
        self.clock.advance(PATIENCE - 0.1)
        self.assertNoResult(asking)
        with capturedLogs() as events:
            self.clock.advance(0.1)
        self.assertIsNone(self.successResultOf(asking))
        self.assertEqual([event["reason"] for event in events], ["no answer within 2.0 s"])

    def test_leaves(self) -> None:
        """Who asked is gone: the store is asked no further."""
        cancelled: list[object] = []
        asking = self.ask(Deferred(cancelled.append))
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.assertEqual(len(cancelled), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
