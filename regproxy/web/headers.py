"""Which header fields cross the proxy."""

from __future__ import annotations

from typing import Final

from twisted.web.http_headers import Headers

# RFC 9110 section 7.6.1: fields about the connection, not the message.
_HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# Set anew for the way out: the target, the credentials and the length of what is
# sent. Accept-Encoding is left out because a coded body has another digest.
_OWN_TO_REQUEST: Final = frozenset(
    {b"host", b"authorization", b"content-length", b"accept-encoding", b"expect", b"cookie"}
)


def field_text(headers: Headers, name: str) -> str | None:
    """The value of the field *name*, those of several as one (RFC 9110 section 5.3), or None.

    Each byte is a character: a client may send any, and twisted.web raises for what is no UTF-8.
    """
    values = headers.getRawHeaders(name.encode())
    return None if values is None else b", ".join(values).decode("latin-1")


def request_headers(headers: Headers) -> Headers:
    """The fields of a client's request that go upstream."""
    return _without(headers, _HOP_BY_HOP | _OWN_TO_REQUEST)


def relayed_headers(headers: Headers) -> Headers:
    """The fields of a request that is only relayed: all that are about the message.

    Host, Content-Length and Expect are set anew, as the target and the body are.
    """
    return _without(headers, _HOP_BY_HOP | {b"host", b"content-length", b"expect"})


def response_headers(headers: Headers) -> Headers:
    """The fields of an upstream's answer that go to the client.

    Date and Server are kept: they are the origin's.
    """
    return _without(headers, _HOP_BY_HOP)


def _without(headers: Headers, dropped: frozenset[bytes]) -> Headers:
    named = {
        token.strip().lower()
        for value in headers.getRawHeaders(b"connection", [])
        for token in value.split(b",")
    }
    kept = Headers()
    for name, values in headers.getAllRawHeaders():
        if name.lower() not in dropped and name.lower() not in named:
            kept.setRawHeaders(name, values)
    return kept
