"""Images on their way in or out of an archive: what they are, and that they arrive unharmed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO
from typing import Final

from attrs import frozen

from regproxy.cli.archive import Archive, File
from regproxy.cli.client import Source
from regproxy.cli.errors import CommandFailed
from regproxy.oci.names import Digest

#: Bytes of a manifest or a config, which are read into memory. Registries take manifests of 4 MiB
#: (OCI distribution specification, "Pushing Manifests").
MAX_DOCUMENT: Final = 4 << 20


@frozen
class Content:
    """Something with a digest.

    Attributes:
        place: where it is in the archive; whoever keeps to the order reads the archive once.
        open: begins to read it.
    """

    size: int
    place: int
    open: Callable[[], Source]

    @classmethod
    def of(cls, content: bytes) -> Content:
        """Content that is in memory."""
        return cls(len(content), 0, partial(BytesIO, content))

    @classmethod
    def in_archive(cls, archive: Archive, file: File) -> Content:
        """Content that is a file of *archive*."""
        return cls(file.size, file.offset, partial(archive.open, file))


@frozen
class CarriedImage:
    """An image in an archive.

    Attributes:
        names: as the archive has them; perhaps none.
        digest: of its manifest or index.
        media_type: of the same.
        left_out: platforms, or digests, that its index names and that the archive does not have.
    """

    names: tuple[str, ...]
    digest: Digest
    media_type: str
    left_out: tuple[str, ...] = ()


@frozen
class Bundle:
    """The images of an archive.

    Attributes:
        contents: all that they consist of.
    """

    images: tuple[CarriedImage, ...]
    contents: Mapping[Digest, Content]


class Verified:
    """Reads *source*, and lets its end through only if all of it has the digest.

    Args:
        size: how many bytes it has to have.
        moved: is told how many bytes have been read.
    """

    def __init__(
        self, digest: Digest, size: int, source: Source, moved: Callable[[int], object]
    ) -> None:
        self._digest = digest
        self._left = size
        self._source = source
        self._moved = moved
        self._hash = hashlib.new(digest.algorithm)

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, at most *size* if it is not negative.

        Raises:
            CommandFailed: the content is other than its digest says.
        """
        block = self._source.read(self._left if size < 0 else min(size, self._left))
        self._hash.update(block)
        self._left -= len(block)
        early = not block and self._left
        if early or (not self._left and self._hash.hexdigest() != self._digest.hex):
            raise CommandFailed(f"{self._digest}: the content is other than its digest says")
        self._moved(len(block))
        return block
