"""Through an HTTP proxy: ``CONNECT`` from the client's side (RFC 9110 section 9.3.6).

Pure: bytes in, (value, rest) out. The handshake is driven by :mod:`regproxy.upstream.handshake`.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final

from regproxy import __version__
from regproxy.oci.names import Host
from regproxy.upstream.errors import ParentProxyRefused, UpstreamTimeout, UpstreamUnreachable
from regproxy.upstream.handshake import AnswerInvalid, Handshake, Step
from regproxy.upstream.logins import Password

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?")
# A bare LF is taken as the end of a line, as RFC 9112 section 2.2 permits a recipient.
_HEAD_END: Final = re.compile(rb"\r?\n\r?\n")


def request_head(target: Host, login: Password | None) -> bytes:
    """The request for a tunnel to *target*."""
    lines = [
        f"CONNECT {target.authority} HTTP/1.1".encode("ascii"),
        f"Host: {target.authority}".encode("ascii"),
        f"User-Agent: regproxy/{__version__}".encode("ascii"),
    ]
    if login is not None:
        lines.append(b"Proxy-Authorization: " + login.authorization)
    return b"\r\n".join([*lines, b"", b""])


def parse_answer(data: bytes) -> tuple[int, bytes] | None:
    """The status of the final answer, and what is behind its head.

    What follows a 2xx is the tunnel, whatever fields the head has.

    Raises:
        AnswerInvalid: it is not HTTP/1.
    """
    while (end := _HEAD_END.search(data)) is not None:
        status = _status(data[: end.start()])
        data = data[end.end() :]
        if status >= 200:
            return status, data
    if not b"HTTP/1.".startswith(data[:7]):
        raise AnswerInvalid("answered with something that is not HTTP")
    return None


def _status(head: bytes) -> int:
    line, *_ = re.split(rb"\r?\n", head, maxsplit=1)
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise AnswerInvalid("answered with something that is not HTTP")
    return int(match[1])


def http_connect(name: str, target: Host, login: Password | None) -> Handshake:
    """Ask the proxy called *name* for a tunnel to *target*.

    Raises:
        ParentProxyRefused: it does not want to.
        UpstreamUnreachable, UpstreamTimeout: it cannot.
    """
    status: int = yield Step(request_head(target, login), parse_answer)
    if 200 <= status < 300:
        return
    match status:
        case HTTPStatus.PROXY_AUTHENTICATION_REQUIRED if login is None:
            raise ParentProxyRefused(f"{name} wants a login, and there is none for it")
        case HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            raise ParentProxyRefused(f"{name} does not accept this proxy's login")
        case HTTPStatus.GATEWAY_TIMEOUT:
            raise UpstreamTimeout(f"{name} could not reach {target.authority} in time")
        case HTTPStatus.BAD_GATEWAY | HTTPStatus.SERVICE_UNAVAILABLE:
            raise UpstreamUnreachable(
                f"{name} cannot reach {target.authority}: it answered {status}"
            )
        case _:
            raise ParentProxyRefused(
                f"{name} gives no tunnel to {target.authority}: it answered {status}"
            )
