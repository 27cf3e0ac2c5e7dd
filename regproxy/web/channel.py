"""An HTTP connection that refuses malformed heads in a registry's words, and never waits for ever.

twisted.web's idle timer is restarted by every byte, its answer to a malformed
request is an empty 400, and it keeps a request's body until all of it is there. Here a
request is processed when its head is whole, and its body goes to it as it arrives.

HTTPChannel has no public place for this. The module overrides the private methods with
which it refuses a request (``_respondToBadRequestAndDisconnect``), sends ``100 Continue``
(``_send100Continue``) and ends a body (``_finishRequestBody``), and reads the decoder of
a body (``_transferDecoder``), which it would forget when it hands the request on.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, _MalformedChunkedDataError
from twisted.web.http_headers import Headers

from regproxy.oci.errors import BadRequest, error_body

if TYPE_CHECKING:
    from regproxy.web.site import Entry, StrictRequest, StrictSite

# Seconds for which the rest of a body is read after the answer: what nginx takes.
LINGER: Final = 30.0


class StrictChannel(HTTPChannel):
    """An HTTPChannel with RFC 9112's refusals and an absolute deadline for each head."""

    entry: Entry
    site: StrictSite
    transport: Any
    requests: list[StrictRequest]
    #: A request on this connection was answered by a refusal of its head.
    refused = False
    #: The transport has more than it can send now.
    behind = False
    _closing = False
    #: Of the body that is being received.
    _decoder: Any = None
    _continue_expected = False
    _head_deadline: IDelayedCall | None = None
    _close_deadline: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """A connection begins; its first head is due."""
        super().connectionMade()
        self._expect_head()

    def dataReceived(self, data: bytes) -> None:
        """More of a request; nothing that follows a close is read."""
        if self._closing:
            return
        super().dataReceived(data)
        if self.line_mode and self._buffer and self._head_deadline is None and not self._closing:
            self._expect_head()

    def lineReceived(self, line: bytes) -> None:
        """One line of a head.

        Obsolete line folding is refused, as RFC 9112 section 5.2 lets a server do.
        """
        if self._closing:
            return
        if self._head_deadline is None:
            self._expect_head()
        if line[:1] in (b" ", b"\t"):
            self._respondToBadRequestAndDisconnect("header line begins with white space")
            return
        super().lineReceived(line)

    def headerReceived(self, line: bytes) -> bool:
        """One field of a head; whether it is well-formed."""
        try:
            return bool(super().headerReceived(line))
        except ValueError:
            # int() reads no more than 4300 digits of a Content-Length.
            self._respondToBadRequestAndDisconnect()
            return False

    def allHeadersReceived(self) -> None:
        """A head is whole: its deadline is met."""
        self._cancel_head_deadline()
        super().allHeadersReceived()

    def setRawMode(self) -> None:
        """What comes now are no lines: a body, or what follows a request that is being answered."""
        super().setRawMode()
        if self.length != 0 and not self._closing:
            self._decoder = self._transferDecoder
            # It is not, but everything that this does is due now.
            self.allContentReceived()

    def rawDataReceived(self, data: bytes) -> None:
        """More of a body, or of what follows a request that is being answered."""
        if self._closing:
            return
        if self._decoder is None:
            super().rawDataReceived(data)
            return
        try:
            self._decoder.dataReceived(data)
        except _MalformedChunkedDataError as error:
            self.requests[0].give_up(BadRequest(f"malformed body: {error}"))

    def send_continue(self) -> None:
        """The body is wanted: say so to a client that waits for it (RFC 9110 section 10.1.1)."""
        if self._continue_expected:
            self._continue_expected = False
            super()._send100Continue()

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """The head of an answer. One that does not wait for the whole body is the last."""
        if self._decoder is not None:
            self.persistent = False
            headers.setRawHeaders(b"Connection", [b"close"])
        super().writeHeaders(version, code, reason, headers)

    def requestDone(self, request: StrictRequest) -> None:
        """An answer is whole."""
        self._continue_expected = False
        super().requestDone(request)

    def lineLengthExceeded(self, line: bytes) -> None:
        """One line of a head is longer than all of it may be."""
        self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "request head is too large")

    def timeoutConnection(self) -> None:
        """Idle for too long."""
        self._cancel_head_deadline()
        super().timeoutConnection()

    def loseConnection(self) -> None:
        """Close.

        A client has its time to take what is written, but neither it nor a TLS peer that
        does not agree to the close is waited for without end.
        """
        self._closing = True
        if self._decoder is None:
            self._abort_within(self.site.limits.stall)
            super().loseConnection()
        else:
            self._linger()

    def pauseProducing(self) -> None:
        """The transport is behind."""
        self.behind = True
        super().pauseProducing()

    def resumeProducing(self) -> None:
        """The transport has caught up."""
        self.behind = False
        super().resumeProducing()

    def divert(self) -> None:
        """Leave the transport to another producer, until :meth:`rejoin`."""
        self.transport.unregisterProducer()

    def rejoin(self) -> None:
        """Be the transport's producer again."""
        self.transport.registerProducer(self, True)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone."""
        self._cancel_head_deadline()
        if self._close_deadline is not None:
            self._close_deadline.cancel()
            self._close_deadline = None
        super().connectionLost(reason)

    def _expect_head(self) -> None:
        self._head_deadline = self.site.clock.callLater(self.site.limits.head, self._head_overdue)

    def _cancel_head_deadline(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None

    def _head_overdue(self) -> None:
        self._head_deadline = None
        self._refuse(HTTPStatus.REQUEST_TIMEOUT, "request head did not come in time")

    def _linger(self) -> None:
        """Close our side only, and read on.

        To close with bytes unread is to reset the connection, and that may take the answer
        away from a client that is still sending (RFC 9112 section 9.6).
        """
        self._abort_within(LINGER)
        if self.isSecure():
            # TLS reads on by itself, until the peer agrees to the close.
            super().loseConnection()
        else:
            self.transport.unregisterProducer()
            self.transport.loseWriteConnection()

    def _abort_within(self, seconds: float) -> None:
        if self._close_deadline is None:
            self._close_deadline = self.site.clock.callLater(seconds, self._abort)

    def _abort(self) -> None:
        self._close_deadline = None
        self.transport.abortConnection()

    def _send100Continue(self) -> None:
        # Not before somebody wants the body.
        self._continue_expected = True

    def _finishRequestBody(self, data: bytes) -> None:
        self._decoder = None
        if self._closing:
            return
        if data:
            super().rawDataReceived(data)
        self.requests[0].body_received()

    def _respondToBadRequestAndDisconnect(self, reason: str = "malformed request") -> None:
        if self._receivedHeaderSize > self.totalHeadersSize or (
            self._receivedHeaderCount > self.maxHeaders
        ):
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "request head is too large")
        else:
            self._refuse(HTTPStatus.BAD_REQUEST, reason)

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        if self._closing:
            return
        self.refused = True
        self._cancel_head_deadline()
        body = error_body(BadRequest.code, reason)
        proxy_status = f"Proxy-Status: regproxy; error={BadRequest.proxy_status}\r\n"
        self.transport.writeSequence(
            [
                f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode(),
                b"Content-Type: application/json\r\nConnection: close\r\n",
                proxy_status.encode(),
                f"Content-Length: {len(body)}\r\n\r\n".encode(),
                body,
            ]
        )
        self.site.log_refusal(self, status, reason)
        self._abort_within(self.abortTimeout)
        self.loseConnection()
