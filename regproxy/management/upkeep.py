"""The store's housekeeping as jobs: what happens by itself now and then, at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from regproxy.management.jobs import JobFailed, Jobs, Progress
from regproxy.management.values import Job, JobKind, Unit
from regproxy.policy.integrity import ContentRecord
from regproxy.store.errors import Damaged, StoreError
from regproxy.store.housekeeping import Housekeeping
from regproxy.store.store import Store

# Of a collection.
_STEPS: Final = 3


class Upkeep:
    """Begins the jobs; none twice at a time.

    Args:
        now: seconds since the epoch.
    """

    def __init__(
        self, jobs: Jobs, store: Store, housekeeping: Housekeeping, now: Callable[[], float]
    ) -> None:
        self._jobs = jobs
        self._store = store
        self._housekeeping = housekeeping
        self._now = now

    def verify(self) -> Job:
        """Read all that is stored, as fast as one thread can.

        Raises:
            TooManyJobs: wait.
        """
        return self._jobs.start(JobKind.VERIFY, self._verify, unit=Unit.BYTES, alone=True)

    def collect(self) -> Job:
        """Have the store forget and evict what it may.

        Raises:
            TooManyJobs: wait.
        """
        return self._jobs.start(JobKind.GC, self._collect, alone=True)

    async def _verify(self, progress: Progress) -> None:
        verified = damaged = 0

        def told(record: ContentRecord, error: Damaged | OSError | None) -> None:
            nonlocal verified, damaged
            progress.done += record.size
            if isinstance(error, Damaged):
                damaged += 1
                progress.fail(f"{record.digest} was damaged, and is put aside")
            elif error is not None:
                progress.fail(f"{record.digest} cannot be read: {error.strerror}")
            else:
                verified += 1
            progress.message = f"{verified} verified, {damaged} damaged"

        try:
            stats = await self._housekeeping.stats()
            progress.total = stats.bytes
            await self._store.verification.verify_before(self._now(), told=told)
        except (StoreError, OSError) as error:
            raise JobFailed(str(error)) from error
        # What was evicted meanwhile needs no reading.
        progress.total = progress.done

    async def _collect(self, progress: Progress) -> None:
        progress.total = _STEPS

        def step(text: str) -> None:
            progress.done += progress.message is not None
            progress.message = text

        try:
            blobs, size = await self._housekeeping.collect(step)
        except (StoreError, OSError) as error:
            raise JobFailed(str(error)) from error
        progress.done = _STEPS
        progress.message = f"evicted: {blobs} blobs, {size} bytes"
