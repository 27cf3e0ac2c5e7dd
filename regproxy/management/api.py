"""The operations about the proxy as a whole: numbers, what happens, jobs, the configuration.

Those about images, the certificate authority and so on are rows of their own parts' modules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Annotated, Final

from attrs import frozen

from regproxy.management.bounds import Between, Length
from regproxy.management.events import KEPT as REQUESTS_KEPT
from regproxy.management.events import Events
from regproxy.management.fills import Fills
from regproxy.management.history import History
from regproxy.management.jobs import Jobs, TooManyJobs, UnknownJob
from regproxy.management.operations import AnyOperation, Media, Nothing, Operation, Paged
from regproxy.management.overview import Overview
from regproxy.management.paging import page_of
from regproxy.management.stream import Broadcast, NoMoreStreams, Stream, TooManyStreams
from regproxy.management.upkeep import Upkeep
from regproxy.management.values import (
    FillValue,
    Job,
    Page,
    RegistryValue,
    RequestValue,
    Sample,
    Stats,
)

#: The largest whole number that every reader of JSON has exactly (RFC 8259 section 6).
_MOST: Final = (1 << 53) - 1


class NotReloaded(Exception):
    """The configuration file cannot be used; the one in force goes on."""

    def __init__(self, messages: Sequence[str]) -> None:
        super().__init__("the configuration was not reloaded, the old one goes on")
        self.messages = tuple(messages)


@frozen
class Reloaded:
    """The configuration file was read, and holds.

    Attributes:
        restart_needed: whether something changed that a reload does not change: listeners,
            data, the CA's or the cache's directory.
    """

    restart_needed: bool


@frozen
class Requests:
    """Which requests.

    Attributes:
        limit: how many at most, the latest.
        registry: those of this one only.
        cache: those with this cache status only.
        status: those with this HTTP status only.
        since: those only that came after the one with this id.
    """

    limit: Annotated[int, Between(1, REQUESTS_KEPT)] = 100
    registry: Annotated[str, Length(1, 255)] | None = None
    cache: Annotated[str, Length(1, 32)] | None = None
    status: Annotated[int, Between(100, 599)] | None = None
    since: Annotated[int, Between(0, _MOST)] | None = None


@frozen
class Following:
    """From where on to follow.

    Attributes:
        since: the id of the last request that is known; later ones are told of first.
        last_event_id: the same, as browsers send it when they come back.
    """

    since: Annotated[int, Between(0, _MOST)] | None = None
    last_event_id: Annotated[int, Between(0, _MOST)] | None = None


@frozen
class OneJob:
    """Which job.

    Attributes:
        id: its id.
    """

    id: Annotated[str, Length(1, 64)]


@frozen
class Proxy:
    """What these operations show and do.

    Attributes:
        reload: reads the configuration file again; raises NotReloaded.
    """

    overview: Overview
    history: History
    events: Events
    fills: Fills
    broadcast: Broadcast
    jobs: Jobs
    upkeep: Upkeep
    reload: Callable[[], Reloaded]

    def operations(self) -> tuple[AnyOperation, ...]:
        """The rows."""
        return (
            Operation(
                name="getStats",
                method="GET",
                path="/stats",
                summary="The proxy in numbers.",
                handler=self._stats,
                parameters=Nothing,
                answer=Stats,
            ),
            Operation(
                name="listHistory",
                method="GET",
                path="/history",
                summary="What went on in the last hour, the oldest first.",
                handler=self._history,
                parameters=Nothing,
                answer=Page[Sample],
            ),
            Operation(
                name="listRegistries",
                method="GET",
                path="/registries",
                summary="Registries, by name: how they are reached, and how that goes.",
                handler=self._registries,
                parameters=Paged,
                answer=Page[RegistryValue],
            ),
            Operation(
                name="listFills",
                method="GET",
                path="/fills",
                summary="Transfers from upstream that are under way.",
                handler=self._fills,
                parameters=Paged,
                answer=Page[FillValue],
            ),
            Operation(
                name="listRequests",
                method="GET",
                path="/requests",
                summary=f"Of the last {REQUESTS_KEPT} requests, the latest first.",
                handler=self._requests,
                parameters=Requests,
                answer=Page[RequestValue],
            ),
            Operation(
                name="follow",
                method="GET",
                path="/events",
                summary="What happens, as server-sent events: `stats` (Stats), `request`"
                " (RequestValue, with its id as the event's), `fill` (FillValue), `job` (Job).",
                handler=self._follow,
                parameters=Following,
                in_header={"last_event_id": "Last-Event-ID"},
                answer=Media("text/event-stream"),
                errors={
                    NoMoreStreams: HTTPStatus.SERVICE_UNAVAILABLE,
                    TooManyStreams: HTTPStatus.TOO_MANY_REQUESTS,
                },
            ),
            Operation(
                name="listJobs",
                method="GET",
                path="/jobs",
                summary="Jobs that run, and the last ones that have ended; the latest first.",
                handler=self._jobs,
                parameters=Paged,
                answer=Page[Job],
            ),
            Operation(
                name="getJob",
                method="GET",
                path="/jobs/{id}",
                summary="One job.",
                handler=self._job,
                parameters=OneJob,
                answer=Job,
                errors={UnknownJob: HTTPStatus.NOT_FOUND},
            ),
            Operation(
                name="cancelJob",
                method="DELETE",
                path="/jobs/{id}",
                summary="Have a job do no more.",
                handler=self._cancel,
                parameters=OneJob,
                answer=Job,
                errors={UnknownJob: HTTPStatus.NOT_FOUND},
                changes=True,
            ),
            Operation(
                name="verify",
                method="POST",
                path="/verify",
                summary="Read all stored content, and put aside what is damaged."
                " If that is under way, its job is the answer.",
                handler=self._verify,
                parameters=Nothing,
                answer=Job,
                status=HTTPStatus.ACCEPTED,
                errors={TooManyJobs: HTTPStatus.SERVICE_UNAVAILABLE},
                changes=True,
            ),
            Operation(
                name="collectGarbage",
                method="POST",
                path="/gc",
                summary="Bring files and index together, forget what nobody needs, evict what is"
                " beyond the store's bounds. If that is under way, its job is the answer.",
                handler=self._collect,
                parameters=Nothing,
                answer=Job,
                status=HTTPStatus.ACCEPTED,
                errors={TooManyJobs: HTTPStatus.SERVICE_UNAVAILABLE},
                changes=True,
            ),
            Operation(
                name="reload",
                method="POST",
                path="/reload",
                summary="Read the configuration file again.",
                handler=self._reload,
                parameters=Nothing,
                answer=Reloaded,
                errors={NotReloaded: HTTPStatus.UNPROCESSABLE_ENTITY},
                changes=True,
            ),
        )

    async def _stats(self, _: Nothing, body: None) -> Stats:
        return await self.overview.stats()

    async def _history(self, _: Nothing, body: None) -> Page[Sample]:
        return Page(self.history.samples())

    async def _registries(self, part: Paged, body: None) -> Page[RegistryValue]:
        registries = self.overview.registries()
        return page_of(registries, lambda each: (each.name,), part.limit, part.cursor)

    async def _fills(self, part: Paged, body: None) -> Page[FillValue]:
        fills = self.fills.values()
        return page_of(fills, lambda each: (each.digest,), part.limit, part.cursor)

    async def _requests(self, which: Requests, body: None) -> Page[RequestValue]:
        return Page(
            self.events.latest(
                which.limit,
                registry=which.registry,
                cache=which.cache,
                status=which.status,
                since=which.since,
            )
        )

    async def _follow(self, start: Following, body: None) -> Stream:
        known = start.since if start.last_event_id is None else start.last_event_id
        return self.broadcast.open(known)

    async def _jobs(self, part: Paged, body: None) -> Page[Job]:
        def key(job: Job) -> tuple[float, str]:
            return -job.started_at.timestamp(), job.id

        return page_of(self.jobs.all(), key, part.limit, part.cursor)

    async def _job(self, which: OneJob, body: None) -> Job:
        return self.jobs.get(which.id)

    async def _cancel(self, which: OneJob, body: None) -> Job:
        return self.jobs.cancel(which.id)

    async def _verify(self, _: Nothing, body: None) -> Job:
        return self.upkeep.verify()

    async def _collect(self, _: Nothing, body: None) -> Job:
        return self.upkeep.collect()

    async def _reload(self, _: Nothing, body: None) -> Reloaded:
        return self.reload()
