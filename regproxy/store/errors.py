"""What can go wrong with content on its way into the store."""

from __future__ import annotations

from regproxy.oci.names import Digest


class StoreError(Exception):
    """The store could not do what it was asked for."""


class StoreUnusable(StoreError):
    """The cache directory cannot be used at all; the text says what to do."""


class IndexFailed(StoreError):
    """The index did not take a row."""


class FillFailed(StoreError):
    """Content in transfer will never be whole."""


class DigestMismatch(FillFailed):
    """All bytes came, and they are not the ones that the digest names."""

    def __init__(self, expected: Digest, actual: Digest) -> None:
        super().__init__(f"content is {actual} where {expected} was asked for")


class DiskFailed(FillFailed):
    """The disk did not take the content, or did not give it back."""


class SizeMismatch(FillFailed):
    """More bytes came than were announced, or another size was announced than before."""
