"""What the store does to itself, in the background: repair, reconcile, evict, verify, forget.

What images there are is worked out here too, so that little is left to do when somebody looks.

Whoever goes through everything pauses between two steps, so that others get their turn at
the disk, the index and the interpreter.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from regproxy.config.model import DAY, CacheSection
from regproxy.store.disk import BlobDirectory, Workers
from regproxy.store.errors import StoreError
from regproxy.store.eviction import Eviction
from regproxy.store.forgetting import Forgetting
from regproxy.store.partial import sweep
from regproxy.store.reconciliation import Reconciliation
from regproxy.store.store import Store

#: Bytes a second that are verified without need: 1 TiB in a day and a half, at a few
#: percent of a core and of a disk.
RATE: Final = 8 << 20
#: What a file counts as at least: to open it and to record what was found costs a millisecond.
LEAST: Final = 256 << 10
#: Of the time that it takes to go through everything, how much is work; the rest is left to others.
SHARE: Final = 0.25
#: Seconds from one time that rows without use are looked for to the next.
FORGET_INTERVAL: Final = 1 * DAY
# Seconds that a damaged file is kept for somebody to look at.
KEPT: Final = 7 * DAY


@frozen
class StoreStats:
    """The store in numbers. Those of events count from the start of the process.

    Attributes:
        bytes: of all content that is whole.
        blobs: how many there are.
        limit: bytes that there may be.
        free: bytes free on the file system.
        evicted: blobs evicted.
        evicted_bytes: their size.
        quarantined: files found damaged.
        disk_full: how many times the disk had no room.
    """

    bytes: int
    blobs: int
    limit: int
    free: int
    evicted: int
    evicted_bytes: int
    quarantined: int
    disk_full: int


class Errand:
    """Work that is done in the background, and never twice at a time.

    Args:
        what: the work, for the log.
        work: does it once.
    """

    _log = Logger()

    def __init__(self, what: str, work: Callable[[], Awaitable[None]]) -> None:
        self.under_way = False
        self._what = what
        self._work = work
        self._again = False
        self._running: Deferred[None] | None = None
        self._waiters: list[Deferred[None]] = []

    def done(self) -> Deferred[None]:
        """Start it; fires when it has been done from the beginning to the end, fails as it does.

        It goes on when the returned Deferred is cancelled.
        """
        waiter: Deferred[None] = Deferred()
        self._waiters.append(waiter)
        self.start()
        return waiter

    def start(self) -> None:
        """Do it; once more afterwards if it is under way, as it may be past what is new."""
        self._again = True
        if not self.under_way:
            self.under_way = True
            self._running = ensureDeferred(self._run()).addErrback(self._failed)

    def stop(self) -> None:
        """Do it no further. What a worker has begun it ends."""
        if self._running is not None:
            self._running.cancel()

    async def _run(self) -> None:
        try:
            while self._again:
                self._again = False
                waiters, self._waiters = self._waiters, []
                try:
                    await self._work()
                except BaseException:
                    # It is not done again for those who came meanwhile either.
                    waiters, self._waiters = waiters + self._waiters, []
                    _tell(waiters, Failure())
                    raise
                _tell(waiters, None)
        finally:
            self.under_way = False

    def _failed(self, failure: Failure) -> None:
        if failure.check(StoreError, OSError):
            reason = failure.getErrorMessage()
            self._log.error("{what} failed: {reason}", what=self._what, reason=reason)
        elif failure.check(CancelledError) is None:
            self._log.failure("{what} failed", failure, what=self._what)


def _tell(waiters: list[Deferred[None]], result: Failure | None) -> None:
    for waiter in waiters:
        # Not those that were cancelled.
        if not waiter.called:
            waiter.callback(result)


class Leisure:
    """Has work in steps take SHARE of the time, however long a step takes."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._resumed = clock.seconds()

    async def pause(self) -> None:
        """Wait between two steps; not after one that took no time."""
        took = self._clock.seconds() - self._resumed
        if took > 0:
            await deferLater(self._clock, took / SHARE - took)
        self._resumed = self._clock.seconds()


