"""What can go wrong on the way to an upstream, and in its answer.

The messages are for people: they name the host and the cause, never a path's
query, a credential or a token.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Final

from OpenSSL import SSL
from twisted.internet.defer import CancelledError
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionClosed,
    DNSLookupError,
)
from twisted.web.client import (
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
    ResponseNeverReceived,
)


class UpstreamError(Exception):
    """No usable answer came from an upstream.

    Attributes:
        message: the cause, in words that may be shown to a client.
        reason: the kind of cause, in a word, for counters.
    """

    reason: ClassVar = "other"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class UpstreamUnreachable(UpstreamError):
    """The name does not resolve, nothing answers there, or the service says it is unavailable."""

    reason = "unreachable"


class NameUnresolved(UpstreamUnreachable):
    """The name has no address."""

    reason = "unresolved"


class ParentProxyRefused(UpstreamUnreachable):
    """The parent proxy does not accept the login, or its rules forbid the connection."""

    reason = "parent-proxy"


class UpstreamTimeout(UpstreamError):
    """No connection, no response head, or no further byte of a body came in time."""

    reason = "timeout"


class UpstreamTLSFailed(UpstreamError):
    """The TLS handshake failed, above all because the certificate was not accepted."""

    reason = "tls"


class UpstreamBroken(UpstreamError):
    """The connection broke before the response head, or the answer is not HTTP."""

    reason = "broken"


class ResponseHeadTooLarge(UpstreamError):
    """The response head exceeds its limit, or too many interim responses came before it."""

    reason = "head-too-large"


class AddressRefused(UpstreamError):
    """The host leads to an address that this proxy does not dial."""

    reason = "address"


class RedirectRefused(UpstreamError):
    """A redirect that is not followed: too many, a circle, to plain HTTP, or malformed."""

    reason = "redirect"


class UpstreamLoginFailed(UpstreamError):
    """The registry or its token service did not accept this proxy's credentials.

    Attributes:
        status: the status that the refusal came with; None when no request was
            made because the credentials must not go where they were asked for.
    """

    reason = "login"

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class RateLimited(UpstreamError):
    """The registry limits the rate of requests, and is not asked for now.

    Attributes:
        retry_after: seconds until it may be.
    """

    reason = "rate-limited"

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class BodyTooLarge(UpstreamError):
    """A body exceeds the limit of its reader."""

    reason = "too-large"


class BodyIncomplete(UpstreamError):
    """A body ended before its length."""

    reason = "incomplete"


_WRAPPERS: Final = (
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
    ResponseNeverReceived,
)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """*error* and everything that Twisted's HTTP client has wrapped in it."""
    yield error
    if isinstance(error, _WRAPPERS):
        for reason in error.reasons:
            yield from _causes(reason.value)


def _tls_reason(error: SSL.Error) -> str:
    """What OpenSSL or our own check of the certificate said, without the codes around it."""
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return ", ".join(str(entry[-1]) for entry in queue) or "handshake failed"


# What a request to Twisted's client may fail with, for an ``except`` clause.
REQUEST_ERRORS: Final = (
    UpstreamError,
    *_WRAPPERS,
    SSL.Error,
    ConnectError,
    ConnectingCancelledError,
    ConnectionClosed,
    DNSLookupError,
)


def translated(error: Exception, host: str) -> UpstreamError:
    """*error* of Twisted's HTTP client as one of this module's.

    Raises:
        CancelledError: the request was cancelled; that is no failure of the upstream.
    """
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, (CancelledError, ConnectingCancelledError)):
            raise CancelledError
        if isinstance(cause, UpstreamError):
            return cause
    for cause in causes:
        if isinstance(cause, SSL.Error):
            return UpstreamTLSFailed(f"TLS with {host} failed: {_tls_reason(cause)}")
        if isinstance(cause, (ConnectError, DNSLookupError)):
            return UpstreamUnreachable(f"cannot connect to {host}: {cause}")
    if isinstance(error, RequestGenerationFailed):
        return UpstreamBroken(f"the request to {host} broke off before it was sent")
    if any(isinstance(cause, ConnectionClosed) for cause in causes):
        return UpstreamBroken(f"{host} closed the connection before it answered")
    return UpstreamBroken(f"{host} answered with something that is not HTTP")
