"""The forms of a request target (RFC 9112 section 3.2). Pure."""

from __future__ import annotations

import re
from typing import Final

from attrs import frozen

from regproxy.oci.errors import BadRequest
from regproxy.oci.names import Host

_ABSOLUTE: Final = re.compile(rb"(https?)://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
# RFC 3986 section 2: all that a URI consists of.
_PRINTABLE: Final = re.compile(rb"[!-~]*")
_PORTS: Final = {"http": 80, "https": 443}


@frozen
class TargetForm:
    """A request target, taken apart.

    Attributes:
        origin_form: path and query.
        host: the authority of an absolute-form target, None for origin-form.
        scheme: of the absolute-form target, or of the connection.
    """

    origin_form: bytes
    scheme: str
    host: Host | None = None

    @property
    def path(self) -> str:
        """The path without the query, which may hold a secret."""
        return self.origin_form.partition(b"?")[0].decode("ascii")

    @property
    def default_port(self) -> int:
        """The port of a Host field that has none."""
        return _PORTS[self.scheme]


def parse_target(method: bytes, target: bytes, *, secure: bool) -> TargetForm:
    """Read a target in origin-form, absolute-form, or asterisk-form of OPTIONS.

    Args:
        secure: whether the connection is TLS.

    Raises:
        BadRequest: it is none of these, has user information, or is a CONNECT, which
            is only understood as the first request of a connection to the proxy port.
        HostInvalid: the authority is no host.
    """
    # The messages do not show the target: it may hold a secret.
    if method == b"CONNECT":
        raise BadRequest("CONNECT must be the first request on a connection to the proxy port")
    if not _PRINTABLE.fullmatch(target):
        raise BadRequest("request target is not printable ASCII (RFC 3986 section 2)")
    scheme = "https" if secure else "http"
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        return TargetForm(target, scheme)
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise BadRequest("request target is neither a path nor an http or https URL")
    if b"@" in match[2]:
        raise BadRequest("request target holds user information (RFC 9110 section 4.2.4)")
    scheme = match[1].decode().lower()
    host = Host.parse(match[2].decode(), _PORTS[scheme])
    rest = match[3]
    return TargetForm(rest if rest.startswith(b"/") else b"/" + rest, scheme, host)
