"""``/images``, ``/repositories`` and ``/image``: what is stored."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Final

from attrs import evolve, frozen

from regproxy.management.access import Guard
from regproxy.management.bounds import Length
from regproxy.management.encoding import from_texts
from regproxy.management.pages.answers import Shown, View, query
from regproxy.management.pages.rendering import Pages
from regproxy.management.pages.sources import Sources
from regproxy.management.pages.urls import url
from regproxy.management.pages.words import known_as
from regproxy.store.catalog import Order
from regproxy.web.site import StrictRequest

#: Rows of one part of a list.
ROWS: Final = 50

_Text = Annotated[str, Length(1, 1024)]


class Notice(StrEnum):
    """What has just been done, for the page that is seen then."""

    PINNED = "pinned"
    UNPINNED = "unpinned"
    PURGED = "purged"


SORTS: Final = (
    (Order.LAST_USED, "last used first"),
    (Order.BYTES, "largest first"),
    (Order.REFERENCE, "by name"),
)
NOTICES: Final = {
    None: None,
    Notice.PINNED: "Pinned: it is kept until it is unpinned.",
    Notice.UNPINNED: "Unpinned: it may be evicted again.",
    Notice.PURGED: "Purged. What clients ask for again is fetched anew.",
}


@frozen
class _Asked:
    """The query of a list."""

    q: _Text | None = None
    registry: _Text | None = None
    cursor: _Text | None = None
    notice: Notice | None = None

    @property
    def narrowed(self) -> bool:
        """Whether not everything is asked for."""
        return (self.q or self.registry) is not None


@frozen
class _ImagesAsked(_Asked):
    repository: _Text | None = None
    sort: Order = Order.LAST_USED

    @property
    def narrowed(self) -> bool:
        return (self.q or self.registry or self.repository) is not None


@frozen
class _ImageAsked:
    reference: _Text
    notice: Notice | None = None


def image_url(reference: str, notice: Notice | None = None) -> str:
    """The page of an image."""
    return url("/image", _ImageAsked(reference, notice))


class _List(View):
    here = "/images"

    def __init__(self, pages: Pages, guard: Guard, sources: Sources) -> None:
        super().__init__(pages, guard)
        self._sources = sources

    def _registries(self) -> Sequence[str]:
        """Hosts to choose from; the images of a pattern are kept under their own hosts."""
        names = (each.name for each in self._sources.overview.registries())
        return sorted(known_as(name) for name in names if "*" not in name)


class ImageList(_List):
    """``/images``"""

    async def show(self, request: StrictRequest) -> Shown:
        asked = from_texts(query(request), _ImagesAsked)
        page = await self._sources.images.images(
            registry=asked.registry,
            repository=asked.repository,
            q=asked.q,
            sort=asked.sort,
            limit=ROWS,
            cursor=asked.cursor,
        )
        return Shown(
            "pages/images.html",
            {
                "page": page,
                "registries": self._registries(),
                "sorts": SORTS,
                **_common("/images", asked, page.next),
            },
        )


class RepositoryList(_List):
    """``/repositories``"""

    async def show(self, request: StrictRequest) -> Shown:
        asked = from_texts(query(request), _Asked)
        page = await self._sources.images.repositories(
            registry=asked.registry, q=asked.q, limit=ROWS, cursor=asked.cursor
        )
        return Shown(
            "pages/repositories.html",
            {
                "page": page,
                "registries": self._registries(),
                **_common("/repositories", asked, page.next),
            },
        )


class ImagePage(_List):
    """``/image``"""

    async def show(self, request: StrictRequest) -> Shown:
        asked = from_texts(query(request), _ImageAsked)
        tree = await self._sources.images.tree(asked.reference)
        return Shown(
            "pages/image.html",
            {
                "image": tree.image,
                "tree": tree.manifest,
                "notice": NOTICES[asked.notice],
            },
        )


def _common(path: str, asked: _Asked, cursor: str | None) -> dict[str, object]:
    """What was asked for, and the URLs of this part of the list, of its first and its next one."""
    plain = evolve(asked, notice=None)
    return {
        "asked": asked,
        "notice": NOTICES[asked.notice],
        "here_url": url(path, plain),
        "first_url": None if asked.cursor is None else url(path, evolve(plain, cursor=None)),
        "next_url": None if cursor is None else url(path, evolve(plain, cursor=cursor)),
    }