class Housekeeping:
    """Keeps a store within its bounds and in order.

    Args:
        rules: the bounds; see :meth:`follow`.
        now: seconds since the epoch.

    Attributes:
        cataloguing: works out what images there are.
    """

    def __init__(
        self,
        store: Store,
        directory: BlobDirectory,
        workers: Workers,
        clock: IReactorTime,
        now: Callable[[], float],
        rules: CacheSection,
    ) -> None:
        self._store = store
        self._directory = directory
        self._workers = workers
        self._clock = clock
        self._now = now
        self._inventory = store.index.inventory
        self.cataloguing = store.index.cataloguing(directory, workers)
        self._eviction = Eviction(directory, self._inventory, workers, store.uses, now)
        self._disk_full = 0
        # Set while there is an alarm: the bytes for which there was no room.
        self._wanted: int | None = None
        # Whether the index may lack much of what is here.
        self._incomplete = False
        self._reconciling = Errand("Bringing files and index together", self._reconcile)
        self._evicting = Errand("Eviction", self._evict)
        self._verifying = Errand("Verification", self._verify)
        self._forgetting = Errand("Forgetting", self._forget)
        self._cataloguing = Errand("Cataloguing", self._catalogue)
        # When that is due, on the monotonic clock: not before it is known which files there are.
        self._forget_at = float("inf")
        store.grown = self._evicting.start
        store.full = self.relieve
        self.follow(rules)

    def follow(self, rules: CacheSection) -> None:
        """Keep to *rules* from now on."""
        self._rules = rules
        self._store.verification.period = rules.verify

    def start(self) -> None:
        """Begin, once the store is open: files and index first."""
        self._reconciling.start()

    def tick(self) -> None:
        """Do what is due; to be called every now and then."""
        self._evicting.start()
        self._verifying.start()
        self._cataloguing.start()
        if self._clock.seconds() >= self._forget_at:
            self._forget_at = self._clock.seconds() + FORGET_INTERVAL
            self._forgetting.start()

    def relieve(self, wanted: int) -> None:
        """The disk had no room for content of *wanted* bytes (0: nobody knows); make some."""
        self._disk_full += 1
        self._wanted = max(self._wanted or 0, wanted)
        self._evicting.start()

    def stop(self) -> None:
        """Begin nothing more."""
        for errand in (
            self._reconciling,
            self._evicting,
            self._verifying,
            self._forgetting,
            self._cataloguing,
        ):
            errand.stop()

    async def collect(self, step: Callable[[str], object]) -> tuple[int, int]:
        """Do at once what else is done now and then, but for verification.

        Args:
            step: told of what begins.

        Returns:
            how many blobs were evicted, and their bytes.

        Raises:
            StoreError, OSError: it cannot be done.
        """
        eviction = self._eviction
        blobs, size = eviction.evicted, eviction.evicted_bytes
        step("bringing files and index together")
        await self._reconciling.done()
        step("forgetting what nobody needs")
        await self._forgetting.done()
        step("evicting")
        await self._evicting.done()
        return eviction.evicted - blobs, eviction.evicted_bytes - size

    async def stats(self) -> StoreStats:
        """The numbers of this moment.

        Raises:
            IndexFailed, OSError: they cannot be had.
        """
        total = await self._inventory.total()
        free = await self._eviction.free()
        return StoreStats(
            bytes=total.bytes,
            blobs=total.blobs,
            limit=self._rules.max_size,
            free=free,
            evicted=self._eviction.evicted,
            evicted_bytes=self._eviction.evicted_bytes,
            quarantined=self._store.verification.quarantined,
            disk_full=self._disk_full,
        )

    async def _reconcile(self) -> None:
        self._incomplete = True
        try:
            await self._store.index.repair(self._workers)
            await self._store.sweep()
            await self._clear_quarantine(KEPT)
            await Reconciliation(
                self._directory, self._inventory, self._workers, Leisure(self._clock).pause
            ).run()
        finally:
            self._incomplete = False
        self._forget_at = self._clock.seconds()
        self._evicting.start()

    async def _evict(self) -> None:
        wanted, self._wanted = self._wanted, None
        if wanted is not None:
            # What nobody will ever be served goes first.
            await self._clear_quarantine(0.0)
        elif self._incomplete:
            # The oldest of what is known so far is not the oldest; this is called again.
            return
        await self._store.flush_access_times()
        await self._eviction.run(self._rules, wanted)

    async def _verify(self) -> None:
        await self._clear_quarantine(KEPT)
        await self._store.verification.verify_due(self._pace)

    async def _forget(self) -> None:
        await self._store.flush_access_times()
        forgetting = Forgetting(self._inventory, Leisure(self._clock).pause, self._now)
        await forgetting.run(self._rules.inactive)

    async def _catalogue(self) -> None:
        await self.cataloguing.run(Leisure(self._clock).pause)

    async def _pace(self, count: int) -> None:
        await deferLater(self._clock, max(count, LEAST) / RATE)

    async def _clear_quarantine(self, age: float) -> None:
        before = self._now() - age
        await self._workers.run(partial(sweep, self._directory.quarantine, before))
