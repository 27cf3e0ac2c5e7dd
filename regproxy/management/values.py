"""What the management side shows, whoever asks: the JSON API, the pages, the command line.

The attributes' names are the names in JSON, and what is said of them here is said in the API's
document too. Sizes are bytes, durations seconds, times aware and in UTC; in JSON a time is a text
as RFC 3339 has it.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Generic, TypeVar

from attrs import frozen

from regproxy.oci.kinds import RequestKind

T = TypeVar("T")


@frozen
class Page(Generic[T]):
    """A part of a list.

    Attributes:
        items: in the list's order.
        next: the cursor of the part that follows; null when there is none.
    """

    items: tuple[T, ...]
    next: str | None = None


@frozen
class StoreValue:
    """The store in numbers; those of events count from the start of the process.

    Attributes:
        bytes: of all content that is whole.
        blobs: how many blobs and manifests there are.
        limit: bytes that there may be.
        free: bytes free on the file system.
        evicted: blobs evicted.
        evicted_bytes: their size.
        quarantined: files found damaged.
        disk_full: how many times the disk had no room.
    """

    bytes: int
    blobs: int
    limit: int
    free: int
    evicted: int
    evicted_bytes: int
    quarantined: int
    disk_full: int


@frozen
class RateLimitValue:
    """What a registry has last said of how much it still lets be asked.

    Attributes:
        registry: its host.
        login: in whose name it was asked: own, anonymous or client.
        limit: requests in a window; null when it was not said.
        remaining: requests that are left.
        window: length of the window.
        seen_at: when it was said.
    """

    registry: str
    login: str
    limit: int | None
    remaining: int
    window: int
    seen_at: datetime


@frozen
class RootValue:
    """A certificate authority that clients trust, or are to trust.

    Attributes:
        subject: its name, as RFC 4514 writes it.
        fingerprint: SHA-256 of its DER form, in hexadecimal with colons.
        not_after: when it expires.
    """

    subject: str
    fingerprint: str
    not_after: datetime


@frozen
class CAValue:
    """The certificate authority in use, the one that follows, and those before.

    Attributes:
        subject: its name, as RFC 4514 writes it.
        fingerprint: SHA-256 of its DER form, in hexadecimal with colons.
        not_after: when it expires.
        next: announced to clients, and not in use yet.
        previous: no longer in use, and still given to clients; the latest first.
    """

    subject: str
    fingerprint: str
    not_after: datetime
    next: RootValue | None = None
    previous: tuple[RootValue, ...] = ()


@frozen
class Stats:
    """The proxy in numbers.

    Attributes:
        version: of regproxy.
        started_at: when the process began.
        requests: that ended since.
        hits: how many of them were answered from the store.
        hit_ratio: hits by requests for content; null when there was none.
        bytes_to_clients: of bodies.
        bytes_from_upstream: of bodies.
        bytes_saved: sent to clients and not fetched for it.
        store: null when it does not tell in time.
        rate_limits: what registries say, one for each login.
        fills: transfers under way.
        connections: open ones of clients.
        loop_delay_p99: how late 99 of 100 timers of the last minute were at most; null when
            none has fired.
        ca: the certificate authority.
    """

    version: str
    started_at: datetime
    requests: int
    hits: int
    hit_ratio: float | None
    bytes_to_clients: int
    bytes_from_upstream: int
    bytes_saved: int
    store: StoreValue | None
    rate_limits: tuple[RateLimitValue, ...]
    fills: int
    connections: int
    loop_delay_p99: float | None
    ca: CAValue


@frozen
class Sample:
    """What happened in a short time.

    Attributes:
        time: when it began.
        seconds: how long it was.
        bytes_to_clients: of bodies.
        bytes_from_upstream: of bodies.
        requests: for content, that ended.
        hits: how many of them were answered from the store.
    """

    time: datetime
    seconds: float
    bytes_to_clients: int
    bytes_from_upstream: int
    requests: int
    hits: int


@frozen
class RegistryValue:
    """A registry: how it is reached, and how that goes.

    Attributes:
        name: its host, or the pattern under which it is counted.
        upstream: addresses of its mirrors, and its own last.
        auth: who authenticates there: forward, inject or client-first.
        access: who may read what is stored of it: public, shared or verify.
        push: what happens to a push: forward or deny.
        requests: that ended.
        hits: how many of them were answered from the store.
        bytes_to_clients: of bodies.
        bytes_from_upstream: of bodies.
        errors: how many times it, or the way to it, failed.
        last_error: what went wrong last.
        last_error_at: when that was.
        backoff_seconds: for how long it is left alone yet, because it limits the rate of requests.
        latency_p50: the half of its answers began after this time; null when there was none.
    """

    name: str
    upstream: tuple[str, ...]
    auth: str
    access: str
    push: str
    requests: int
    hits: int
    bytes_to_clients: int
    bytes_from_upstream: int
    errors: int
    last_error: str | None
    last_error_at: datetime | None
    backoff_seconds: float
    latency_p50: float | None


class FillState(StrEnum):
    """What has become of a transfer."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@frozen
class FillValue:
    """A transfer from upstream into the store.

    Attributes:
        digest: of what is transferred.
        registry: where it comes from.
        repository: where it comes from.
        kind: blob or manifest.
        state: running, or how it ended.
        size: null while it is not known.
        stored: how much of it is here.
        readers: clients that wait for it.
        started_at: when it began.
        bytes_per_second: since then.
    """

    digest: str
    registry: str
    repository: str
    kind: str
    state: FillState
    size: int | None
    stored: int
    readers: int
    started_at: datetime
    bytes_per_second: float


