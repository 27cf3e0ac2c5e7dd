"""Whether to send clients here: listeners are up, the store can be written, and it goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from regproxy.store.disk import BlobDirectory, Workers

#: Seconds that an answer waits for the disk. Kubernetes gives a probe one second by default.
WAIT: Final = 0.5
#: Seconds after which a disk that has not taken a file is broken. A busy one may take a while,
#: and what it said before holds meanwhile: clients that are sent away would be a load elsewhere.
PATIENCE: Final = 10.0


class Readiness:
    """Answers ``/readyz``.

    Args:
        directory: is written to.
        workers: do so.
        clock: the reactor.

    Attributes:
        draining: no more clients are wanted.
        down: tells which listeners do not listen, by name.
    """

    _log = Logger()

    def __init__(self, directory: BlobDirectory, workers: Workers, clock: IReactorTime) -> None:
        self.draining = False
        self.down: Callable[[], Iterable[str]] = tuple
        self._directory = directory
        self._workers = workers
        self._clock = clock
        # Since when the disk is being asked; one worker at a time may hang there.
        self._asked_at: float | None = None
        self._waiters: list[Deferred[None]] = []
        # What it said last.
        self._trouble: str | None = None

    async def problems(self) -> list[str]:
        """Why not; nothing when it is ready."""
        await self._disk_asked()
        found = [f"{each} does not listen" for each in self.down()]
        if self.draining:
            found.append("it is being stopped")
        if self._asked_at is not None and self._clock.seconds() - self._asked_at >= PATIENCE:
            found.append(f"the store has taken no file for {PATIENCE:.0f} s")
        elif self._trouble is not None:
            found.append(f"the store cannot be written: {self._trouble}")
        return found

    async def _disk_asked(self) -> None:
        """Have the disk asked, and wait for what it says, but not for long."""
        waiter: Deferred[None] = Deferred(self._waiters.remove)
        self._waiters.append(waiter)
        if self._asked_at is None:
            self._asked_at = self._clock.seconds()
            self._workers.run(self._directory.probe).addBoth(self._answered)
        late = self._clock.callLater(WAIT, waiter.cancel)
        try:
            await waiter
        except CancelledError:
            if late.active():
                # Who asked has gone.
                raise
        finally:
            if late.active():
                late.cancel()

    def _answered(self, result: object) -> None:
        self._asked_at = self._trouble = None
        if isinstance(result, Failure):
            if result.check(OSError) is None:
                self._log.failure("The store was not probed", result)
            self._trouble = getattr(result.value, "strerror", None) or "internal error"
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(None)
