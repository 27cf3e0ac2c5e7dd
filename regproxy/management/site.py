"""The tree of the site for people and machines, on the proxy port and on the management port.

On the proxy port, where everybody may ask who may pull, is only what a client needs to be set
up, so that ``curl http://PROXY:3128/ca.crt`` works.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource

from regproxy.management.access import Guard
from regproxy.management.metrics import Metrics
from regproxy.management.pages.answers import Answering, NotFound
from regproxy.management.pages.ca import CertificatePage, Certificates, DerCertificate
from regproxy.management.pages.changes import Pin, PullAgain, Purge, PurgeRepository, Unpin
from regproxy.management.pages.dashboard import Dashboard
from regproxy.management.pages.events import EventList
from regproxy.management.pages.images import ImageList, ImagePage, RepositoryList
from regproxy.management.pages.rendering import Pages
from regproxy.management.pages.sources import Authority, Sources
from regproxy.management.pages.static import Static
from regproxy.management.setup.facts import Facts
from regproxy.web.headers import field_text
from regproxy.web.site import StrictRequest

_YEAR: Final = 365 * 24 * 60 * 60


class OpenSite(Resource):
    """What everybody may read: all that there is on the proxy port.

    Args:
        pages: renders.
        authority: the CA.
        facts: where the proxy is.
        others: what is mounted besides, by the first segment of its path.
        at_proxy_port: it is there, and its first page is the one about the certificate.
    """

    def __init__(
        self,
        pages: Pages,
        authority: Authority,
        facts: Facts,
        others: Mapping[str, IResource],
        *,
        at_proxy_port: bool = True,
    ) -> None:
        super().__init__()
        self._pages = pages
        here = "/" if at_proxy_port else "/ca"
        page = CertificatePage(pages, authority, facts, here, at_proxy_port=at_proxy_port)
        self._put(here, page)
        self._put("/ca.crt", Certificates(authority))
        self._put("/ca.der", DerCertificate(authority))
        self._put("/healthz", _Health())
        self._put("/static", static := NotFound(pages))
        for name, file in pages.statics.files.items():
            static.putChild(name.encode(), _File(file))
        for name, resource in others.items():
            self.putChild(name.encode(), resource)

    def getChild(self, path: bytes, request: IRequest) -> IResource:
        return NotFound(self._pages)

    def _put(self, path: str, resource: IResource) -> None:
        self.putChild(path[1:].encode(), resource)


class ManagementSite(OpenSite):
    """All that there is on the management port.

    Args:
        sources: what the pages show.
        guard: lets requests in to what not everybody may read.
        metrics: what ``/metrics`` shows.
        now: the time, in UTC.
    """

    def __init__(
        self,
        pages: Pages,
        sources: Sources,
        guard: Guard,
        metrics: Metrics,
        facts: Facts,
        others: Mapping[str, IResource],
        now: Callable[[], datetime],
    ) -> None:
        super().__init__(pages, sources.authority, facts, others, at_proxy_port=False)
        self._put("/", Dashboard(pages, guard, sources, now))
        self._put("/events", EventList(pages, guard, sources))
        self._put("/image", ImagePage(pages, guard, sources))
        self._put("/repositories", repositories := RepositoryList(pages, guard, sources))
        repositories.putChild(b"purge", PurgeRepository(pages, guard, sources))
        self._put("/images", images := ImageList(pages, guard, sources))
        for name, change in (
            ("pin", Pin),
            ("unpin", Unpin),
            ("pull", PullAgain),
            ("purge", Purge),
        ):
            images.putChild(name.encode(), change(pages, guard, sources))
        self._put("/metrics", _Scrape(metrics, guard))


class _Health(Answering):
    """Says that the process answers."""

    async def read(self, request: StrictRequest) -> tuple[str, bytes]:
        return "text/plain; charset=utf-8", b"ok\n"


class _File(Answering):
    """A file that pages load."""

    def __init__(self, file: Static) -> None:
        super().__init__()
        self._file = file

    async def read(self, request: StrictRequest) -> tuple[str, bytes]:
        current = request.uri.partition(b"?")[2] == self._file.version.encode()
        kept = f"public, max-age={_YEAR}, immutable" if current else "no-cache"
        request.setHeader("Cache-Control", kept)
        return self._file.media_type, self._file.content


class _Scrape(Answering):
    """The metrics, for Prometheus."""

    def __init__(self, metrics: Metrics, guard: Guard) -> None:
        super().__init__(guard=guard)
        self._metrics = metrics

    async def read(self, request: StrictRequest) -> tuple[str, bytes]:
        accept = field_text(request.requestHeaders, "accept") or ""
        return await self._metrics.page(accept)
