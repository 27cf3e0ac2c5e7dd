"""What the management API says, as far as the command line looks into it.

Keys that are not named here are left alone: a server may be newer than this command. What is
printed as JSON is the server's answer itself.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, TypeVar

from attrs import frozen
from cattrs import BaseValidationError, Converter

from regproxy.cli.errors import CommandFailed

_T = TypeVar("_T")

RUNNING: Final = "running"
DONE: Final = "done"


@frozen
class Store:
    """The store in numbers; sizes in bytes."""

    bytes: int
    blobs: int
    limit: int
    free: int
    evicted: int
    evicted_bytes: int
    quarantined: int
    disk_full: int


@frozen
class RateLimit:
    """How much a registry still lets be asked."""

    registry: str
    login: str
    limit: int | None
    remaining: int
    seen_at: datetime


@frozen
class Root:
    """A certificate authority that clients trust, or are to trust."""

    subject: str
    fingerprint: str
    not_after: datetime


@frozen
class CA:
    """The certificate authority in use, the next one, and those before."""

    subject: str
    fingerprint: str
    not_after: datetime
    next: Root | None
    previous: tuple[Root, ...]


@frozen
class Stats:
    """The proxy in numbers; sizes in bytes, times in seconds."""

    version: str
    started_at: datetime
    requests: int
    hits: int
    hit_ratio: float | None
    bytes_to_clients: int
    bytes_from_upstream: int
    bytes_saved: int
    store: Store | None
    rate_limits: tuple[RateLimit, ...]
    fills: int
    connections: int
    loop_delay_p99: float | None
    ca: CA


@frozen
class Registry:
    """How a registry does; sizes in bytes."""

    name: str
    requests: int
    hits: int
    bytes_to_clients: int
    bytes_from_upstream: int
    errors: int
    last_error: str | None
    backoff_seconds: float


@frozen
class Fill:
    """A transfer from upstream under way; sizes in bytes."""

    digest: str
    registry: str
    repository: str
    kind: str
    size: int | None
    stored: int
    readers: int
    bytes_per_second: float


@frozen
class Image:
    """A stored image; its size in bytes."""

    reference: str
    tag: str | None
    digest: str
    media_type: str
    bytes: int
    complete: bool
    pinned: bool
    last_used: datetime
    checked_at: datetime
    stored_at: datetime
    brought_by: str | None


@frozen
class Layer:
    """A layer or a configuration; its size in bytes."""

    digest: str
    media_type: str
    bytes: int
    stored: bool
    shared_by: int


@frozen
class Manifest:
    """A manifest, or an index of manifests; its own size in bytes."""

    digest: str
    media_type: str
    bytes: int
    stored: bool
    platform: str | None
    config: Layer | None
    layers: tuple[Layer, ...]
    children: tuple[Manifest, ...]


@frozen
class ImageTree:
    """An image and all that belongs to it."""

    image: Image
    manifest: Manifest


@frozen
class Purged:
    """What a purge has removed: names, and the contents that nothing else needed."""

    images: int
    blobs: int
    bytes: int


@frozen
class JobImage:
    """An image that a job fetches; sizes in bytes."""

    reference: str
    state: str
    done: int
    total: int | None
    error: str | None


@frozen
class Job:
    """Work that the server does in the background.

    Attributes:
        state: RUNNING, DONE, ``failed`` or ``cancelled``.
        unit: of *done* and *total*: ``bytes`` or ``items``.
    """

    id: str
    kind: str
    state: str
    done: int
    total: int | None
    unit: str
    message: str | None
    failures: tuple[str, ...]
    images: tuple[JobImage, ...]


def read(cls: type[_T], value: Any) -> _T:
    """The value of *cls* that the server's *value* is.

    Raises:
        CommandFailed: it is none.
    """
    try:
        return _converter.structure(value, cls)
    except (BaseValidationError, KeyError, TypeError, ValueError):
        raise CommandFailed(
            "the server's answer is not understood: is it a regproxy of the same release?"
        ) from None


def _time(text: Any) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("a time without its offset")
    return time


_converter: Final = Converter()
_converter.register_structure_hook(datetime, lambda value, _: _time(value))
