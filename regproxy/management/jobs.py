"""Work in the background that somebody asked for, and can look at and cancel."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Coroutine, Iterable
from datetime import UTC, datetime
from typing import Any, Final

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from regproxy.management.values import Job, JobImage, JobKind, JobState, Unit

#: Jobs that run at a time.
MAX_RUNNING: Final = 16
#: Jobs that are remembered after their end.
MAX_ENDED: Final = 100
#: Failures that a job keeps the text of.
MAX_FAILURES: Final = 100
#: Characters of each.
MAX_TEXT: Final = 500


class UnknownJob(Exception):
    """There is no such job, or it ended so long ago that it is forgotten."""

    def __init__(self, id: str) -> None:
        super().__init__(f"there is no job {id}")


class TooManyJobs(Exception):
    """As many jobs run as may at a time."""

    def __init__(self) -> None:
        super().__init__(f"{MAX_RUNNING} jobs are running: wait for one of them, or cancel it")


class JobFailed(Exception):
    """What a job's work raises when it cannot be done; the text tells people why."""


@define
class Progress:
    """What a job's work tells about how far it is.

    Attributes:
        done: in units.
        total: in units; None while it is not known.
        message: what it does now, or has done.
        failures: what went wrong and did not end it.
        images: for warm.
    """

    done: int = 0
    total: int | None = None
    message: str | None = None
    failures: list[str] = field(factory=list)
    images: dict[str, JobImage] = field(factory=dict)

    def fail(self, text: str) -> None:
        """Something went wrong, and the work goes on. Of many such, the first are kept."""
        if len(self.failures) < MAX_FAILURES:
            self.failures.append(text[:MAX_TEXT])


#: Does a job, and tells how far it is.
Work = Callable[[Progress], Coroutine[Any, Any, None]]


@define
class _Entry:
    job: Job
    progress: Progress
    running: Deferred[None] | None = None

    def now(self) -> Job:
        """The job as it stands."""
        progress = self.progress
        return evolve(
            self.job,
            done=progress.done,
            total=progress.total,
            message=progress.message,
            failures=tuple(progress.failures),
            images=tuple(progress.images.values()),
        )


class Jobs:
    """Starts jobs, and remembers them for a while.

    Args:
        now: seconds since the epoch.
    """

    _log = Logger()

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._entries: dict[str, _Entry] = {}

    def start(
        self, kind: JobKind, work: Work, *, unit: Unit = Unit.ITEMS, alone: bool = False
    ) -> Job:
        """Begin *work*.

        Args:
            alone: a job of its kind that runs already is the answer; there is no second one.

        Raises:
            TooManyJobs: wait.
        """
        running = [entry for entry in self._entries.values() if entry.running is not None]
        if alone:
            for entry in running:
                if entry.job.kind is kind:
                    return entry.now()
        if len(running) >= MAX_RUNNING:
            raise TooManyJobs
        # Nobody finds a job of somebody else's by counting.
        id = secrets.token_hex(8)
        job = Job(id, kind, JobState.RUNNING, self._time(), None, 0, None, unit)
        entry = self._entries[id] = _Entry(job, Progress())
        self._log.info("Job {id} begins: {kind}", id=id, kind=str(kind))
        entry.running = ensureDeferred(work(entry.progress))
        entry.running.addBoth(self._ended, entry)
        return entry.now()

    def get(self, id: str) -> Job:
        """The job called *id*.

        Raises:
            UnknownJob: there is none.
        """
        return self._entry(id).now()

    def all(self) -> Iterable[Job]:
        """All jobs that are remembered, the latest first."""
        return [entry.now() for entry in reversed(self._entries.values())]

    def cancel(self, id: str) -> Job:
        """Have the job called *id* do no more. One that has ended stays as it is.

        Raises:
            UnknownJob: there is none.
        """
        entry = self._entry(id)
        if entry.running is not None:
            entry.running.cancel()
        return entry.now()

    def stop(self) -> None:
        """Cancel all that run."""
        for entry in tuple(self._entries.values()):
            if entry.running is not None:
                entry.running.cancel()

    def _entry(self, id: str) -> _Entry:
        try:
            return self._entries[id]
        except KeyError:
            raise UnknownJob(id) from None

    def _ended(self, result: object, entry: _Entry) -> None:
        entry.running = None
        state = JobState.DONE
        if isinstance(result, Failure):
            if result.check(CancelledError):
                state = JobState.CANCELLED
            else:
                state = JobState.FAILED
                entry.progress.message = self._reason(result, entry)
        entry.job = evolve(entry.job, state=state, ended_at=self._time())
        self._log.info(
            "Job {id} has ended: {kind} {state}",
            id=entry.job.id,
            kind=str(entry.job.kind),
            state=str(state),
        )
        ended = [id for id, each in self._entries.items() if each.job.ended_at is not None]
        for id in ended[:-MAX_ENDED]:
            del self._entries[id]

    def _reason(self, failure: Failure, entry: _Entry) -> str:
        if failure.check(JobFailed):
            return str(failure.value)
        self._log.failure("Job {id} failed", failure, id=entry.job.id)
        return "internal error: the log says more"

    def _time(self) -> datetime:
        return datetime.fromtimestamp(self._now(), UTC)
