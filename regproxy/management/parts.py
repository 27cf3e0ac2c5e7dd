"""The parts behind the API and the pages, for the life of the process."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define
from twisted.internet.interfaces import IReactorTime

from regproxy.config.model import Config
from regproxy.management.api import NotReloaded, Proxy, Reloaded
from regproxy.management.blobs import Blobs
from regproxy.management.blobs_api import BlobOperations
from regproxy.management.events import Events
from regproxy.management.fills import Fills
from regproxy.management.history import History
from regproxy.management.images import Images
from regproxy.management.images_api import ImageOperations
from regproxy.management.jobs import Jobs
from regproxy.management.operations import AnyOperation
from regproxy.management.overview import Overview, Rooms
from regproxy.management.readiness import Readiness
from regproxy.management.stream import Broadcast
from regproxy.management.upkeep import Upkeep
from regproxy.policy.visitors import BadLogins
from regproxy.store.disk import BlobDirectory, Workers
from regproxy.store.removal import Removal


def _nobody() -> Reloaded:
    raise NotReloaded(("nothing has been started yet",))


@define
class Parts:
    """All of them.

    Attributes:
        reload: reads the configuration file again; set by whoever can.
    """

    overview: Overview
    events: Events
    history: History
    fills: Fills
    jobs: Jobs
    broadcast: Broadcast
    upkeep: Upkeep
    images: Images
    blobs: Blobs
    readiness: Readiness
    bad_logins: BadLogins
    reload: Callable[[], Reloaded] = _nobody

    @classmethod
    def over(
        cls,
        rooms: Rooms,
        events: Events,
        history: History,
        config: Config,
        directory: BlobDirectory,
        workers: Workers,
        clock: IReactorTime,
        now: Callable[[], float],
    ) -> Parts:
        """Parts that show and move *rooms*."""
        overview = Overview(rooms, config, clock, now)
        fills = Fills(rooms.store, clock, now)
        jobs = Jobs(now)
        index = rooms.store.index
        removal = Removal(directory, index.inventory, workers)
        return cls(
            overview=overview,
            events=events,
            history=history,
            fills=fills,
            jobs=jobs,
            broadcast=Broadcast(overview, events, fills, jobs, clock),
            upkeep=Upkeep(jobs, rooms.store, rooms.housekeeping, now),
            images=Images(index, rooms.housekeeping.cataloguing, removal, jobs, now),
            blobs=Blobs(rooms.store, removal),
            readiness=Readiness(directory, workers, clock),
            bad_logins=BadLogins(),
        )

    def stop(self) -> None:
        """The process is being stopped: nobody is to come here, and nothing goes on by itself."""
        self.readiness.draining = True
        self.broadcast.close()
        self.jobs.stop()

    def operations(self) -> tuple[AnyOperation, ...]:
        """The rows of all of them."""
        return (
            *self.proxy.operations(),
            *ImageOperations(self.images).operations(),
            *BlobOperations(self.blobs).operations(),
        )

    @property
    def proxy(self) -> Proxy:
        """The operations about the proxy as a whole."""
        return Proxy(
            overview=self.overview,
            history=self.history,
            events=self.events,
            fills=self.fills,
            broadcast=self.broadcast,
            jobs=self.jobs,
            upkeep=self.upkeep,
            reload=lambda: self.reload(),
        )
