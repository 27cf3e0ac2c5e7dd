"""Status and header fields of the answers: what a client reads before the bytes."""

from __future__ import annotations

from http import HTTPStatus

from twisted.web.http_headers import Headers

from regproxy.config.model import RegistrySection
from regproxy.oci.conditional import etag_of, match_failed, none_match
from regproxy.oci.errors import PreconditionFailed, RangeInvalid
from regproxy.oci.mirror import lead_back, links_lead_back
from regproxy.oci.names import Digest, Host
from regproxy.oci.ranges import (
    Satisfiable,
    Unsatisfiable,
    content_range,
    if_range_matches,
    parse_range,
    unsatisfied_range,
)
from regproxy.registry.ask import Content, Description
from regproxy.web.site import StrictRequest


def describe_content(request: StrictRequest, content: Content) -> tuple[int, int | None] | None:
    """Set status and fields for *content*; which bytes to send, or None for none.

    The bytes are given as start and exclusive end; an end of None is wherever the
    content will turn out to end. A range of content whose length is not known yet is
    ignored, as RFC 9110 section 14.2 allows.

    Raises:
        PreconditionFailed: the client wants other content.
        RangeInvalid: it wants a part that is not there.
    """
    blob = content.blob
    etag = _identify(request, content.media_type, blob.digest)
    if content.age is not None:
        request.setHeader(b"Age", b"%d" % max(0, content.age))
    if content.warning is not None:
        request.setHeader(b"Warning", _warning(content.warning))
    fields = request.requestHeaders
    if match_failed(fields.getRawHeaders(b"if-match", []), etag):
        raise PreconditionFailed(f"this is {blob.digest}, which If-Match does not name")
    if none_match(fields.getRawHeaders(b"if-none-match", []), etag):
        request.setResponseCode(HTTPStatus.NOT_MODIFIED)
        return None
    size = blob.size
    start, end = 0, size
    if size is not None and request.method == b"GET":
        (range_field,) = fields.getRawHeaders(b"range", [None])[:1]
        (condition,) = fields.getRawHeaders(b"if-range", [None])[:1]
        if range_field is not None and if_range_matches(condition, etag):
            match parse_range(range_field, size):
                case Satisfiable(ranges=((start, end),)):
                    request.setResponseCode(HTTPStatus.PARTIAL_CONTENT)
                    request.setHeader(b"Content-Range", content_range(start, end, size))
                case Unsatisfiable():
                    error = RangeInvalid(f"no such range in {size} bytes")
                    error.headers["Content-Range"] = unsatisfied_range(size).decode()
                    raise error
                case _:
                    start, end = 0, size
    if end is not None:
        request.setHeader(b"Content-Length", b"%d" % (end - start))
    return None if request.method == b"HEAD" else (start, end)


def describe(request: StrictRequest, description: Description) -> None:
    """Set the fields for content that is not here, as upstream described it."""
    if description.digest is not None:
        _identify(request, description.media_type, description.digest)
    if description.size is not None:
        request.setHeader(b"Content-Length", b"%d" % description.size)
    fields = request.requestHeaders.getRawHeaders(b"if-none-match", [])
    if description.digest is not None and none_match(fields, etag_of(description.digest)):
        request.setResponseCode(HTTPStatus.NOT_MODIFIED)
        request.responseHeaders.removeHeader(b"content-length")


def local_location(headers: Headers, section: RegistrySection) -> None:
    """Make a Location that leads to the upstream's own address lead back through here.

    An upload's location is the registry's own choice (distribution specification,
    "Pushing a blob in chunks"); where it is absolute it names the address that this
    proxy dialled, which may not be the registry's name. Relative, it stays on the
    connection it came by (RFC 9110 section 10.2.2).
    """
    for value in headers.getRawHeaders(b"location", []):
        for base in section.upstream:
            origin = base.rstrip("/").encode()
            if value.startswith(origin + b"/"):
                headers.setRawHeaders(b"location", [value[len(origin) :]])


def mirror_references(headers: Headers, host: Host, section: RegistrySection) -> None:
    """Make a Location and Links that lead to the registry *host* lead there by the mirror.

    A list goes on behind a Link (distribution specification, "Content Discovery").
    """
    origins = [base.rstrip("/").encode() for base in (f"https://{host}", *section.upstream)]
    for name, lead in (b"location", lead_back), (b"link", links_lead_back):
        if values := headers.getRawHeaders(name):
            headers.setRawHeaders(name, [lead(value, origins, host) for value in values])


def _identify(request: StrictRequest, media_type: str, digest: Digest) -> bytes:
    etag = etag_of(digest)
    request.setHeader(b"Content-Type", media_type.encode("latin-1", "replace"))
    request.setHeader(b"Docker-Content-Digest", str(digest).encode())
    request.setHeader(b"Docker-Distribution-Api-Version", b"registry/2.0")
    request.setHeader(b"ETag", etag)
    request.setHeader(b"Accept-Ranges", b"bytes")
    return etag


def _warning(text: str) -> bytes:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'299 - "{quoted}"'.encode("latin-1", "replace")
