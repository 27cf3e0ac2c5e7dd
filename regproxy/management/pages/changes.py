"""Where the forms of images are sent. Seen as pages, they ask whether it is meant."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, ClassVar

from attrs import frozen

from regproxy.management.access import Guard
from regproxy.management.bounds import Length, Pattern
from regproxy.management.encoding import from_texts
from regproxy.management.pages.answers import Shown, View, query
from regproxy.management.pages.images import Notice, image_url
from regproxy.management.pages.rendering import Pages
from regproxy.management.pages.sources import Images, Sources
from regproxy.web.site import StrictRequest


@frozen
class Meant:
    """What a form names.

    Attributes:
        reference: an image.
        back: the URL of the list that the form was on.
    """

    reference: Annotated[str, Length(1, 1024)]
    back: Annotated[str, Pattern("a list of images", r"/images(?:\?[!-~]*)?")] | None = None


@frozen
class MeantRepository:
    """A repository that a form names."""

    registry: Annotated[str, Length(1, 255)]
    repository: Annotated[str, Length(1, 255)]


class _Question(View):
    """Something that can be done, and a page that asks whether it is meant."""

    here = "/images"
    changes = True
    question: ClassVar[str]
    consequence: ClassVar[str]
    #: What the button says.
    answer: ClassVar[str]
    danger: ClassVar[bool] = False

    def __init__(self, pages: Pages, guard: Guard, sources: Sources) -> None:
        super().__init__(pages, guard)
        self._images: Images = sources.images

    def ask(
        self,
        request: StrictRequest,
        subject: tuple[str, str, str | None],
        back: str,
        **fields: str,
    ) -> Shown:
        """The page.

        Args:
            subject: registry, repository, and tag or digest.
            back: where a reader goes who says no.
            fields: of the form.
        """
        return Shown(
            "pages/confirm.html",
            {
                "subject": subject,
                "question": self.question,
                "consequence": self.consequence,
                "answer": self.answer,
                "danger": self.danger,
                "action": request.path.decode("ascii"),
                "fields": fields,
                "back": back,
            },
        )


class _Change(_Question):
    """Something that can be done with an image."""

    async def show(self, request: StrictRequest) -> Shown:
        tree = await self._images.tree(from_texts(query(request), Meant).reference)
        image = tree.image
        return self.ask(
            request,
            (image.registry, image.repository, image.tag or image.digest),
            image_url(image.reference),
            reference=image.reference,
        )

    async def change(self, form: Mapping[str, str]) -> str:
        return await self.do(from_texts(form, Meant))

    @abstractmethod
    async def do(self, meant: Meant) -> str:
        """Do it; the URL to see then."""


class Purge(_Change):
    """``/images/purge``"""

    question = "Purge this image?"
    consequence = (
        "It goes from the store, with all content that no other image needs."
        " Clients can still pull it: it is fetched anew."
    )
    answer = "Purge"
    danger = True

    async def do(self, meant: Meant) -> str:
        await self._images.purge(meant.reference)
        return f"/images?notice={Notice.PURGED}"


class PullAgain(_Change):
    """``/images/pull``"""

    question = "Pull this image again?"
    consequence = (
        "The registry is asked what it is now, and what is missing here is fetched, for all"
        " platforms. If it has changed, Docker Hub counts a pull."
    )
    answer = "Pull again"

    async def do(self, meant: Meant) -> str:
        self._images.warm((meant.reference,), None)
        return "/#jobs-title"


class Pin(_Change):
    """``/images/pin``"""

    question = "Pin this image?"
    consequence = "It is kept from being evicted until it is unpinned."
    answer = "Pin"
    pinned: ClassVar[bool] = True

    async def do(self, meant: Meant) -> str:
        await self._images.pin(meant.reference, self.pinned)
        notice = Notice.PINNED if self.pinned else Notice.UNPINNED
        return meant.back or image_url(meant.reference, notice)


class Unpin(Pin):
    """``/images/unpin``"""

    question = "Unpin this image?"
    consequence = "It may be evicted again when room is needed."
    answer = "Unpin"
    pinned = False


class PurgeRepository(_Question):
    """``/repositories/purge``"""

    question = "Purge this repository?"
    consequence = (
        "All its images go from the store but those that are pinned, with all content that no"
        " other image needs. Clients can still pull them: they are fetched anew."
    )
    answer = "Purge"
    danger = True

    async def show(self, request: StrictRequest) -> Shown:
        meant = from_texts(query(request), MeantRepository)
        return self.ask(
            request,
            (meant.registry, meant.repository, None),
            "/repositories",
            registry=meant.registry,
            repository=meant.repository,
        )

    async def change(self, form: Mapping[str, str]) -> str:
        meant = from_texts(form, MeantRepository)
        await self._images.purge_many(registry=meant.registry, repository=meant.repository)
        return f"/repositories?notice={Notice.PURGED}"
