from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from regproxy.management.jobs import JobFailed, Progress
from regproxy.management.values import JobImage, JobState
from regproxy.management.warming import AT_A_TIME, Warming
from regproxy.oci.manifests import Platform
from regproxy.oci.references import ImageName
from regproxy.registry.prefetch import Prefetch, Unfetched
from tests.support.prefetching import FakePrefetch


class WarmingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.prefetch = FakePrefetch()
        self.progress = Progress()

    def warm(self, *names: str, platforms: list[Platform] | None = None) -> Deferred[Any]:
        parsed = {name: ImageName.parse(name) for name in names}
        warming = Warming(cast(Prefetch, self.prefetch), parsed, platforms)
        return ensureDeferred(warming.run(self.progress))

    def begun(self) -> list[str]:
        """The tags of what is fetched."""
        return [name.rpartition(":")[2] for name in self.prefetch.begun]

    def end(self, name: str, error: Exception | None = None) -> None:
        done = self.prefetch.begun[str(ImageName.parse(name))].done
        if error is None:
            done.callback(None)
        else:
            done.errback(error)

    def states(self) -> list[tuple[str, JobState]]:
        return [(each.reference, each.state) for each in self.progress.images.values()]

    def test_progress(self) -> None:
        """Of each image, and of all."""
        warming = self.warm("a.b/c:1", "a.b/c:2", platforms=[Platform("linux", "amd64")])
        one, two = self.prefetch.begun.values()
        self.assertEqual(one.platforms, ["linux/amd64"])
        one.meter.expect(10)
        one.meter.expect(5)
        two.meter.expect(7)
        one.meter.advance(15)
        two.meter.advance(3)
        self.assertEqual((self.progress.done, self.progress.total), (18, 22))
        self.end("a.b/c:1")
        self.assertEqual(
            list(self.progress.images.values()),
            [
                JobImage("a.b/c:1", JobState.DONE, 15, 15),
                JobImage("a.b/c:2", JobState.RUNNING, 3, 7),
            ],
        )
        self.end("a.b/c:2")
        self.successResultOf(warming)
        self.assertEqual(self.progress.message, "2 images are here")

    def test_some_at_a_time(self) -> None:
        names = [f"a.b/c:{number}" for number in range(AT_A_TIME + 2)]
        warming = self.warm(*names)
        self.assertEqual(len(self.prefetch.begun), AT_A_TIME)
        self.end(names[1])
        self.assertEqual(self.begun(), [str(number) for number in range(AT_A_TIME + 1)])
        self.assertNoResult(warming)

    def test_failure(self) -> None:
        """The others are fetched all the same; which failed is told, and why."""
        names = [f"a.b/c:{number}" for number in range(AT_A_TIME + 1)]
        warming = self.warm(*names)
        self.end(names[0], Unfetched("blob sha256:ab: it is gone"))
        for name in names[1:]:
            self.end(name)
        reason = str(self.failureResultOf(warming, JobFailed).value)
        self.assertEqual(reason, f"1 of {AT_A_TIME + 1} images could not be fetched")
        self.assertEqual(self.progress.failures, ["a.b/c:0: blob sha256:ab: it is gone"])
        self.assertEqual(self.progress.images[names[0]].error, "blob sha256:ab: it is gone")
        self.assertEqual(
            self.states(), [(names[0], JobState.FAILED), *((n, JobState.DONE) for n in names[1:])]
        )

    def test_cancelled(self) -> None:
        """Nothing more is begun."""
        names = [f"a.b/c:{number}" for number in range(AT_A_TIME + 2)]
        warming = self.warm(*names)
        self.end(names[0])
        begun = self.begun()
        warming.cancel()
        self.failureResultOf(warming, CancelledError)
        self.assertEqual(self.begun(), begun)
        self.assertEqual(
            self.states(),
            [(names[0], JobState.DONE), *((n, JobState.CANCELLED) for n in names[1:])],
        )

    def test_a_mistake_of_this_program(self) -> None:
        """It is no failure of an image."""
        warming = self.warm("a.b/c:1")
        self.end("a.b/c:1", ZeroDivisionError())
        self.failureResultOf(warming, ZeroDivisionError)
