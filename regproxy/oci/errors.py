"""The errors that a registry client can read, and their JSON form.

Codes and shape are those of the OCI distribution specification 1.1, "Error
codes"; ``UNAVAILABLE`` is one that Docker's registry adds, as the specification
allows. Whoever raises one of these says with the class which status and code the
client gets: the table is the class attributes themselves.
"""

from __future__ import annotations

import json
from http import HTTPStatus


class RegistryError(Exception):
    """An answer of this proxy that is an error.

    Attributes:
        status: the HTTP status of the answer.
        code: the code of the specification's error body.
        proxy_status: the ``error`` token for Proxy-Status (RFC 9209 section
            2.3), or None when it is upstream that says so.
        headers: further header fields of the answer.
    """

    status: int = HTTPStatus.INTERNAL_SERVER_ERROR
    code: str = "UNKNOWN"
    proxy_status: str | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.headers: dict[str, str] = {}

    def body(self) -> bytes:
        """The JSON error body."""
        return error_body(self.code, self.message)


def error_body(code: str, message: str) -> bytes:
    """The JSON body that registry clients read and print."""
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode() + b"\n"


def shown(text: str, limit: int = 80) -> str:
    """*text* as it may appear in a message: quoted, printable, at most *limit* characters."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return repr(cut)


class InternalError(RegistryError):
    """A mistake of this program."""

    proxy_status = "proxy_internal_error"

    def __init__(self, message: str = "internal error, see the log of the proxy") -> None:
        super().__init__(message)


class BadRequest(RegistryError):
    """The request is malformed."""

    status = HTTPStatus.BAD_REQUEST
    code = "UNSUPPORTED"
    proxy_status = "http_request_error"


class PreconditionFailed(BadRequest):
    """If-Match names other content (RFC 9110 section 15.5.13)."""

    status = HTTPStatus.PRECONDITION_FAILED


class RangeInvalid(BadRequest):
    """No range begins inside the content (RFC 9110 section 15.5.17).

    The code is one that Docker's registry adds.
    """

    status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
    code = "RANGE_INVALID"


class BodyTimeout(BadRequest):
    """The body of the request does not come."""

    status = HTTPStatus.REQUEST_TIMEOUT


class ContentTooLarge(BadRequest):
    """The body of the request is larger than it may be."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class HostInvalid(BadRequest):
    """Something that should be a host is none."""

    def __init__(self, text: str) -> None:
        super().__init__(
            f"invalid host {shown(text)}: give a host name or address, with a port if not 443"
        )


class NameInvalid(BadRequest):
    """A repository name breaks the grammar."""

    code = "NAME_INVALID"

    def __init__(self, text: str) -> None:
        super().__init__(
            f"invalid repository name {shown(text)}: lower-case letters, digits and single"
            " separators, at most 255 characters"
        )


class TagInvalid(BadRequest):
    """A tag breaks the grammar."""

    code = "MANIFEST_INVALID"

    def __init__(self, text: str) -> None:
        super().__init__(
            f"invalid tag {shown(text)}: letters, digits, '.', '_' and '-', at most 128 characters"
        )


class BlobDigestInvalid(BadRequest):
    """A digest breaks the grammar or uses an algorithm that cannot be verified."""

    code = "DIGEST_INVALID"

    def __init__(self, text: str) -> None:
        super().__init__(
            f"invalid digest {shown(text)}: 'sha256:' with 64 or 'sha512:' with 128 lower-case"
            " hexadecimal digits"
        )


class DigestUnsupported(BlobDigestInvalid):
    """A well-formed digest of an algorithm that this proxy cannot verify."""


class PathInvalid(BadRequest):
    """A request target that no client of a registry sends."""

    def __init__(self, text: str) -> None:
        super().__init__(f"invalid path {shown(text)}")


class Misdirected(RegistryError):
    """The request is for another host than the connection (RFC 9110 section 15.5.20)."""

    status = HTTPStatus.MISDIRECTED_REQUEST
    code = "UNSUPPORTED"
    proxy_status = "http_request_error"


class Denied(RegistryError):
    """The proxy's own rules forbid it."""

    status = HTTPStatus.FORBIDDEN
    code = "DENIED"
    proxy_status = "http_request_denied"


class MethodNotAllowed(RegistryError):
    """The method is not one for this resource."""

    status = HTTPStatus.METHOD_NOT_ALLOWED
    code = "UNSUPPORTED"
    proxy_status = "http_request_denied"


class TooManyRequests(RegistryError):
    """The upstream limits the rate of requests."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    code = "TOOMANYREQUESTS"
    proxy_status = "destination_unavailable"


class Unavailable(RegistryError):
    """Neither the store nor the upstream can answer now."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "UNAVAILABLE"
    proxy_status: str | None = "destination_unavailable"


class OwnFailure(Unavailable):
    """A disk or a file of this proxy's own fails it."""

    proxy_status = "proxy_internal_error"


class BadGateway(RegistryError):
    """The upstream's answer could not be used."""

    status = HTTPStatus.BAD_GATEWAY
    code = "UNAVAILABLE"
    proxy_status = "http_protocol_error"


class GatewayTimeout(RegistryError):
    """The upstream did not answer in time."""

    status = HTTPStatus.GATEWAY_TIMEOUT
    code = "UNAVAILABLE"
    proxy_status = "connection_timeout"
