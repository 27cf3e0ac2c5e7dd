"""What can go wrong with content on its way into the store."""

from __future__ import annotations

import errno
import sqlite3
from typing import ClassVar, Final

from regproxy.oci.names import Digest

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class StoreError(Exception):
    """The store could not do what it was asked for."""


class StoreUnusable(StoreError):
    """The cache directory cannot be used at all; the text says what to do."""


class IndexFailed(StoreError):
    """The index did not take a row."""


class Damaged(StoreError):
    """Stored content is not what its digest names; it is not here any more."""

    def __init__(self, digest: Digest) -> None:
        super().__init__(f"stored content {digest} was damaged; ask again")


class FillFailed(StoreError):
    """Content in transfer will never be whole.

    Attributes:
        reason: why, in a word, for counters.
    """

    reason: ClassVar = "other"


class DigestMismatch(FillFailed):
    """All bytes came, and they are not the ones that the digest names."""

    reason = "digest"

    def __init__(self, expected: Digest, actual: Digest) -> None:
        super().__init__(f"content is {actual} where {expected} was asked for")


class DiskFailed(FillFailed):
    """The disk did not take the content, or did not give it back."""

    reason = "disk"


class Stopped(FillFailed):
    """The process ends; a later one may go on with the transfer."""

    reason = "stopped"

    def __init__(self) -> None:
        super().__init__("the proxy is stopping")


class SizeMismatch(FillFailed):
    """More bytes came than were announced, or another size was announced than before."""

    reason = "size"


def disk_full(error: BaseException | None) -> bool:
    """Whether *error*, or what it came from, says that there is no room on the disk."""
    while error is not None:
        match error:
            case OSError():
                return error.errno in _FULL
            case sqlite3.Error():
                return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        error = error.__cause__
    return False
