"""What a request to a registry is for, in one word, for people and for counters."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

from regproxy.oci.names import Tag
from regproxy.oci.routes import BlobRoute, ManifestRoute, OtherRoute, Ping, Route, UploadRoute


class RequestKind(StrEnum):
    """What a request was for."""

    BLOB = "blob"
    MANIFEST = "manifest"
    """By its digest."""
    TAG = "tag"
    """A manifest by a tag."""
    TOKEN = "token"
    PING = "ping"
    PUSH = "push"
    """An upload, and whatever else changes a repository."""
    TUNNEL = "tunnel"
    OTHER = "other"

    # Enum's own is written in Python, and each request is counted by its kind.
    __hash__ = str.__hash__


_READS: Final = (b"GET", b"HEAD")
# A request to a token service says for which service or scope (distribution project, "Token
# Authentication Specification"), or with POST so in its body.
_TOKEN: Final = re.compile(rb"[^?]*/token(?:\?|$)|[^?]*\?(?:.*&)?(?:service|scope)=")


# A table, as this is done for every request.
_READ: Final[dict[type[Route], RequestKind]] = {
    BlobRoute: RequestKind.BLOB,
    ManifestRoute: RequestKind.MANIFEST,
    Ping: RequestKind.PING,
    UploadRoute: RequestKind.PUSH,
}


def kind_of(method: bytes, route: Route) -> RequestKind:
    """What *method* is for at *route*."""
    if isinstance(route, OtherRoute):
        return RequestKind.TOKEN if _TOKEN.match(route.target) else RequestKind.OTHER
    if method not in _READS:
        return RequestKind.PUSH
    if isinstance(route, ManifestRoute) and isinstance(route.reference, Tag):
        return RequestKind.TAG
    return _READ.get(type(route), RequestKind.OTHER)
