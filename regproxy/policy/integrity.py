"""Whether a stored file may be served without reading all of it first.

A file was verified before it was stored, and disks do not keep everything for ever. To hash it at
each hit would cost as much as to encrypt it; so it is hashed again only when there is
a reason, and one reason is that it has not been for a long time.
"""

from __future__ import annotations

from enum import StrEnum

from attrs import frozen

from regproxy.oci.names import Digest


@frozen
class ContentRecord:
    """What the index knows of one file. Times are in seconds since the epoch.

    Attributes:
        stored_at: when it was committed; the last write if nobody saw that.
        last_access: when it was last used.
        verified_at: when it was last seen to be what its name says; 0 for never.
        changed: ``st_ctime_ns`` of the file then. Unlike the time of the last write, no
            program can set it, and nothing is written without a change of it.
    """

    digest: Digest
    size: int
    stored_at: float
    last_access: float
    verified_at: float
    changed: int


class Doubt(StrEnum):
    """Why a file may not be what its name says."""

    #: It is not: nothing has to be read to know.
    SIZE = "size"
    #: The index does not know it.
    UNKNOWN = "unknown"
    #: It has been touched since it was verified.
    CHANGED = "changed"
    #: It was verified too long ago.
    DUE = "due"


def doubt(
    digest: Digest,
    size: int,
    changed: int,
    record: ContentRecord | None,
    due_before: float,
) -> Doubt | None:
    """Why the file of *digest* is to be verified before all of it is served; None: it is not.

    Args:
        size: of the file.
        changed: its ``st_ctime_ns``.
        record: what the index knows of it.
        due_before: what was verified earlier than this is due again.
    """
    if size == 0 and digest != Digest.of(b"", digest.algorithm):
        return Doubt.SIZE
    if record is None or not record.verified_at:
        return Doubt.UNKNOWN
    if size != record.size:
        return Doubt.SIZE
    if changed != record.changed:
        return Doubt.CHANGED
    return Doubt.DUE if record.verified_at < due_before else None
