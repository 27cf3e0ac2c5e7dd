"""Tests of regproxy.web.drain."""

from __future__ import annotations

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regproxy.web.drain import drained
from regproxy.web.site import StrictRequest
from tests.support.sites import House
from tests.support.streams import MemoryStream


class Sockets(Clock):
    """A clock with sockets that may have something to send."""

    def __init__(self) -> None:
        super().__init__()
        self.writers: list[object] = []

    def getWriters(self) -> list[object]:
        return self.writers


class DrainedTests(SynchronousTestCase):
    """drained"""

    def setUp(self) -> None:
        self.sockets = Sockets()
        self.requests: list[StrictRequest] = []
        self.house = House.answering(self.requests.append)

    def ask(self) -> MemoryStream:
        stream = self.house.connect()
        stream.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        return stream

    def finish(self) -> Deferred[bool]:
        return ensureDeferred(drained(self.sockets, self.house.log.under_way, 8.0))

    def test_nothing_to_do(self) -> None:
        """It is over at once."""
        self.assertTrue(self.successResultOf(self.finish()))

    def test_waits_for_answers(self) -> None:
        """For every one: those that end, and those whose client leaves."""
        self.ask()
        left = self.ask()
        finishing = self.finish()
        self.requests[0].finish()
        self.sockets.advance(1)
        self.assertNoResult(finishing)
        left.finish()
        self.sockets.advance(1)
        self.assertTrue(self.successResultOf(finishing))

    def test_waits_for_sockets(self) -> None:
        """What has been answered has to be sent, too."""
        self.sockets.writers.append(object())
        finishing = self.finish()
        self.sockets.advance(1)
        self.assertNoResult(finishing)
        self.sockets.writers.clear()
        self.sockets.advance(1)
        self.assertTrue(self.successResultOf(finishing))

    def test_gives_up(self) -> None:
        """After its time, not before."""
        self.ask()
        finishing = self.finish()
        self.sockets.pump([0.5] * 15)
        self.assertNoResult(finishing)
        self.sockets.pump([0.5] * 2)
        self.assertFalse(self.successResultOf(finishing))
