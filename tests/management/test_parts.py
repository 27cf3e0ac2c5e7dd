"""Tests for :mod:`regproxy.management.parts`."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from regproxy.management.api import NotReloaded, Reloaded
from regproxy.management.jobs import Progress
from regproxy.management.stream import NoMoreStreams
from regproxy.management.values import JobKind, JobState
from tests.support.api import PartsCase


class PartsTests(PartsCase):
    def test_reload(self) -> None:
        """Whoever can do it says so, be the operations there already."""
        proxy = self.parts.proxy
        self.assertRaises(NotReloaded, proxy.reload)
        self.parts.reload = lambda: Reloaded(restart_needed=True)
        self.assertTrue(proxy.reload().restart_needed)

    def test_stop(self) -> None:
        async def work(progress: Progress) -> None:
            await Deferred()

        job = self.parts.jobs.start(JobKind.WARM, work)
        self.parts.stop()
        self.assertEqual(self.parts.jobs.get(job.id).state, JobState.CANCELLED)
        self.assertEqual(self.finish(self.parts.readiness.problems()), ["it is being stopped"])
        self.assertRaises(NoMoreStreams, self.parts.broadcast.open, None)

    def test_one_of_each(self) -> None:
        """All see the same."""
        proxy = self.parts.proxy
        for name in ("overview", "events", "history", "fills", "jobs", "broadcast", "upkeep"):
            self.assertIs(getattr(proxy, name), getattr(self.parts, name))
