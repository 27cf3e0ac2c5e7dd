"""``/events``: the last requests."""

from __future__ import annotations

from enum import StrEnum
from itertools import islice
from typing import Annotated, Final

from attrs import evolve, frozen

from regproxy.management.access import Guard
from regproxy.management.bounds import Between, Length
from regproxy.management.encoding import from_texts
from regproxy.management.pages.answers import Shown, View, query
from regproxy.management.pages.dashboard import failed
from regproxy.management.pages.rendering import Pages
from regproxy.management.pages.sources import Sources
from regproxy.management.pages.urls import url
from regproxy.management.values import RequestValue
from regproxy.web.site import StrictRequest

#: Rows of one part of the list.
ROWS: Final = 100


class Outcome(StrEnum):
    """Which requests are asked for."""

    FAILED = "failed"


@frozen
class _Asked:
    """The query.

    Attributes:
        before: only requests with a lower id.
    """

    registry: Annotated[str, Length(1, 1024)] | None = None
    cache: Annotated[str, Length(1, 32)] | None = None
    outcome: Outcome | None = None
    before: Annotated[int, Between(0, 1 << 53)] | None = None

    @property
    def narrowed(self) -> bool:
        """Whether not all requests are asked for."""
        return (self.registry or self.cache or self.outcome) is not None

    def fits(self, request: RequestValue) -> bool:
        """Whether *request* is asked for."""
        return (
            self.registry in (None, request.registry)
            and self.cache in (None, request.cache)
            and (self.outcome is None or failed(request))
            and (self.before is None or request.id < self.before)
        )


class EventList(View):
    """See :class:`View`."""

    here = "/events"

    def __init__(self, pages: Pages, guard: Guard, sources: Sources) -> None:
        super().__init__(pages, guard)
        self._sources = sources

    async def show(self, request: StrictRequest) -> Shown:
        asked = from_texts(query(request), _Asked)
        requests = self._sources.events.latest()
        fitting = filter(asked.fits, requests)
        rows = list(islice(fitting, ROWS))
        more = next(fitting, None) is not None
        return Shown(
            "pages/events.html",
            {
                "rows": rows,
                "failed": failed,
                "asked": asked,
                "registries": sorted({each.registry for each in requests if each.registry}),
                "caches": sorted({each.cache for each in requests}),
                "first_url": url("/events", evolve(asked, before=None)) if asked.before else None,
                "next_url": url("/events", evolve(asked, before=rows[-1].id)) if more else None,
            },
        )
