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
    registry: str
    login: str
    limit: int | None
    remaining: int
    seen_at: datetime


@frozen
class Root:
    subject: str
    fingerprint: str
    not_after: datetime


@frozen
class CA:
    subject: str
    fingerprint: str
    not_after: datetime
    next: Root | None
    previous: tuple[Root, ...]


@frozen
class Stats:
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
    digest: str
    media_type: str
    bytes: int
    stored: bool
    shared_by: int


@frozen
class Manifest:
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
