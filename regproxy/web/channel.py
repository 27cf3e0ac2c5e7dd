"""An HTTP connection that refuses malformed heads in a registry's words, and never waits for ever.

twisted.web's idle timer is restarted by every byte, its answer to a malformed
request is an empty 400, and it keeps a request's body until all of it is there. Here a
head is read when it is whole, its request is processed at once, and the body goes to
that as it arrives.

HTTPChannel has no public place for this. The module takes the place of its LineReceiver, so
that it has to keep ``_command``, ``_path`` and ``_version``, which the parser of
lines leaves for the end of the head. It overrides the private methods with which HTTPChannel
refuses a request (``_respondToBadRequestAndDisconnect``), sends ``100 Continue``
(``_send100Continue``) and ends a body (``_finishRequestBody``), and reads the decoder of
a body (``_transferDecoder``), which it would forget when it hands the request on.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IAddress, IDelayedCall, ISSLTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, _MalformedChunkedDataError
from twisted.web.http_headers import Headers

from regproxy.oci.errors import BadRequest, error_body
from regproxy.web.deadline import Deadline

if TYPE_CHECKING:
    from regproxy.web.site import Entry, StrictRequest, StrictSite

# Seconds for which the rest of a body is read after the answer: what nginx takes.
LINGER: Final = 30.0

# nginx's name for "the client closed the connection"; there is no standard one.
CLIENT_LEFT: Final = 499

# RFC 9112 section 3, RFC 9110 section 5.6.2. What is right in a target is not looked at here.
_REQUEST_LINE: Final = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([^\x00-\x20\x7f]+) (HTTP/1\.[01])"
)


class StrictChannel(HTTPChannel):
    """An HTTPChannel with RFC 9112's refusals and an absolute deadline for each head."""

    entry: Entry
    site: StrictSite
    transport: Any
    requests: list[StrictRequest]
    requestFactory: Any
    #: A request on this connection was answered by a refusal of its head.
    refused = False
    #: The transport has more than it can send now.
    behind = False
    _closing = False
    #: Of the body that is being received.
    _decoder: Any = None
    _continue_expected = False
    #: What was received and not looked at yet.
    _received = b""
    _reading = False
    _head_begun = True
    _peer: IAddress | None = None
    _host: IAddress | None = None
    _server_name: str | None = None
    _close_deadline: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """A connection begins; its first head is due."""
        super().connectionMade()
        self.secure = ISSLTransport.providedBy(self.transport)
        #: For the next head, or for its beginning.
        self._deadline = Deadline(self.site.clock)
        self._deadline.set(self.site.limits.head, self._head_overdue)

    def isSecure(self) -> bool:
        """Whether this is TLS."""
        return self.secure

    # Of every request, and known with the first one, be there a PROXY header before it.

    def getPeer(self) -> IAddress:
        """The client's address."""
        if self._peer is None:
            self._peer = self.transport.getPeer()
        return self._peer

    def getHost(self) -> IAddress:
        """Our address."""
        if self._host is None:
            self._host = self.transport.getHost()
        return self._host

    def server_name(self) -> str | None:
        """The name in the client's TLS hello (RFC 6066 section 3), lower-case."""
        if self._server_name is None and self.secure:
            name: bytes | None = self.transport.getHandle().get_servername()
            if name is not None:
                text = name.decode("ascii", "replace")
                self._server_name = text.lower().removesuffix(".")
        return self._server_name

    def dataReceived(self, data: bytes) -> None:
        """More of requests; nothing that follows a close is read."""
        if self._closing:
            return
        self._received += data
        if self._reading:
            # By an answer that was given at once. What follows it has its turn below.
            return
        self._reading = True
        try:
            while self._received and not self._closing:
                if self.line_mode:
                    if not self._read_head():
                        break
                else:
                    data, self._received = self._received, b""
                    self.rawDataReceived(data)
        finally:
            self._reading = False

    def _read_head(self) -> bool:
        """Take the next head from what was received; False when it is not whole."""
        # RFC 9112 section 2.2: one empty line before it is skipped.
        start = 2 if self._received.startswith(b"\r\n") else 0
        end = self._received.find(b"\r\n\r\n", start)
        if (len(self._received) if end < 0 else end) - start > self.totalHeadersSize:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "request head is too large")
            return False
        if end < 0:
            if not self._head_begun:
                self._head_begun = True
                self._deadline.set(self.site.limits.head, self._head_overdue)
            return False
        self._head_begun = False
        self._deadline.cancel()
        line, *fields = self._received[start:end].split(b"\r\n")
        self._received = self._received[end + 4 :]
        match = _REQUEST_LINE.fullmatch(line)
        if match is None:
            self._respondToBadRequestAndDisconnect()
            return False
        self._command, self._path, self._version = match.groups()
        request: Any = self.requestFactory(self)
        self.requests.append(request)
        if all(map(self.headerReceived, fields)):
            self.allHeadersReceived()
            if self.length == 0:
                self.allContentReceived()
            else:
                self.setRawMode()
        return not self._closing

    def headerReceived(self, line: bytes) -> bool:
        """One field of a head; whether it is well-formed.

        Obsolete line folding is refused, as RFC 9112 section 5.2 lets a server do.
        """
        if line.startswith((b" ", b"\t")):
            self._respondToBadRequestAndDisconnect("header line begins with white space")
            return False
        try:
            return bool(super().headerReceived(line))
        except ValueError:
            # int() reads no more than 4300 digits of a Content-Length.
            self._respondToBadRequestAndDisconnect()
            return False

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
        """The head of an answer. One that does not wait for the whole body is the last.

        So is every one once the process ends: a client that goes on asking would be cut off.
        """
        if self._decoder is not None or self.site.access_log.ending:
            self.persistent = False
            headers.setRawHeaders(b"Connection", [b"close"])
        super().writeHeaders(version, code, reason, headers)

    def requestDone(self, request: StrictRequest) -> None:
        """An answer is whole."""
        self._continue_expected = False
        self._deadline.set(self.site.limits.idle, self.timeoutConnection)
        super().requestDone(request)

    def loseConnection(self) -> None:
        """Close.

        A client has its time to take what is written, but neither it nor a TLS peer that
        does not agree to the close is waited for without end.
        """
        self._closing = True
        self._deadline.end()
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
        self._deadline.end()
        if self.line_mode and not self.refused and self._received.find(b"\r\n", 2) >= 0:
            # Anything less may be a probe.
            self.site.log_refusal(self, CLIENT_LEFT, "the request did not come whole")
        if self._close_deadline is not None:
            self._close_deadline.cancel()
            self._close_deadline = None
        super().connectionLost(reason)

    def _head_overdue(self) -> None:
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
        if self._receivedHeaderCount > self.maxHeaders:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "request head is too large")
        else:
            self._refuse(HTTPStatus.BAD_REQUEST, reason)

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        if self._closing:
            return
        self.refused = True
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
