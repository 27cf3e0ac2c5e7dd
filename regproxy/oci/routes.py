"""A request target becomes a typed request.

The paths are the end-points of the OCI distribution specification 1.1. Names
are split from the right, as "manifests", "blobs" and "tags" are also good
components of a repository name.

A path is decoded once, and a path that two servers could read in two ways is
refused: nothing here may be stored under a name that the upstream understood
differently (RFC 3986 section 7.3 and 7.6).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

from attrs import field, frozen

from regproxy.oci.errors import DigestUnsupported, PathInvalid
from regproxy.oci.names import Digest, Reference, Repository, parse_reference

# A URI is printable ASCII (RFC 3986 section 2); "#" would begin a fragment, which is
# never sent (RFC 9112 section 3.2.1).
_ORIGIN_FORM: Final = re.compile(rb"/[!-\"$-~]*")
# A malformed one, or an encoded slash.
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})|%2[Ff]")
_HARMFUL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")


@frozen
class Route:
    """What a request asks for.

    Attributes:
        target: the origin-form target as the client sent it, with the query: what
            an upstream is to be asked.
    """

    target: bytes = field(kw_only=True)


@frozen
class Ping(Route):
    """``/v2/``: does this speak the protocol, and is a login wanted?"""


@frozen
class ManifestRoute(Route):
    """``/v2/NAME/manifests/REFERENCE``, with any method."""

    repository: Repository
    reference: Reference


@frozen
class BlobRoute(Route):
    """``/v2/NAME/blobs/DIGEST``, with any method."""

    repository: Repository
    digest: Digest


@frozen
class TagsRoute(Route):
    """``/v2/NAME/tags/list``."""

    repository: Repository


@frozen
class ReferrersRoute(Route):
    """``/v2/NAME/referrers/DIGEST``."""

    repository: Repository
    digest: Digest


@frozen
class CatalogRoute(Route):
    """``/v2/_catalog``."""


@frozen
class UploadRoute(Route):
    """``/v2/NAME/blobs/uploads/`` and everything below it."""

    repository: Repository


@frozen
class OtherRoute(Route):
    """Any other path: token services, other APIs, content that cannot be verified."""


def parse_route(target: bytes) -> Route:
    """Read an origin-form request target (RFC 9112 section 3.2.1).

    Raises:
        PathInvalid: the path is malformed or ambiguous.
        NameInvalid: the repository of an end-point breaks the grammar.
        TagInvalid: the tag does.
        BlobDigestInvalid: the digest does. One of an algorithm that cannot be
            verified is no error but an :class:`OtherRoute`.
    """
    # A query may hold a secret, and content is asked for without one.
    return _parse(target) if b"?" in target else _parse_again(target)


def _parse(target: bytes) -> Route:
    segments = _segments(target)
    if segments[0] != "v2":
        return OtherRoute(target=target)
    match segments[1:]:
        case [] | [""]:
            return Ping(target=target)
        case ["_catalog"]:
            return CatalogRoute(target=target)
        case [*inner, ""] if _is_end_point(inner):
            raise PathInvalid(_text(target))
        case rest if "" in rest[:-1]:
            raise PathInvalid(_text(target))
        case rest:
            return _in_repository(rest, target)


# The machines of a fleet ask for the same. Each target has at most 16 KiB.
_parse_again: Final = lru_cache(maxsize=1024)(_parse)


def manifest_target(repository: Repository, reference: Reference) -> bytes:
    """The target that asks for a manifest."""
    return f"/v2/{repository}/manifests/{reference}".encode()


def blob_target(repository: Repository, digest: Digest) -> bytes:
    """The target that asks for a blob."""
    return f"/v2/{repository}/blobs/{digest}".encode()


def _in_repository(rest: list[str], target: bytes) -> Route:
    match rest:
        case [*name, "tags", "list"] if name:
            return TagsRoute(_repository(name), target=target)
        case [*name, "blobs", "uploads"] if name:
            return UploadRoute(_repository(name), target=target)
        case [*name, ("manifests" | "blobs" | "referrers") as kind, last] if name and last:
            return _content(kind, _repository(name), last, target)
    # An upload's location is the registry's own choice below the end-point.
    for index in range(len(rest) - 2, 0, -1):
        if rest[index : index + 2] == ["blobs", "uploads"]:
            return UploadRoute(_repository(rest[:index]), target=target)
    return OtherRoute(target=target)


def _content(kind: str, repository: Repository, last: str, target: bytes) -> Route:
    try:
        match kind:
            case "manifests":
                return ManifestRoute(repository, parse_reference(last), target=target)
            case "blobs":
                return BlobRoute(repository, Digest.parse(last), target=target)
            case _:
                return ReferrersRoute(repository, Digest.parse(last), target=target)
    except DigestUnsupported:
        return OtherRoute(target=target)


def _is_end_point(rest: list[str]) -> bool:
    """Whether a slash after *rest* would make a second name for one object."""
    match rest:
        case ["_catalog"]:
            return True
        case [_, *_, "tags", "list"]:
            return True
        case [_, *_, "blobs", "uploads"]:
            return False
        case [_, *_, "manifests" | "blobs" | "referrers", _]:
            return True
    return False


def _repository(components: list[str]) -> Repository:
    return Repository.parse("/".join(components))


def _segments(target: bytes) -> list[str]:
    """The decoded segments of the path; never empty."""
    path = target.partition(b"?")[0]
    if not _ORIGIN_FORM.fullmatch(target) or _BAD_ESCAPE.search(path):
        raise PathInvalid(_text(target))
    try:
        decoded = unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        raise PathInvalid(_text(target)) from None
    segments = decoded.split("/")[1:]
    if _HARMFUL.search(decoded) or not {".", ".."}.isdisjoint(segments):
        raise PathInvalid(_text(target))
    return segments


def _text(target: bytes) -> str:
    """The path for a message; the query may hold secrets and stays out."""
    return target.partition(b"?")[0].decode("ascii", "backslashreplace")
