"""The first bytes of a connection to the proxy: bytes in, (opening, rest) out.

Nothing of HTTP is read here but a ``CONNECT`` and what this proxy answers to it;
any other request is recognised as such and left to the HTTP site.

The parser sees everything that came so far, each time, and keeps no state. So
it cannot matter how the network cuts the bytes: what a beginning decides, no
continuation changes.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from http import HTTPStatus
from typing import Final

from attrs import frozen

from regproxy.oci.errors import BadRequest, Misdirected, RegistryError
from regproxy.oci.names import HTTPS_PORT, Host

# What web servers commonly allow for a whole head; a CONNECT needs some 200 bytes.
HEAD_LIMIT: Final = 16 * 1024

# No Content-Length and no Transfer-Encoding: RFC 9110 section 9.3.6 forbids them.
ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"

_METHOD: Final = b"CONNECT "
# The record type "handshake" (RFC 8446 section 5.1), no character of a method.
TLS_HANDSHAKE: Final = b"\x16"

_BARE_LF = re.compile(rb"(?<!\r)\n")
_REQUEST_LINE = re.compile(rb"CONNECT ([^ ]+) HTTP/([0-9]\.[0-9])")
_FIELD = re.compile(rb"(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+):(?P<value>[\t \x21-\x7e\x80-\xff]*)")
_AUTHORITY = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?P<port>:[0-9]+)?")


class HeadTooLarge(RegistryError):
    """The request head does not end within the limit."""

    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    code = "UNSUPPORTED"

    def __init__(self) -> None:
        super().__init__(f"the request head is longer than {HEAD_LIMIT} bytes")


class HeadTimeout(RegistryError):
    """The request head did not come in time."""

    status = HTTPStatus.REQUEST_TIMEOUT
    code = "UNSUPPORTED"

    def __init__(self) -> None:
        super().__init__("the request head did not come in time")


class VersionNotSupported(RegistryError):
    """The request is neither HTTP/1.1 nor HTTP/1.0."""

    status = HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
    code = "UNSUPPORTED"

    def __init__(self) -> None:
        super().__init__("CONNECT is answered in HTTP/1.1 and HTTP/1.0 only")


@frozen
class Connect:
    """The connection opens with a valid ``CONNECT`` to *target*."""

    target: Host


class Other(Enum):
    """The connection opens with something else."""

    REQUEST = auto()
    """Another method, or no HTTP at all: the HTTP site's to answer."""
    TLS = auto()
    """A TLS handshake: the client takes this port for a TLS one."""


Opening = Connect | Other


def parse(data: bytes) -> tuple[Opening, bytes] | None:
    """Read how a connection opens.

    Lines end with CR LF; a bare LF in the head of a CONNECT is refused, as RFC
    9112 section 2.2 permits. One empty line before the request is skipped, as
    the same section asks.

    Args:
        data: everything received so far.

    Returns:
        The opening, and the bytes for whoever goes on: all of *data* for an
        :class:`Other`, what follows the head for a :class:`Connect`. None
        while *data* may still become either.

    Raises:
        RegistryError: a CONNECT that is malformed, too large, or for two hosts.
    """
    if data.startswith(TLS_HANDSHAKE):
        return Other.TLS, data
    if data == b"\r":
        return None
    request = data.removeprefix(b"\r\n")
    beginning = request[: len(_METHOD)]
    if not _METHOD.startswith(beginning):
        return Other.REQUEST, data
    if len(beginning) < len(_METHOD):
        return None
    end = request.find(b"\r\n\r\n", 0, HEAD_LIMIT)
    if _BARE_LF.search(request, 0, HEAD_LIMIT if end < 0 else end):
        raise BadRequest("the lines of a request head end with CR LF")
    if end >= 0:
        return Connect(_parse_head(request[:end])), request[end + 4 :]
    if len(request) >= HEAD_LIMIT:
        raise HeadTooLarge()
    return None


def _parse_head(head: bytes) -> Host:
    """Read the target from a whole head, without the empty line that ends it."""
    request_line, *field_lines = head.split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(request_line)
    if match is None:
        raise BadRequest("the request line is not CONNECT HOST:PORT HTTP/1.1")
    authority, version = match.groups()
    if version not in (b"1.0", b"1.1"):
        raise VersionNotSupported()
    target = _parse_authority(authority, default_port=None)
    fields = [_parse_field(line) for line in field_lines]
    _refuse_content(fields)
    hosts = [value for name, value in fields if name == b"host"]
    if len(hosts) > 1 or (not hosts and version == b"1.1"):
        # RFC 9112 section 3.2.
        raise BadRequest("a request has exactly one Host field")
    if hosts and _parse_authority(hosts[0], default_port=HTTPS_PORT) != target:
        raise Misdirected(f"CONNECT is to {target.authority}, the Host field names another")
    return target


def _parse_authority(text: bytes, default_port: int | None) -> Host:
    """Read ``host:port``; the port may be left out if there is a default.

    Text that has not the form of one is not repeated in the message: it might be
    ``user:password@host``.
    """
    authority = text.decode("latin-1")
    match = _AUTHORITY.fullmatch(authority)
    if match is None or (match["port"] is None and default_port is None):
        # RFC 9112 section 3.2.3: there is no default port for CONNECT.
        raise BadRequest("the target of CONNECT and its Host field have the form HOST:PORT")
    return Host.parse(authority, default_port or HTTPS_PORT)


def _parse_field(line: bytes) -> tuple[bytes, bytes]:
    """Read a field line into lower-case name and value.

    A line that begins with white space continues the one before it (obs-fold);
    a server may refuse that (RFC 9112 section 5.2), and this one does.
    """
    match = _FIELD.fullmatch(line)
    if match is None:
        raise BadRequest("a line of the request head is not NAME: VALUE")
    return match["name"].lower(), match["value"].strip(b" \t")


def _refuse_content(fields: list[tuple[bytes, bytes]]) -> None:
    """What follows a CONNECT belongs to the tunnel (RFC 9110 section 9.3.6)."""
    for name, value in fields:
        if name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
            raise BadRequest("CONNECT has no content")


def render_refusal(error: RegistryError) -> bytes:
    """The whole response that tells a client of *error*, after which the connection closes."""
    body = error.body()
    fields = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        **error.headers,
    }
    if error.proxy_status is not None:
        fields["Proxy-Status"] = f"regproxy; error={error.proxy_status}"
    lines = [f"HTTP/1.1 {error.status:d} {HTTPStatus(error.status).phrase}"]
    lines += (f"{name}: {value}" for name, value in fields.items())
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body
