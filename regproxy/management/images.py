"""The part ``Images``: what is stored as images, and what can be done with them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from attrs import evolve, frozen
from twisted.internet.defer import DeferredLock, ensureDeferred

from regproxy.config.model import Config
from regproxy.management.adoption import Unadoptable, whole
from regproxy.management.image_tree import tree_of
from regproxy.management.jobs import Jobs
from regproxy.management.paging import cursor_of, key_of
from regproxy.management.values import (
    ImageTree,
    ImageValue,
    Job,
    JobKind,
    Page,
    Purged,
    RepositoryValue,
    Unit,
)
from regproxy.management.warming import Warming
from regproxy.oci.manifests import Platform
from regproxy.oci.media_types import DEFAULT_ACCEPT, normalise_accept
from regproxy.oci.names import Digest, Host, Repository
from regproxy.oci.references import ImageName, RepositoryName
from regproxy.registry.prefetch import Prefetch
from regproxy.store.catalog import ImageRecord, Order
from regproxy.store.cataloguing import Cataloguing
from regproxy.store.disk import shielded
from regproxy.store.index import Index
from regproxy.store.removal import Removal

# Steps of work that the reader of a list waits for: what some hundred images bring. After the
# first start over an old store there is more; that is done in the background, and the lists grow
# meanwhile.
_STEPS: Final = 20
# Images that are looked at in one go when many are purged.
_BATCH: Final = 500
_KINDS: Final = {
    Order.REFERENCE: (str, str, str, str),
    Order.LAST_USED: (float, str, str, str, str),
    Order.BYTES: (int, str, str, str, str),
}


class UnknownImage(Exception):
    """There is no such image here."""

    def __init__(self, reference: str) -> None:
        super().__init__(f"there is no image {reference} here")


@frozen
class Place:
    """A registry, or one repository of it, or everything."""

    host: Host | None = None
    repository: Repository | None = None

    @classmethod
    def parse(cls, registry: str | None, repository: str | None) -> Place:
        """What two texts name. Without a registry it stands before the repository's name.

        Raises:
            BadRequest: they name nothing.
        """
        if registry is None and repository is None:
            return cls()
        if registry is None:
            named = RepositoryName.parse(repository or "")
            return cls(named.host, named.repository)
        host = Host.parse(registry).canonical
        if repository is None:
            return cls(host)
        return cls(host, Repository.parse(repository.removeprefix(f"{registry}/")))

    def holds(self, image: ImageRecord) -> bool:
        """Whether *image* is there."""
        return self.host in (None, image.host) and self.repository in (None, image.repository)


class Images:
    """Lists images, and does things with them.

    Args:
        cataloguing: keeps the catalog of *index* up to date.
        removal: removes what is not needed any more.
        now: seconds since the epoch.
    """

    def __init__(
        self,
        index: Index,
        cataloguing: Cataloguing,
        removal: Removal,
        jobs: Jobs,
        now: Callable[[], float],
    ) -> None:
        self._catalog = index.catalog
        self._curation = index.curation
        self._cataloguing = cataloguing
        self._removal = removal
        self._jobs = jobs
        self._now = now
        # Of two purges each would take for needed what the other one is about to remove.
        self._purging = DeferredLock()

    def follow(self, config: Config, prefetch: Prefetch) -> None:
        """Fetch, and take, what *config* says from now on."""
        self._config = config
        self._prefetch = prefetch

    # Looking.

    async def images(
        self,
        *,
        registry: str | None = None,
        repository: str | None = None,
        q: str | None = None,
        sort: str = Order.LAST_USED,
        limit: int,
        cursor: str | None = None,
        tagged: bool = False,
    ) -> Page[ImageValue]:
        """A part of the list of images.

        Args:
            repository: with its registry in front if that is not given.
            q: what the reference has in it.
            sort: one of :class:`~regproxy.store.catalog.Order`.
            tagged: only those with a tag.

        Raises:
            BadRequest: a name is none.
            BadCursor: *cursor* is none of this list.
        """
        order, place = Order(sort), Place.parse(registry, repository)
        after = None if cursor is None else key_of(cursor, *_KINDS[order])
        await self._catch_up()
        records, following = await self._catalog.images(
            order,
            after,
            limit,
            host=place.host,
            repository=place.repository,
            search=q or "",
            tagged=tagged,
        )
        return Page(
            tuple(map(_image_value, records)), None if following is None else cursor_of(following)
        )

    async def tags(
        self, repository: str, *, limit: int, cursor: str | None = None
    ) -> Page[ImageValue]:
        """The images of a repository that have a tag, by tag; see :meth:`images`."""
        return await self.images(
            repository=repository, sort=Order.REFERENCE, limit=limit, cursor=cursor, tagged=True
        )

    async def repositories(
        self,
        *,
        registry: str | None = None,
        q: str | None = None,
        limit: int,
        cursor: str | None = None,
    ) -> Page[RepositoryValue]:
        """A part of the list of repositories, by name; see :meth:`images`."""
        host = Place.parse(registry, None).host
        after = None if cursor is None else key_of(cursor, str, str)
        await self._catch_up()
        records, following = await self._catalog.repositories(
            after, limit, host=host, search=q or ""
        )
        return Page(
            tuple(
                RepositoryValue(
                    str(each.host),
                    str(each.repository),
                    each.tags,
                    each.bytes,
                    _time(each.last_used),
                )
                for each in records
            ),
            None if following is None else cursor_of(following),
        )

    async def image(self, reference: str) -> ImageValue:
        """One image.

        Raises:
            UnknownImage: it is not here.
            BadRequest: *reference* names none.
        """
        return _image_value(await self._known(ImageName.parse(reference)))

    async def tree(self, reference: str) -> ImageTree:
        """One image, and what it consists of; see :meth:`image`."""
        record = await self._known(ImageName.parse(reference))
        root = await tree_of(record, self._cataloguing, self._catalog)
        return ImageTree(_image_value(record), root)

    # Keeping and removing.

    async def pin(self, reference: str, pinned: bool) -> None:
        """Keep an image from being evicted and purged with others, or do not any more.

        A tag keeps what it points to, now and later: what is fetched of that image later is kept
        too, and what the tag pointed to before is not.

        Raises:
            UnknownImage: it is not here.
            BadRequest: *reference* names none.
        """
        name = ImageName.parse(reference)
        if pinned:
            await self._known(name)
        place = name.host, name.repository, name.reference
        if not await self._curation.pin(*place, pinned):
            raise UnknownImage(str(name))
        await self._catch_up()

    async def purge(self, reference: str) -> Purged:
        """Forget an image, and remove what nothing else needs, pinned or not.

        Who is being served from it is served to the end. Of what is here no other image, in
        whatever repository, loses anything.

        Raises:
            UnknownImage: it is not here.
            BadRequest: *reference* names none.
        """
        return await self._purge(ImageName.parse(reference))

    async def purge_many(
        self,
        names: Collection[str] | None = None,
        *,
        registry: str | None = None,
        repository: str | None = None,
        unused_for: float | None = None,
    ) -> Purged:
        """Purge all images for which all that is given holds, but not those that are pinned.

        Args:
            names: one of these.
            registry, repository: see :meth:`images`.
            unused_for: for so many seconds.

        Raises:
            UnknownImage: one of *names* is not here; nothing is purged.
            BadRequest: a name is none.
        """
        place = Place.parse(registry, repository)
        before = float("inf") if unused_for is None else self._now() - unused_for
        chosen = self._all(place)
        if names is not None:
            known = [await self._known(name) for name in map(ImageName.parse, names)]
            chosen = _each(known)
        purged = Purged(0, 0, 0)
        async for image in chosen:
            if place.holds(image) and image.last_used < before and not image.pinned:
                # It may have gone with one before it: a digest takes its tags with it, and a tag
                # all that it points to for different clients. Or somebody else was faster.
                with suppress(UnknownImage):
                    purged = _sum(purged, await self._purge(_name_of(image)))
        return purged

    # Fetching and taking.

    def warm(self, images: Sequence[str], platforms: Sequence[str] | None = None) -> Job:
        """Begin to fetch images.

        Args:
            platforms: as in ``linux/arm64/v8``; None for all that an image has.

        Raises:
            BadRequest: something is no image, or no platform.
            TooManyJobs: wait.
        """
        names = {text: ImageName.parse(text) for text in images}
        wanted = None if platforms is None else [Platform.parse(text) for text in platforms]
        work = Warming(self._prefetch, names, wanted).run
        return self._jobs.start(JobKind.WARM, work, unit=Unit.BYTES)

    async def adopt(self, reference: str, digest: str, media_type: str) -> ImageValue:
        """Make a stored manifest an image, as if its registry had said so.

        It is served while the registry cannot be asked, to everybody who may use this proxy, for as
        long as stored answers are (``stale_if_error``): see :mod:`regproxy.registry.permissions`.

        Args:
            media_type: of the manifest.

        Raises:
            Unadoptable: it is not here, or not whole, or not what it is said to be; or the
                registry is none of this proxy.
            BadRequest: a name is none.
        """
        name, root = ImageName.parse(reference), Digest.parse(digest)
        if not self._config.intercepts(name.host):
            raise Unadoptable(
                f"{name.host} is not a registry of this proxy: add it to [registries]"
            )
        if name.tag is None and name.reference != root:
            raise Unadoptable(f"{name} is another digest than {root}")
        content = await whole(root, media_type, self._cataloguing, self._catalog)
        tagged = None
        if name.tag is not None:
            tagged = name.tag, normalise_accept([DEFAULT_ACCEPT.encode()]), root
        await self._curation.adopt(name.host, name.repository, content, tagged, self._now())
        return _image_value(await self._known(name))

    # What these have in common.

    async def _known(self, name: ImageName) -> ImageRecord:
        # A list may lag behind; that there is no such image is said once all is worked out.
        more = True
        while more:
            more = await self._catch_up()
            record = await self._catalog.image(name.host, name.repository, name.reference)
            if record is not None:
                return record
        raise UnknownImage(str(name))

    async def _all(self, place: Place) -> AsyncIterator[ImageRecord]:
        await self._catch_up()
        after = None
        while True:
            found, after = await self._catalog.images(
                Order.REFERENCE, after, _BATCH, host=place.host, repository=place.repository
            )
            for each in found:
                yield each
            if after is None:
                return

    async def _purge(self, name: ImageName) -> Purged:
        # To its end, even when nobody waits for it any more: content that no image has any more
        # would stay until it is evicted.
        return await shielded(ensureDeferred(self._release(name)), lambda purged: None)

    async def _release(self, name: ImageName) -> Purged:
        async with self._purging:
            # All of it: what has not been read yet may need something.
            while await self._cataloguing.step():
                pass
            records = await self._curation.release(name.host, name.repository, name.reference)
            if records is None:
                raise UnknownImage(str(name))
            removed = await self._removal.remove(records)
        return Purged(1, len(removed), sum(record.size for record in removed))

    async def _catch_up(self) -> bool:
        """Work out some of what is to be; whether there may be more."""
        for _ in range(_STEPS):
            if not await self._cataloguing.step():
                return False
        return True


async def _each(images: Sequence[ImageRecord]) -> AsyncIterator[ImageRecord]:
    for image in images:
        yield image


def _sum(one: Purged, other: Purged) -> Purged:
    return evolve(
        one,
        images=one.images + other.images,
        blobs=one.blobs + other.blobs,
        bytes=one.bytes + other.bytes,
    )


def _name_of(image: ImageRecord) -> ImageName:
    return ImageName(image.host, image.repository, image.tag or image.digest)


def _image_value(image: ImageRecord) -> ImageValue:
    stored_at = _time(image.stored_at)
    return ImageValue(
        reference=str(_name_of(image)),
        registry=str(image.host),
        repository=str(image.repository),
        tag=None if image.tag is None else str(image.tag),
        digest=str(image.digest),
        media_type=image.media_type,
        bytes=image.bytes,
        complete=image.complete,
        pinned=image.pinned,
        last_used=_time(image.last_used),
        checked_at=stored_at if image.checked_at is None else _time(image.checked_at),
        stored_at=stored_at,
        brought_by=image.brought_by,
    )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
