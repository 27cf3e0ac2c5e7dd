"""Tests for :mod:`regproxy.registry.waiting`."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from regproxy.registry.waiting import Leaders


class LeadersTests(SynchronousTestCase):
    """Leaders"""

    def setUp(self) -> None:
        self.leaders = Leaders()
        self.work: Deferred[str] = Deferred()
        self.unwanted: list[str] = []

    def lead(self) -> Deferred[str]:
        async def working() -> str:
            return await self.work

        leading = self.leaders.lead("key", working(), self.unwanted.append)
        return ensureDeferred(leading)

    def test_led(self) -> None:
        """The leader gets the result; the others see it, once nobody leads any more."""
        leader = self.lead()
        self.assertIn("key", self.leaders)
        followers = [self.leaders.led("key") for _ in range(2)]
        seen: list[bool] = []
        followers[0].addCallback(lambda _: seen.append("key" in self.leaders))
        self.work.callback("result")
        self.assertEqual(self.successResultOf(leader), "result")
        self.assertEqual(self.successResultOf(followers[1]), "result")
        self.assertEqual(seen, [False])
        self.assertEqual(self.unwanted, [])

    def test_failure(self) -> None:
        """All get it."""
        leader, follower = self.lead(), self.leaders.led("key")
        self.work.errback(Failure(ZeroDivisionError()))
        self.failureResultOf(leader, ZeroDivisionError)
        self.failureResultOf(follower, ZeroDivisionError)
        self.assertNotIn("key", self.leaders)

    def test_leader_leaves(self) -> None:
        """The work goes on, and its result is disposed of."""
        leader, follower = self.lead(), self.leaders.led("key")
        leader.cancel()
        self.failureResultOf(leader, CancelledError)
        self.assertIn("key", self.leaders)
        self.work.callback("result")
        self.assertEqual(self.successResultOf(follower), "result")
        self.assertEqual(self.unwanted, ["result"])

    def test_leader_leaves_a_failure(self) -> None:
        """A failure that nobody waits for is no error in the log."""
        self.lead().addErrback(lambda failure: failure.trap(CancelledError)).cancel()
        self.work.errback(Failure(ZeroDivisionError()))
        self.assertNotIn("key", self.leaders)

    def test_follower_leaves(self) -> None:
        leader, follower = self.lead(), self.leaders.led("key")
        follower.cancel()
        self.failureResultOf(follower, CancelledError)
        self.work.callback("result")
        self.assertEqual(self.successResultOf(leader), "result")

    def test_at_once(self) -> None:
        """Work may be over before anybody waits."""
        self.work.callback("result")
        self.assertEqual(self.successResultOf(self.lead()), "result")
        self.assertNotIn("key", self.leaders)