@frozen
class RequestValue:
    """What one request was and what became of it.

    Attributes:
        id: rises from one to the next, over restarts too.
        time: when it began.
        client: the client's address.
        way: the listener it came in by.
        method: the HTTP method.
        kind: what it was for.
        registry: the registry's host, if one was named.
        repository: the repository, if one was named.
        reference: tag or digest, or the path without its query.
        status: the HTTP status; 499 when the client left before the answer was whole.
        bytes: of the answer's body.
        duration: from the request's head to the answer's end.
        cache: hit, miss, stale, collapsed, pass, tunnel or none.
        reason: why it was answered so, or what went wrong.
    """

    id: int
    time: datetime
    client: str
    way: str
    method: str
    kind: RequestKind
    registry: str | None
    repository: str | None
    reference: str | None
    status: int
    bytes: int
    duration: float
    cache: str
    reason: str | None


@frozen
class RepositoryValue:
    """A repository of which something is known.

    Attributes:
        registry: its registry's host.
        repository: its name there.
        tags: how many are known.
        bytes: of its content that is stored.
        last_used: when a client last asked for something of it.
    """

    registry: str
    repository: str
    tags: int
    bytes: int
    last_used: datetime


@frozen
class ImageValue:
    """An image: what a tag names, or a manifest by its digest.

    Attributes:
        reference: as in ``ghcr.io/o/app:1.2`` or ``ghcr.io/o/app@sha256:...``.
        registry: its registry's host.
        repository: its name there.
        tag: null when it has none.
        digest: of its manifest or index.
        media_type: of its manifest or index.
        bytes: of what is stored of it.
        complete: whether it can be used as it is; of an index, the platforms that are stored.
        pinned: whether it is kept from being evicted.
        last_used: when a client last asked for it.
        checked_at: when upstream last said that the tag names this; without a tag, when it came.
        stored_at: when its manifest came.
        brought_by: the address of the client that it was first fetched for, if that is known.
    """

    reference: str
    registry: str
    repository: str
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
class LayerNode:
    """A layer or a configuration of an image.

    Attributes:
        digest: of its content.
        media_type: as the manifest says.
        bytes: as the manifest says.
        stored: whether it is here.
        shared_by: how many stored manifests name it.
    """

    digest: str
    media_type: str
    bytes: int
    stored: bool
    shared_by: int


@frozen
class ManifestNode:
    """A manifest, or an index of manifests.

    Attributes:
        digest: of its content.
        media_type: as it was served.
        bytes: its own size.
        stored: whether it is here; if not, nothing below it is known.
        platform: as in ``linux/arm64/v8``; null when none is said.
        config: null for an index, or when there is none.
        layers: in the manifest's order.
        children: what an index names, in its order.
    """

    digest: str
    media_type: str
    bytes: int
    stored: bool
    platform: str | None
    config: LayerNode | None
    layers: tuple[LayerNode, ...]
    children: tuple[ManifestNode, ...]


@frozen
class ImageTree:
    """An image and all that belongs to it.

    Attributes:
        image: the image.
        manifest: what it consists of.
    """

    image: ImageValue
    manifest: ManifestNode


@frozen
class BlobValue:
    """Stored content: a blob or a manifest.

    Attributes:
        digest: of the content.
        bytes: its size.
        stored_at: when it came.
        last_used: when a client last asked for it.
        verified_at: when it was last read and found right; null when it never was.
        pinned: whether it is kept from being evicted.
        brought_by: the address of the client that it was first fetched for, if that is known.
    """

    digest: str
    bytes: int
    stored_at: datetime
    last_used: datetime
    verified_at: datetime | None
    pinned: bool
    brought_by: str | None


@frozen
class Purged:
    """What a purge removed.

    Attributes:
        images: how many there are no more.
        blobs: how many blobs and manifests nothing else needed.
        bytes: of those.
    """

    images: int
    blobs: int
    bytes: int


class JobKind(StrEnum):
    """What a job does."""

    WARM = "warm"
    VERIFY = "verify"
    GC = "gc"


class JobState(StrEnum):
    """Where a job stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Unit(StrEnum):
    """What the progress of a job is counted in."""

    BYTES = "bytes"
    ITEMS = "items"


@frozen
class JobImage:
    """An image that a job fetches.

    Attributes:
        reference: as it was asked for.
        state: where it stands.
        done: bytes that are here.
        total: bytes that it has; null while they are not known.
        error: what went wrong; null when nothing did.
    """

    reference: str
    state: JobState
    done: int = 0
    total: int | None = None
    error: str | None = None


@frozen
class Job:
    """Work in the background that somebody asked for.

    Attributes:
        id: its name.
        kind: what it does.
        state: where it stands.
        started_at: when it began.
        ended_at: null while it runs.
        done: how much of it is.
        total: how much there is; null while that is not known.
        unit: of both.
        message: what it does now, or how it ended.
        failures: what went wrong on the way, the first ones.
        images: for warm: what it fetches.
    """

    id: str
    kind: JobKind
    state: JobState
    started_at: datetime
    ended_at: datetime | None
    done: int
    total: int | None
    unit: Unit
    message: str | None = None
    failures: tuple[str, ...] = ()
    images: tuple[JobImage, ...] = ()


@frozen
class Problem:
    """Why something was not done (RFC 9457).

    Attributes:
        status: the HTTP status.
        title: what it stands for.
        detail: what is wrong, in one line.
        messages: what is wrong, one by one.
    """

    status: int
    title: str
    detail: str
    messages: tuple[str, ...] = ()
