"""Images that are fetched before a client wants them, by the road that clients come.

The proxy asks as a client of its mirror does that has no login: see
:mod:`regproxy.registry.guests`. So what it fetches is checked, shared, stored and remembered as
ever: with the proxy's own login where it has one, and as anybody may where it has none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, Protocol

from attrs import define, field
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    DeferredSemaphore,
    ensureDeferred,
)
from twisted.web.http_headers import Headers

from regproxy import __version__
from regproxy.config.model import Config
from regproxy.interfaces import IBlob
from regproxy.oci.errors import RegistryError
from regproxy.oci.manifests import ImageIndex, Manifest, Part, Platform, parse_manifest
from regproxy.oci.media_types import DEFAULT_ACCEPT
from regproxy.oci.names import Digest, Host, Reference, Repository
from regproxy.oci.references import ImageName
from regproxy.oci.routes import BlobRoute, ManifestRoute, Route, blob_target, manifest_target
from regproxy.policy.caching import NoStore
from regproxy.registry.ask import Ask, Content, Relayed
from regproxy.registry.content import drop
from regproxy.registry.tokens import Answerer
from regproxy.store.errors import StoreError
from regproxy.store.store import Store
from regproxy.upstream.errors import UpstreamError

#: Questions that are under way at a time, of all images together: about as many as one containerd
#: has, which fetches three layers at a time for each of the images that a node begins with.
CONCURRENCY: Final = 6
# How deep indices of indices are followed, and to how many manifests and blobs.
_DEPTH: Final = 4
_MOST: Final = 10_000
_AGENT: Final = f"regproxy/{__version__}"


class Unfetched(Exception):
    """An image is not there whole; the text says why."""


class Meter(Protocol):
    """Told how far the fetching of one image is."""

    def expect(self, size: int) -> None:
        """So many bytes more belong to it."""

    def advance(self, size: int) -> None:
        """So many bytes more are here."""


@define
class _Order:
    """What is fetched, but for the digest.

    Attributes:
        seen: what has been begun.
        cancelled: nothing more is to be begun.
    """

    host: Host
    repository: Repository
    platforms: Sequence[Platform] | None
    meter: Meter
    seen: set[Digest] = field(factory=set)
    cancelled: bool = False


class Prefetch:
    """Fetches images.

    Args:
        service: answers the clients of a mirror.
        config: which hosts are registries, their sections, and how large a manifest may be.
        store: where it all goes.
    """

    def __init__(self, service: Answerer, config: Config, store: Store) -> None:
        self._service = service
        self._config = config
        self._store = store
        self._slots = DeferredSemaphore(CONCURRENCY)

    async def fetch(
        self, name: ImageName, platforms: Sequence[Platform] | None, meter: Meter
    ) -> None:
        """Have all of an image in the store.

        Transfers that have begun when this is cancelled go on as those that clients have left do.

        Args:
            platforms: which manifests of an index; None for all. What is no index is fetched
                for whatever platform it is.

        Raises:
            Unfetched: some of it is not there. What else it has, is.
        """
        if not self._config.intercepts(name.host):
            raise Unfetched(f"{name.host} is not a registry of this proxy: add it to [registries]")
        order = _Order(name.host, name.repository, platforms, meter)
        await self._fetch_manifest(order, name.reference, _DEPTH)

    async def _fetch_manifest(
        self, order: _Order, reference: Reference, depth: int, size: int | None = None
    ) -> None:
        """Fetch a manifest and what it names.

        Args:
            size: in bytes, if it is expected already.
        """
        target = manifest_target(order.repository, reference)
        route = ManifestRoute(order.repository, reference, target=target)
        with _told(f"manifest {reference}"):
            async with self._slot(order):
                blob = await self._ask(order.host, route)
                try:
                    if size is None and blob.size is not None:
                        order.meter.expect(blob.size)
                    await self._stored(blob, order.meter)
                    content = await self._read(blob)
                finally:
                    blob.close()
            manifests, blobs = _chosen(parse_manifest(content), order.platforms)
        # What several platforms have in common is fetched once.
        manifests, blobs = (
            [part for part in parts if part.digest not in order.seen]
            for parts in (manifests, blobs)
        )
        for part in (*manifests, *blobs):
            order.seen.add(part.digest)
            order.meter.expect(part.size)
        if (manifests and not depth) or len(order.seen) > _MOST:
            raise Unfetched(f"manifest {reference}: there is too much below it")
        works = [
            self._fetch_manifest(order, each.digest, depth - 1, each.size) for each in manifests
        ]
        works += [self._fetch_blob(order, part) for part in blobs]
        await _all(order, works)

    async def _fetch_blob(self, order: _Order, part: Part) -> None:
        target = blob_target(order.repository, part.digest)
        route = BlobRoute(order.repository, part.digest, target=target)
        with _told(f"blob {part.digest}"):
            async with self._slot(order):
                blob = await self._ask(order.host, route)
                try:
                    await self._stored(blob, order.meter)
                finally:
                    blob.close()

    @asynccontextmanager
    async def _slot(self, order: _Order) -> AsyncIterator[None]:
        async with self._slots:
            # Those that are cancelled first give their slots to others.
            if order.cancelled:
                raise CancelledError
            yield

    async def _ask(self, host: Host, route: Route) -> IBlob:
        """Ask for content that is stored, or about to be."""
        fields = {"Accept": [DEFAULT_ACCEPT], "User-Agent": [_AGENT]}
        section = self._config.registry(host)
        answer = await self._service.answer(
            Ask(b"GET", host, section, route, Headers(fields), None)
        )
        match answer:
            case Content(blob):
                if isinstance(answer.status.detail, NoStore):
                    blob.close()
                    raise Unfetched(f"it is not stored: {answer.status.detail}")
                if answer.warning is not None:
                    # Something is here, and nobody knows whether it is what is asked for.
                    blob.close()
                    raise Unfetched(answer.warning)
                return blob
            case Relayed(response):
                drop(answer)
                raise Unfetched(f"{host} answered {response.code}")
        raise TypeError(f"{answer} is no answer to a GET of content")

    async def _stored(self, blob: IBlob, meter: Meter) -> None:
        """Wait until it is whole, right, and durable."""
        fill = self._store.filling(blob.digest)
        offset = 0
        while True:
            if ready := blob.readable(offset):
                offset += ready
                meter.advance(ready)
            if blob.verified:
                break
            # At the end of what is here: nobody is asked for what is farther on.
            await blob.when_readable(offset, None)
        if fill is not None:
            await fill.when_ended()
        if not self._store.has(blob.digest):
            raise Unfetched("the disk did not take it")

    async def _read(self, blob: IBlob) -> bytes:
        size = blob.size
        if size is None or size > self._config.limits.manifest_size:
            raise Unfetched("it is too large for a manifest")
        content = b""
        while len(content) < size:
            data = await blob.read(len(content), size - len(content))
            if not data:
                raise Unfetched("its file was cut off")
            content += data
        return content


def _chosen(
    manifest: Manifest, platforms: Sequence[Platform] | None
) -> tuple[Sequence[Part], Sequence[Part]]:
    """The manifests and blobs that are to be fetched of what *manifest* names.

    Raises:
        Unfetched: there is nothing for one of the platforms.
    """
    blobs = [part for part in manifest.blobs if not part.foreign]
    if platforms is None or not isinstance(manifest, ImageIndex):
        return manifest.manifests, blobs
    offered = [part.platform for part in manifest.manifests if part.platform is not None]
    for wanted in platforms:
        if offered and not any(map(wanted.is_met_by, offered)):
            names = ", ".join(map(str, offered))
            raise Unfetched(f"it has nothing for {wanted}, but for {names}")
    return [
        part
        for part in manifest.manifests
        if part.platform is None or any(each.is_met_by(part.platform) for each in platforms)
    ], blobs


async def _all(order: _Order, works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do all of *works*, to their ends; fails as the first of them that did."""

    def cancel(_: object) -> None:
        order.cancelled = True
        working.cancel()

    working = DeferredList(list(map(ensureDeferred, works)), consumeErrors=True)
    waiting: Deferred[list[tuple[bool, Any]]] = Deferred(cancel)
    working.chainDeferred(waiting)
    results = await waiting
    if order.cancelled:
        raise CancelledError
    for success, result in results:
        if not success:
            result.raiseException()


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Have what goes wrong say what it is about."""
    try:
        yield
    except (RegistryError, UpstreamError) as error:
        raise Unfetched(f"{what}: {error.message}") from error
    except (Unfetched, StoreError, OSError) as error:
        raise Unfetched(f"{what}: {error}") from error
