"""Tests for :mod:`regproxy.management.jobs`."""

from __future__ import annotations

from datetime import UTC, datetime

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from regproxy.management.jobs import (
    MAX_ENDED,
    MAX_FAILURES,
    MAX_RUNNING,
    MAX_TEXT,
    JobFailed,
    Jobs,
    Progress,
    TooManyJobs,
    UnknownJob,
)
from regproxy.management.values import Job, JobImage, JobKind, JobState, Unit


class JobsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 1000.0
        self.jobs = Jobs(lambda: self.now)
        self.works: list[tuple[Progress, Deferred[None]]] = []

    async def work(self, progress: Progress) -> None:
        done: Deferred[None] = Deferred()
        self.works.append((progress, done))
        await done

    def start(self, kind: JobKind = JobKind.WARM, *, alone: bool = False) -> Job:
        return self.jobs.start(kind, self.work, alone=alone)

    def state(self, job: Job) -> JobState:
        return self.jobs.get(job.id).state

    def test_life(self) -> None:
        job = self.jobs.start(JobKind.VERIFY, self.work, unit=Unit.BYTES)
        self.assertEqual(
            job,
            Job(
                id=job.id,
                kind=JobKind.VERIFY,
                state=JobState.RUNNING,
                started_at=datetime.fromtimestamp(1000.0, UTC),
                ended_at=None,
                done=0,
                total=None,
                unit=Unit.BYTES,
            ),
        )
        ((progress, done),) = self.works
        progress.done, progress.total, progress.message = 5, 10, "half"
        progress.fail("x" * 1000)
        progress.images["a"] = image = JobImage("a", JobState.RUNNING)
        running = self.jobs.get(job.id)
        self.assertEqual((running.done, running.total, running.message), (5, 10, "half"))
        self.assertEqual(running.failures, ("x" * MAX_TEXT,))
        self.assertEqual(running.images, (image,))
        self.assertEqual(job.done, 0)
        self.now = 1010.0
        done.callback(None)
        ended = self.jobs.get(job.id)
        self.assertEqual(ended.state, JobState.DONE)
        self.assertEqual(ended.ended_at, datetime.fromtimestamp(1010.0, UTC))
        self.assertEqual(ended.message, "half")

    def test_done_at_once(self) -> None:
        async def work(progress: Progress) -> None:
            progress.done = 1

        job = self.jobs.start(JobKind.GC, work)
        self.assertEqual((job.state, job.done), (JobState.DONE, 1))

    def test_failed(self) -> None:
        job = self.start()
        self.works[0][1].errback(JobFailed("no room"))
        self.assertEqual(self.state(job), JobState.FAILED)
        self.assertEqual(self.jobs.get(job.id).message, "no room")

    def test_mistake(self) -> None:
        """What nobody has foreseen is for the log, and not for who asks."""
        job = self.start()
        self.works[0][1].errback(ZeroDivisionError("secret"))
        self.assertEqual(self.state(job), JobState.FAILED)
        self.assertEqual(self.jobs.get(job.id).message, "internal error: the log says more")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_cancel(self) -> None:
        job = self.start()
        self.assertEqual(self.jobs.cancel(job.id).state, JobState.CANCELLED)
        self.assertTrue(self.works[0][1].called)
        self.assertIsNotNone(self.jobs.get(job.id).ended_at)

    def test_cancel_of_one_that_has_ended(self) -> None:
        job = self.start()
        self.works[0][1].callback(None)
        self.assertEqual(self.jobs.cancel(job.id).state, JobState.DONE)

    def test_unknown(self) -> None:
        self.assertRaises(UnknownJob, self.jobs.get, "x")
        self.assertRaises(UnknownJob, self.jobs.cancel, "x")

    def test_alone(self) -> None:
        """Who asks for what is under way gets what is under way."""
        first = self.start(JobKind.GC, alone=True)
        other = self.start(JobKind.VERIFY, alone=True)
        self.assertEqual(self.start(JobKind.GC, alone=True).id, first.id)
        self.assertNotEqual(other.id, first.id)
        self.assertEqual(len(self.works), 2)
        self.works[0][1].callback(None)
        self.assertNotEqual(self.start(JobKind.GC, alone=True).id, first.id)

    def test_too_many(self) -> None:
        jobs = [self.start() for _ in range(MAX_RUNNING)]
        self.assertRaises(TooManyJobs, self.start)
        self.jobs.cancel(jobs[3].id)
        self.start()

    def test_memory(self) -> None:
        """The ones that began first are forgotten, and none that runs."""
        running = self.start()
        ended = []
        for _ in range(MAX_ENDED + 2):
            ended.append(self.start())
            self.works[-1][1].callback(None)
        ids = [job.id for job in self.jobs.all()]
        self.assertEqual(ids, [*(job.id for job in reversed(ended[2:])), running.id])

    def test_failures_are_bounded(self) -> None:
        progress = Progress()
        for number in range(MAX_FAILURES + 1):
            progress.fail(str(number))
        self.assertEqual(progress.failures[-1], str(MAX_FAILURES - 1))

    def test_stop(self) -> None:
        jobs = [self.start(), self.start()]
        self.jobs.stop()
        self.assertEqual([self.state(job) for job in jobs], [JobState.CANCELLED] * 2)

    def test_log(self) -> None:
        with capturedLogs() as events:
            job = self.start()
            self.works[0][1].callback(None)
        self.assertEqual([event["id"] for event in events], [job.id] * 2)
