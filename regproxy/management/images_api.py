"""The operations about images."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Annotated, Final

from attrs import frozen

from regproxy.management.adoption import Unadoptable
from regproxy.management.blobs_api import DigestText
from regproxy.management.bounds import Between, Count, Length
from regproxy.management.images import Images, UnknownImage
from regproxy.management.jobs import TooManyJobs
from regproxy.management.operations import AnyOperation, Nothing, Operation
from regproxy.management.paging import DEFAULT_LIMIT, MAX_LIMIT
from regproxy.management.values import (
    ImageTree,
    ImageValue,
    Job,
    Page,
    Purged,
    RepositoryValue,
)
from regproxy.oci.errors import BadRequest
from regproxy.store.catalog import Order

#: Images that one request may name.
MAX_NAMED: Final = 1000

_Limit = Annotated[int, Between(1, MAX_LIMIT)]
_Cursor = Annotated[str, Length(1, 1024)]
_Registry = Annotated[str, Length(1, 300)]
_Repository = Annotated[str, Length(1, 600)]
_Reference = Annotated[str, Length(1, 800)]

_MediaType = Annotated[str, Length(1, 255)]
_Search = Annotated[str, Length(1, 255)]

_NAMES: Final[Mapping[type[Exception], HTTPStatus]] = {BadRequest: HTTPStatus.UNPROCESSABLE_ENTITY}
_IMAGE: Final[Mapping[type[Exception], HTTPStatus]] = {**_NAMES, UnknownImage: HTTPStatus.NOT_FOUND}


@frozen
class WhichRepositories:
    """Which repositories, and which part of their list.

    Attributes:
        registry: those of this host only.
        q: those only that have this in their names.
        limit: how many items at most.
        cursor: ``next`` of the part before; without it the list begins.
    """

    registry: _Registry | None = None
    q: _Search | None = None
    limit: _Limit = DEFAULT_LIMIT
    cursor: _Cursor | None = None


@frozen
class WhichTags:
    """Of which repository, and which part of the list.

    Attributes:
        repository: with its registry in front, as in ``ghcr.io/o/app``.
        limit: how many items at most.
        cursor: ``next`` of the part before; without it the list begins.
    """

    repository: _Repository
    limit: _Limit = DEFAULT_LIMIT
    cursor: _Cursor | None = None


@frozen
class WhichImages:
    """Which images, and which part of their list.

    Attributes:
        registry: those of this host only.
        repository: those of this one only; its registry in front if that is not given.
        q: those only that have this in their references.
        sort: the order: the last used first, the largest first, or by reference.
        limit: how many items at most.
        cursor: ``next`` of the part before; without it the list begins.
    """

    registry: _Registry | None = None
    repository: _Repository | None = None
    q: _Search | None = None
    sort: Order = Order.LAST_USED
    limit: _Limit = DEFAULT_LIMIT
    cursor: _Cursor | None = None


@frozen
class OneImage:
    """Which image.

    Attributes:
        reference: as in ``ghcr.io/o/app:1.2``, ``ghcr.io/o/app@sha256:...`` or ``debian:12``.
    """

    reference: _Reference


@frozen
class Adoption:
    """What becomes an image.

    Attributes:
        digest: of a stored manifest or index.
        media_type: of it.
    """

    digest: DigestText
    media_type: _MediaType


@frozen
class Purge:
    """Which images go: those for which all that is said holds, and that are not pinned.

    Attributes:
        images: these.
        registry: those of this host.
        repository: those of this one; its registry in front if that is not given.
        unused_for: those that were not used for so many seconds.
    """

    images: Annotated[tuple[_Reference, ...], Count(1, MAX_NAMED)] | None = None
    registry: _Registry | None = None
    repository: _Repository | None = None
    unused_for: Annotated[int, Between(0, 1 << 40)] | None = None


@frozen
class Warm:
    """What is to be fetched.

    Attributes:
        images: their references.
        platforms: as in ``linux/amd64`` or ``linux/arm/v7``; null for all that there are.
    """

    images: Annotated[tuple[_Reference, ...], Count(1, MAX_NAMED)]
    platforms: Annotated[tuple[_Reference, ...], Count(1, 100)] | None = None


class PurgesAll(Exception):
    """Nothing is said of which images go, which would be all."""

    def __init__(self) -> None:
        super().__init__("say which: give images, registry, repository or unused_for")


@frozen
class ImageOperations:
    """What these operations show and do."""

    images: Images

    def operations(self) -> tuple[AnyOperation, ...]:
        """The rows."""
        return (*self._of_lists(), *self._of_one(), *self._of_many())

    def _of_lists(self) -> tuple[AnyOperation, ...]:
        return (
            Operation(
                name="listRepositories",
                method="GET",
                path="/repositories",
                summary="Repositories of which images are stored, by name.",
                handler=self._repositories,
                parameters=WhichRepositories,
                answer=Page[RepositoryValue],
                errors=_NAMES,
            ),
            Operation(
                name="listTags",
                method="GET",
                path="/tags",
                summary="The stored images of a repository that have a tag, by tag.",
                handler=self._tags,
                parameters=WhichTags,
                answer=Page[ImageValue],
                errors=_NAMES,
            ),
            Operation(
                name="listImages",
                method="GET",
                path="/images",
                summary="Stored images.",
                handler=self._images,
                parameters=WhichImages,
                answer=Page[ImageValue],
                errors=_NAMES,
            ),
        )

    def _of_one(self) -> tuple[AnyOperation, ...]:
        return (
            Operation(
                name="getImage",
                method="GET",
                path="/image",
                summary="One image, and what it consists of.",
                handler=self._image,
                parameters=OneImage,
                answer=ImageTree,
                errors=_IMAGE,
            ),
            Operation(
                name="adoptImage",
                method="POST",
                path="/image",
                summary="Make a stored manifest this image. It is served while its registry cannot"
                " be asked, to everybody who may use this proxy, for the time of `stale_if_error`.",
                handler=self._adopt,
                parameters=OneImage,
                body=Adoption,
                answer=ImageValue,
                errors={**_IMAGE, Unadoptable: HTTPStatus.CONFLICT},
                changes=True,
            ),
            Operation(
                name="purgeImage",
                method="DELETE",
                path="/image",
                summary="Forget an image, and remove what nothing else needs; pinned or not.",
                handler=self._purge,
                parameters=OneImage,
                answer=Purged,
                errors=_IMAGE,
                changes=True,
            ),
            Operation(
                name="pinImage",
                method="PUT",
                path="/image/pin",
                summary="Keep an image from being evicted: what a tag names now and later.",
                handler=partial(self._pin, True),
                parameters=OneImage,
                answer=None,
                status=HTTPStatus.NO_CONTENT,
                errors=_IMAGE,
                changes=True,
            ),
            Operation(
                name="unpinImage",
                method="DELETE",
                path="/image/pin",
                summary="Keep an image from being evicted no longer.",
                handler=partial(self._pin, False),
                parameters=OneImage,
                answer=None,
                status=HTTPStatus.NO_CONTENT,
                errors=_IMAGE,
                changes=True,
            ),
        )

    def _of_many(self) -> tuple[AnyOperation, ...]:
        return (
            Operation(
                name="purge",
                method="POST",
                path="/purge",
                summary="Purge all images for which everything that is said holds;"
                " not those that are pinned.",
                handler=self._purge_many,
                parameters=Nothing,
                body=Purge,
                answer=Purged,
                errors={**_IMAGE, PurgesAll: HTTPStatus.UNPROCESSABLE_ENTITY},
                changes=True,
            ),
            Operation(
                name="warm",
                method="POST",
                path="/warm",
                summary="Fetch images before a client asks for them.",
                handler=self._warm,
                parameters=Nothing,
                body=Warm,
                answer=Job,
                status=HTTPStatus.ACCEPTED,
                errors={**_NAMES, TooManyJobs: HTTPStatus.SERVICE_UNAVAILABLE},
                changes=True,
            ),
        )

    async def _repositories(self, which: WhichRepositories, body: None) -> Page[RepositoryValue]:
        return await self.images.repositories(
            registry=which.registry, q=which.q, limit=which.limit, cursor=which.cursor
        )

    async def _tags(self, which: WhichTags, body: None) -> Page[ImageValue]:
        return await self.images.tags(which.repository, limit=which.limit, cursor=which.cursor)

    async def _images(self, which: WhichImages, body: None) -> Page[ImageValue]:
        return await self.images.images(
            registry=which.registry,
            repository=which.repository,
            q=which.q,
            sort=which.sort,
            limit=which.limit,
            cursor=which.cursor,
        )

    async def _image(self, which: OneImage, body: None) -> ImageTree:
        return await self.images.tree(which.reference)

    async def _adopt(self, which: OneImage, body: Adoption) -> ImageValue:
        return await self.images.adopt(which.reference, body.digest, body.media_type)

    async def _purge(self, which: OneImage, body: None) -> Purged:
        return await self.images.purge(which.reference)

    async def _pin(self, pinned: bool, which: OneImage, body: None) -> None:
        await self.images.pin(which.reference, pinned)

    async def _purge_many(self, _: Nothing, body: Purge) -> Purged:
        if body == Purge():
            raise PurgesAll
        return await self.images.purge_many(
            body.images,
            registry=body.registry,
            repository=body.repository,
            unused_for=body.unused_for,
        )

    async def _warm(self, _: Nothing, body: Warm) -> Job:
        return self.images.warm(body.images, body.platforms)
