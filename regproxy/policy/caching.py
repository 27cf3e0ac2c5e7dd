"""What may be stored, why not, and how an answer came about (RFC 9211)."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from attrs import frozen


class Kind(StrEnum):
    """What a digest names."""

    BLOB = "blob"
    MANIFEST = "manifest"


class NoStore(StrEnum):
    """Why an upstream's answer is not stored."""

    STATUS = "upstream-status"
    NOT_CONTENT = "not-content"
    # Signed schema 1 manifests have the digest of a part of themselves.
    UNVERIFIABLE = "unverifiable-media-type"
    TOO_LARGE = "manifest-too-large"
    DISK = "disk-error"
    PRIVATE = "not-public"


# Docker's schema 1; https://distribution.github.io/distribution/spec/deprecated-schema-v1/
_SCHEMA_1: Final = "application/vnd.docker.distribution.manifest.v1+"


def why_not_stored(
    kind: Kind, status: int, media_type: str, length: int | None, manifest_size: int
) -> NoStore | None:
    """Why an answer to a GET of content is not to be stored, or None if it is.

    Args:
        length: its length in bytes, if announced.
        manifest_size: the largest manifest that is taken, in bytes.
    """
    if status != 200:
        return NoStore.STATUS
    if kind is Kind.MANIFEST:
        if media_type.lower().startswith(_SCHEMA_1):
            return NoStore.UNVERIFIABLE
        if media_type.lower().startswith("text/html"):
            # Where a captive portal or a maintenance page answers 200.
            return NoStore.NOT_CONTENT
        if length is not None and length > manifest_size:
            return NoStore.TOO_LARGE
    return None


class Forward(StrEnum):
    """Why upstream was asked (RFC 9211 section 2.2)."""

    BYPASS = "bypass"
    METHOD = "method"
    MISS = "miss"
    STALE = "stale"


@frozen
class CacheStatus:
    """One member of the Cache-Status field (RFC 9211 section 2).

    Attributes:
        forward: why upstream was asked; None is a hit.
        stored: the answer is being stored.
        collapsed: it shares another client's transfer.
        detail: the reason by name, for people and logs.
    """

    forward: Forward | None = None
    stored: bool = False
    collapsed: bool = False
    detail: str | None = None

    def __str__(self) -> str:
        parts = ["regproxy", "hit" if self.forward is None else f"fwd={self.forward}"]
        if self.stored:
            parts.append("stored")
        if self.collapsed:
            parts.append("collapsed")
        if self.detail is not None:
            parts.append(f"detail={self.detail}")
        return "; ".join(parts)

    @property
    def word(self) -> str:
        """The short form for the access log."""
        if self.forward is None:
            return "hit"
        if self.collapsed:
            return "collapsed"
        return "pass" if self.forward in (Forward.BYPASS, Forward.METHOD) else self.forward.value


HIT: Final = CacheStatus()
