"""The operations about stored content by digest, and to bring it here by hand."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Annotated, Final

from attrs import frozen

from regproxy.management.blobs import Blobs, Pinned, UnknownBlob
from regproxy.management.bounds import Pattern
from regproxy.management.operations import AnyOperation, Media, Operation, Paged
from regproxy.management.values import BlobValue, Page
from regproxy.store.errors import DigestMismatch, SizeMismatch, StoreError
from regproxy.store.store import StoredBlob
from regproxy.web.request_body import RequestBody
from regproxy.web.sender import send
from regproxy.web.site import StrictRequest

#: A digest that can be verified (OCI image specification, "Registered algorithms").
DigestText = Annotated[
    str, Pattern("a sha256 or sha512 digest", "sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
]

_OCTETS: Final = Media("application/octet-stream")
_BLOB: Final[Mapping[type[Exception], HTTPStatus]] = {UnknownBlob: HTTPStatus.NOT_FOUND}
_TAKEN: Final[Mapping[type[Exception], HTTPStatus]] = {
    DigestMismatch: HTTPStatus.UNPROCESSABLE_ENTITY,
    SizeMismatch: HTTPStatus.UNPROCESSABLE_ENTITY,
    StoreError: HTTPStatus.INSUFFICIENT_STORAGE,
    OSError: HTTPStatus.INSUFFICIENT_STORAGE,
}


@frozen
class OneBlob:
    """Which content.

    Attributes:
        digest: as in ``sha256:...``.
    """

    digest: DigestText


@frozen
class _Bytes:
    """The answer that is stored content."""

    blob: StoredBlob

    async def send(self, request: StrictRequest) -> None:
        """See :class:`~regproxy.management.operations.Streamed`."""
        blob = self.blob
        try:
            size = blob.size or 0
            request.setHeader("Content-Length", str(size))
            # It is what somebody else wrote: a browser is to keep it and not to show it.
            request.setHeader("Content-Disposition", f'attachment; filename="{blob.digest.hex}"')
            if request.method != b"HEAD":
                await send(partial(request.outlet, size), blob, 0, size)
        finally:
            blob.close()
        request.finish()


@frozen
class BlobOperations:
    """What these operations show and do."""

    blobs: Blobs

    def operations(self) -> tuple[AnyOperation, ...]:
        """The rows."""
        return (
            Operation(
                name="listBlobs",
                method="GET",
                path="/blobs",
                summary="All stored content, by digest.",
                handler=self._blobs,
                parameters=Paged,
                answer=Page[BlobValue],
            ),
            Operation(
                name="getBlob",
                method="GET",
                path="/blobs/{digest}",
                summary="What is known of stored content.",
                handler=self._blob,
                parameters=OneBlob,
                answer=BlobValue,
                errors=_BLOB,
            ),
            Operation(
                name="downloadBlob",
                method="GET",
                path="/blobs/{digest}/content",
                summary="Stored content itself, which may be of a private repository.",
                handler=self._content,
                parameters=OneBlob,
                answer=_OCTETS,
                errors={**_BLOB, StoreError: HTTPStatus.SERVICE_UNAVAILABLE},
                changes=True,
            ),
            Operation(
                name="uploadBlob",
                method="PUT",
                path="/blobs/{digest}",
                summary="Store content. It has to be what its digest says, and belongs to no"
                " repository yet.",
                handler=self._take,
                parameters=OneBlob,
                body=_OCTETS,
                answer=None,
                status=HTTPStatus.NO_CONTENT,
                errors=_TAKEN,
                changes=True,
            ),
            Operation(
                name="removeBlob",
                method="DELETE",
                path="/blobs/{digest}",
                summary="Remove stored content, whatever images need it.",
                handler=self._remove,
                parameters=OneBlob,
                answer=None,
                status=HTTPStatus.NO_CONTENT,
                errors={
                    **_BLOB,
                    Pinned: HTTPStatus.CONFLICT,
                    StoreError: HTTPStatus.INSUFFICIENT_STORAGE,
                },
                changes=True,
            ),
        )

    async def _blobs(self, part: Paged, body: None) -> Page[BlobValue]:
        return await self.blobs.blobs(limit=part.limit, cursor=part.cursor)

    async def _blob(self, which: OneBlob, body: None) -> BlobValue:
        return await self.blobs.blob(which.digest)

    async def _content(self, which: OneBlob, body: None) -> _Bytes:
        return _Bytes(await self.blobs.open(which.digest))

    async def _take(self, which: OneBlob, body: RequestBody | None) -> None:
        await self.blobs.take(which.digest, body)

    async def _remove(self, which: OneBlob, body: None) -> None:
        await self.blobs.remove(which.digest)
