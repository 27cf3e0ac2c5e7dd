"""``/``: how the proxy is doing, at a glance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from attrs import frozen

from regproxy.management.access import Guard
from regproxy.management.pages.answers import Shown, View
from regproxy.management.pages.chart import HEIGHT, WIDTH, Chart
from regproxy.management.pages.rendering import Pages
from regproxy.management.pages.sources import Sources
from regproxy.management.pages.words import days_left
from regproxy.management.values import (
    JobKind,
    RateLimitValue,
    RegistryValue,
    RequestValue,
    Stats,
)
from regproxy.oci.kinds import RequestKind
from regproxy.oci.names import DOCKER_HUB
from regproxy.web.site import StrictRequest

#: How many images, errors and jobs are shown.
SHOWN: Final = 8
#: A registry whose last error is younger is failing.
FAILING: Final = timedelta(minutes=10)
#: Seconds: a registry half of whose answers begin later is slow.
SLOW: Final = 2.0
#: Days before the end of the certificate from which on it is an alarm.
EXPIRES_SOON: Final = 30

JOBS: Final = {
    JobKind.WARM: "Pull again",
    JobKind.VERIFY: "Verify the store",
    JobKind.GC: "Remove what nothing needs",
}


@frozen
class Wanted:
    """An image, and how often it was asked for."""

    registry: str
    repository: str
    name: str
    times: int

    @property
    def reference(self) -> str:
        """As it is written."""
        return f"{self.registry}/{self.repository}:{self.name}"


class Dashboard(View):
    """See :class:`View`."""

    here = "/"

    def __init__(
        self, pages: Pages, guard: Guard, sources: Sources, now: Callable[[], datetime]
    ) -> None:
        super().__init__(pages, guard)
        self._sources = sources
        self._now = now

    async def show(self, request: StrictRequest) -> Shown:
        sources = self._sources
        stats = await sources.overview.stats()
        requests = sources.events.latest()
        now = self._now()
        registries = sources.overview.registries()
        asked = [each for each in registries if each.requests or each.errors]
        return Shown(
            "pages/dashboard.html",
            {
                "stats": stats,
                "alarms": list(alarms(stats, now)),
                "hub": hub(stats.rate_limits),
                "chart": Chart.of(sources.history.samples(), now),
                "width": WIDTH,
                "height": HEIGHT,
                "fills": sources.fills.values(),
                "registries": sorted(asked, key=lambda each: _rank(each, now)),
                "quiet": [each.name for each in registries if each not in asked],
                "condition": lambda each: condition(each, now),
                "top": most_wanted(requests),
                "errors": list(islice(filter(failed, requests), SHOWN)),
                "jobs": list(islice(sources.jobs.all(), SHOWN)),
                "job_words": JOBS,
            },
        )


def alarms(stats: Stats, now: datetime) -> Iterator[str]:
    """What somebody has to look after."""
    left = days_left(stats.ca.not_after, now)
    if left < 0:
        yield "The certificate has expired: clients refuse it."
    elif left < EXPIRES_SOON:
        yield f"The certificate expires in {left} days. Announce the next one to the clients."
    said = hub(stats.rate_limits)
    if said is not None and said.remaining == 0:
        yield "Docker Hub allows no more pulls for now: what is not stored has to wait."
    if stats.store is None:
        yield "The store does not answer."
        return
    if stats.store.disk_full:
        yield "The disk has had no room for new content: clients got it, and it was not kept."
    if stats.store.quarantined:
        yield "Stored content has been found damaged: it is in quarantine, and is fetched anew."


def hub(limits: Iterable[RateLimitValue]) -> RateLimitValue | None:
    """What Docker Hub said last."""
    said = [each for each in limits if each.registry == str(DOCKER_HUB)]
    return max(said, key=lambda each: each.seen_at, default=None)


def condition(registry: RegistryValue, now: datetime) -> str:
    """``backing off``, ``failing``, ``slow`` or ``ok``."""
    if registry.backoff_seconds > 0:
        return "backing off"
    if registry.last_error_at is not None and now - registry.last_error_at < FAILING:
        return "failing"
    if registry.latency_p50 is not None and registry.latency_p50 > SLOW:
        return "slow"
    return "ok"


def _rank(registry: RegistryValue, now: datetime) -> tuple[int, int, str]:
    """Those in trouble come first, then those that are asked most."""
    order = ("backing off", "failing", "slow", "ok")
    return order.index(condition(registry, now)), -registry.requests, registry.name


def most_wanted(requests: Iterable[RequestValue]) -> Sequence[Wanted]:
    """Images by how often their tags were asked for."""
    times = Counter(
        (each.registry, each.repository, each.reference)
        for each in requests
        if each.kind is RequestKind.TAG and each.status < 400
    )
    return [
        Wanted(registry, repository, tag, number)
        for (registry, repository, tag), number in times.most_common(SHOWN)
        if registry is not None and repository is not None and tag is not None
    ]


def failed(request: RequestValue) -> bool:
    """Whether it is an error that somebody may have to look after.

    Not: a login that is asked for, what is not there, a client that left.
    """
    return request.status >= 500 or request.status in (403, 421, 429)
