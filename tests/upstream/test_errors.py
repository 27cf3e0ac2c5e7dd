"""Tests for :mod:`regproxy.upstream.errors`."""

from __future__ import annotations

from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError
from twisted.internet.error import (
    ConnectingCancelledError,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    DNSLookupError,
)
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import (
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
    ResponseNeverReceived,
)

from regproxy.upstream.errors import (
    REQUEST_ERRORS,
    UpstreamBroken,
    UpstreamError,
    UpstreamTimeout,
    UpstreamTLSFailed,
    UpstreamUnreachable,
    translated,
)


class TranslatedTests(SynchronousTestCase):
    """:func:`translated`."""

    def check(self, error: Exception, kind: type[UpstreamError], message: str) -> None:
        self.assertIsInstance(error, REQUEST_ERRORS)
        result = translated(error, "a.test")
        self.assertIs(type(result), kind)
        self.assertEqual(result.message, message)
        self.assertEqual(str(result), message)

    def test_closed(self) -> None:
        """However deep Twisted has wrapped it."""
        closed = "a.test closed the connection before it answered"
        for reason in (ConnectionDone(), ConnectionLost()):
            for wrapper in (ResponseNeverReceived, ResponseFailed, RequestTransmissionFailed):
                self.check(wrapper([Failure(reason)]), UpstreamBroken, closed)
        nested = ResponseFailed([Failure(ResponseNeverReceived([Failure(ConnectionLost())]))])
        self.check(nested, UpstreamBroken, closed)

    def test_not_http(self) -> None:
        self.check(
            ResponseFailed([Failure(ValueError("secret"))]),
            UpstreamBroken,
            "a.test answered with something that is not HTTP",
        )

    def test_request_broke_off(self) -> None:
        """The fault of whoever sent the body."""
        self.check(
            RequestGenerationFailed([Failure(ValueError("secret"))]),
            UpstreamBroken,
            "the request to a.test broke off before it was sent",
        )

    def test_tls(self) -> None:
        """OpenSSL's words, without its codes."""
        error = SSL.Error([("SSL routines", "", "certificate verify failed")])
        expected = "TLS with a.test failed: certificate verify failed"
        self.check(error, UpstreamTLSFailed, expected)
        self.check(ResponseNeverReceived([Failure(error)]), UpstreamTLSFailed, expected)
        bare = "TLS with a.test failed: handshake failed"
        self.check(SSL.Error(), UpstreamTLSFailed, bare)
        self.check(SSL.Error([]), UpstreamTLSFailed, bare)

    def test_unreachable(self) -> None:
        self.check(
            ConnectionRefusedError(),
            UpstreamUnreachable,
            "cannot connect to a.test: Connection was refused by other side.",
        )
        self.check(
            DNSLookupError("no such name"),
            UpstreamUnreachable,
            "cannot connect to a.test: DNS lookup failed: no such name.",
        )

    def test_own(self) -> None:
        """What is translated already stays."""
        own = UpstreamTimeout("too slow")
        self.assertIs(translated(own, "a.test"), own)
        self.assertIs(translated(ResponseFailed([Failure(own)]), "a.test"), own)

    def test_cancelled(self) -> None:
        """A cancellation is no failure of the upstream."""
        connecting = ConnectingCancelledError(IPv4Address("TCP", "8.8.8.8", 443))
        for error in (
            CancelledError(),
            connecting,
            ResponseNeverReceived([Failure(CancelledError())]),
            ResponseNeverReceived([Failure(ConnectionLost()), Failure(CancelledError())]),
        ):
            self.assertRaises(CancelledError, translated, error, "a.test")
