"""The part ``Blobs``: stored content by digest; and how it is brought here by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from twisted.internet.defer import CancelledError, ensureDeferred
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure
from twisted.web.iweb import UNKNOWN_LENGTH
from zope.interface import implementer

from regproxy.management.paging import cursor_of, key_of
from regproxy.management.values import BlobValue, Page
from regproxy.oci.names import Digest
from regproxy.store.catalog import BlobRecord
from regproxy.store.disk import shielded
from regproxy.store.errors import FillFailed, StoreError
from regproxy.store.fill import Fill
from regproxy.store.removal import Removal
from regproxy.store.store import Store, StoredBlob
from regproxy.upstream.errors import UpstreamError
from regproxy.web.request_body import BodyBroken, RequestBody


class UnknownBlob(Exception):
    """There is no such content here."""

    def __init__(self, digest: str) -> None:
        super().__init__(f"{digest} is not stored here")


class Pinned(Exception):
    """Content belongs to a pinned image."""

    def __init__(self, digest: str) -> None:
        super().__init__(f"{digest} belongs to an image that is pinned: unpin that first")


class Unsent(FillFailed):
    """Who brought content by hand has not sent all of it."""

    reason = "unsent"


class Blobs:
    """Lists content, gives it out, takes it and removes it.

    Args:
        removal: removes it.
    """

    def __init__(self, store: Store, removal: Removal) -> None:
        self._store = store
        self._catalog = store.index.catalog
        self._removal = removal

    async def blobs(self, *, limit: int, cursor: str | None = None) -> Page[BlobValue]:
        """A part of the list of all content, by digest.

        Raises:
            BadCursor: *cursor* is none of this list.
        """
        after = None if cursor is None else key_of(cursor, str)
        records, following = await self._catalog.blobs(after, limit)
        return Page(
            tuple(map(_blob_value, records)), None if following is None else cursor_of(following)
        )

    async def blob(self, digest: str) -> BlobValue:
        """One of them.

        Raises:
            UnknownBlob: it is not here.
            BadRequest: *digest* is none.
        """
        return _blob_value(await self._known(digest))

    async def open(self, digest: str) -> StoredBlob:
        """The content itself, for the caller to close; see :meth:`blob`."""
        blob = self._store.open(Digest.parse(digest))
        if blob is None:
            raise UnknownBlob(digest)
        return blob

    async def remove(self, digest: str) -> None:
        """Remove it, whatever needs it; it is fetched anew then.

        Raises:
            Pinned: a pinned image needs it.
            UnknownBlob: it is not here.
            BadRequest: *digest* is none.
            StoreError: it cannot be removed.
        """
        record = await self._known(digest)
        if record.pinned:
            raise Pinned(digest)
        # A row whose file is gone would stay until the next start.
        removing = ensureDeferred(self._removal.remove([record.content]))
        if not await shielded(removing, lambda removed: None):
            raise StoreError(f"{digest} cannot be removed: the log says why")

    async def take(self, digest: str, body: RequestBody | None) -> None:
        """Store what *body* brings, None for nothing at all. What is here already is not read.

        It is in no repository yet: nobody is served it.

        Raises:
            BadRequest: *digest* is none.
            BodyBroken: not all of it came.
            DigestMismatch, SizeMismatch: it is something else.
            DiskFailed, OSError: the disk does not take it.
        """
        wanted = Digest.parse(digest)
        while (fill := self._store.filling(wanted)) is not None:
            # Somebody else brings it. If that fails, this one may do better.
            try:
                await fill.when_ended()
            except (FillFailed, UpstreamError):
                continue
        if self._store.has(wanted):
            if body is not None:
                body.stopProducing()
            return
        length: Any = 0 if body is None else body.length
        fill = await self._store.begin(wanted, None if length is UNKNOWN_LENGTH else length)
        if body is None:
            fill.announce(0)
        else:
            await self._pour(body, fill)
        await fill.when_ended()

    async def _pour(self, body: RequestBody, fill: Fill) -> None:
        into = _Into(fill)
        fill.attach(body)
        # What the fill does not take need not be sent.
        fill.when_ended().addErrback(lambda failure: body.abort(failure.getErrorMessage()))
        try:
            await body.startProducing(into)
        except BodyBroken as broken:
            # Else the fill is the reason, and tells it.
            if not fill.state.over:
                fill.fail(Failure(Unsent(str(broken))))
                raise
        except BaseException as error:
            left = isinstance(error, CancelledError)
            reason = "the client left" if left else "internal error: the log says more"
            fill.fail(Failure(Unsent(reason)))
            raise
        finally:
            fill.detach(body)
        if not fill.state.over:
            fill.announce(into.offset)

    async def _known(self, digest: str) -> BlobRecord:
        record = await self._catalog.blob(Digest.parse(digest))
        if record is None:
            raise UnknownBlob(digest)
        return record


@implementer(IConsumer)
class _Into:
    """Writes a body into a fill, which paces it: see :meth:`~regproxy.store.fill.Fill.attach`.

    Attributes:
        offset: how many bytes there were.
    """

    def __init__(self, fill: Fill) -> None:
        self.offset = 0
        self._fill = fill

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Nothing: the fill knows it."""

    def unregisterProducer(self) -> None:
        """Nothing: see registerProducer."""

    def write(self, data: bytes) -> None:
        """More of it."""
        self._fill.write(self.offset, data)
        self.offset += len(data)


def _blob_value(blob: BlobRecord) -> BlobValue:
    content = blob.content
    return BlobValue(
        digest=str(content.digest),
        bytes=content.size,
        stored_at=_time(content.stored_at),
        last_used=_time(content.last_access),
        verified_at=_time(content.verified_at) if content.verified_at else None,
        pinned=blob.pinned,
        brought_by=blob.brought_by,
    )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
