"""Tests for :mod:`regproxy.management.readiness`."""

from __future__ import annotations

import errno

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.task import Clock

from regproxy.management.readiness import PATIENCE, WAIT, Readiness
from regproxy.store.disk import BlobDirectory, Workers
from tests.support.caches import CacheCase
from tests.support.workers import Later


class ReadinessTests(CacheCase):
    def make_workers(self) -> Workers:
        self.later = Later()
        return self.later

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.readiness = Readiness(self.directory, self.workers, self.clock)

    def ask(self) -> Deferred[list[str]]:
        return ensureDeferred(self.readiness.problems())

    def answer(self) -> list[str]:
        """The answer while the disk works."""
        asking = self.ask()
        self.later.all()
        found: list[str] = self.successResultOf(asking)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return found

    def break_disk(self, error: Exception) -> None:
        def probe(directory: BlobDirectory) -> None:
            raise error

        self.patch(BlobDirectory, "probe", probe)

    def test_ready(self) -> None:
        self.assertEqual(self.answer(), [])
        self.assertEqual(list(self.directory.fills.iterdir()), [])

    def test_listeners(self) -> None:
        self.readiness.down = lambda: ["proxy.listen[0]", "dns.listen[1]"]
        self.assertEqual(
            self.answer(), ["proxy.listen[0] does not listen", "dns.listen[1] does not listen"]
        )

    def test_draining(self) -> None:
        self.readiness.draining = True
        self.assertEqual(self.answer(), ["it is being stopped"])

    def test_full(self) -> None:
        """The reason is told, and not where the store is."""
        self.break_disk(OSError(errno.ENOSPC, "No space left on device", "/some/path"))
        self.assertEqual(self.answer(), ["the store cannot be written: No space left on device"])

    def test_read_only(self) -> None:
        """A file really is written."""
        self.directory.fills.rmdir()
        (problem,) = self.answer()
        self.assertEqual(problem, "the store cannot be written: No such file or directory")
        self.directory.fills.mkdir()
        self.assertEqual(self.answer(), [])

    def test_mistake(self) -> None:
        self.break_disk(ZeroDivisionError())
        self.assertEqual(self.answer(), ["the store cannot be written: internal error"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_busy_disk(self) -> None:
        """What it said before holds for a while; the answer does not wait for it."""
        asking = self.ask()
        self.assertNoResult(asking)
        self.clock.advance(WAIT)
        self.assertEqual(self.successResultOf(asking), [])

    def test_trouble_holds(self) -> None:
        """As does what was wrong."""
        self.directory.fills.rmdir()
        (problem,) = self.answer()
        asking = self.ask()
        self.clock.advance(WAIT)
        self.assertEqual(self.successResultOf(asking), [problem])

    def test_hanging_disk(self) -> None:
        """However often it is asked about, one worker hangs."""
        for _ in range(30):
            asking = self.ask()
            self.clock.advance(WAIT)
            self.successResultOf(asking)
        self.assertEqual(len(self.later), 1)
        asking = self.ask()
        self.clock.advance(WAIT)
        expected = [f"the store has taken no file for {PATIENCE:.0f} s"]
        self.assertEqual(self.successResultOf(asking), expected)
        self.later.all()
        self.assertEqual(self.answer(), [])

    def test_together(self) -> None:
        """Many that ask at a time wait for one answer."""
        self.directory.fills.rmdir()
        asking = [self.ask() for _ in range(3)]
        self.assertEqual(len(self.later), 1)
        self.later.all()
        (first, *others) = map(self.successResultOf, asking)
        self.assertEqual(len(first), 1)
        self.assertEqual(others, [first, first])

    def test_leaves(self) -> None:
        asking = self.ask()
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.later.all()
        self.assertEqual(self.answer(), [])
