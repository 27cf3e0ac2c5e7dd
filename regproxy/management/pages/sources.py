"""What the pages show, and who has it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from attrs import frozen

from regproxy.management.values import (
    CAValue,
    FillValue,
    ImageTree,
    ImageValue,
    Job,
    Page,
    RegistryValue,
    RepositoryValue,
    RequestValue,
    Sample,
    Stats,
)


class Overview(Protocol):
    """The proxy in numbers."""

    async def stats(self) -> Stats:
        """Now."""

    def registries(self) -> Sequence[RegistryValue]:
        """All that are known by name."""


class Fills(Protocol):
    """Transfers from upstream."""

    def values(self) -> Sequence[FillValue]:
        """Those under way."""


class Events(Protocol):
    """The last requests."""

    def latest(self) -> Sequence[RequestValue]:
        """All that are kept, the latest first."""


class History(Protocol):
    """The last hour."""

    def samples(self) -> Sequence[Sample]:
        """The oldest first."""


class Images(Protocol):
    """What is stored, as images."""

    async def images(
        self,
        *,
        registry: str | None,
        repository: str | None,
        q: str | None,
        sort: str,
        limit: int,
        cursor: str | None,
    ) -> Page[ImageValue]:
        """A part of the list of images."""

    async def repositories(
        self, *, registry: str | None, q: str | None, limit: int, cursor: str | None
    ) -> Page[RepositoryValue]:
        """A part of the list of repositories."""

    async def tree(self, reference: str) -> ImageTree:
        """One image.

        Raises:
            UnknownImage: it is not here.
        """

    async def purge(self, reference: str) -> object:
        """Forget it, and what nothing else needs.

        Raises:
            UnknownImage: it is not here.
        """

    async def purge_many(self, *, registry: str, repository: str) -> object:
        """The same for all images of a repository but those that are pinned."""

    async def pin(self, reference: str, pinned: bool) -> object:
        """Keep it from being evicted, or no longer.

        Raises:
            UnknownImage: it is not here.
        """

    def warm(self, images: Sequence[str], platforms: Sequence[str] | None) -> Job:
        """Begin to fetch what is missing of them."""


class Jobs(Protocol):
    """Work in the background."""

    def all(self) -> Iterable[Job]:
        """The latest first."""


class Authority(Protocol):
    """The CA."""

    def state(self) -> CAValue:
        """What clients trust, and are to trust."""

    def pem(self) -> bytes:
        """All certificates that clients are to trust, the one in use first."""

    def der(self) -> bytes:
        """The certificate in use."""


@frozen
class Sources:
    """Who has it."""

    overview: Overview
    fills: Fills
    events: Events
    history: History
    images: Images
    jobs: Jobs
    authority: Authority
