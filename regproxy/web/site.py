"""HTTP sites that refuse what no honest client sends, and never wait for ever.

twisted.web accepts several things that RFC 9110 and RFC 9112 tell a proxy to refuse,
and its idle timer is restarted by every byte. This module closes both gaps for
every site of the appliance. It overrides one private method of HTTPChannel, the one
that answers a malformed request: there is no public place for it.
"""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Any, Final

from attrs import frozen
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    IReactorTime,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource
from twisted.web.server import Request, Site
from zope.interface import implementer

from regproxy.oci.errors import BadRequest, RegistryError, error_body
from regproxy.oci.names import Host
from regproxy.web.access_log import AccessLog, AccessRecord
from regproxy.web.target import TargetForm, parse_target

# nginx's name for "the client closed the connection"; there is no standard one.
CLIENT_LEFT: Final = 499


@frozen
class Entry:
    """How a connection came in.

    Attributes:
        way: the listener's name, for logs: ``connect``, ``tls``, ``proxy``, ``management``.
        host: the host that the connection is for, when the way in says so.
        impersonated: the TLS of the connection was meant for the registry, so that
            its SNI has to agree with the request.
    """

    way: str
    host: Host | None = None
    impersonated: bool = False


@frozen
class Limits:
    """Bounds on a client, in seconds: for one request's head, between requests, and
    for a response that it does not read."""

    head: float
    idle: float
    stall: float


class StrictChannel(HTTPChannel):
    """An HTTPChannel with RFC 9112's refusals and an absolute deadline for each head."""

    entry: Entry
    site: StrictSite
    _head_deadline: IDelayedCall | None = None
    _close_deadline: IDelayedCall | None = None
    _refused = False

    def connectionMade(self) -> None:
        """A connection begins; its first head is due."""
        super().connectionMade()
        self._expect_head()

    def lineReceived(self, line: bytes) -> None:
        """One line of a head.

        Obsolete line folding is refused, as RFC 9112 section 5.2 lets a server do.
        """
        if self._refused:
            return
        if self._head_deadline is None:
            self._expect_head()
        if line[:1] in (b" ", b"\t"):
            self._respondToBadRequestAndDisconnect("header line begins with white space")
            return
        super().lineReceived(line)

    def allHeadersReceived(self) -> None:
        """A head is whole: its deadline is met."""
        self._cancel_head_deadline()
        super().allHeadersReceived()

    def lineLengthExceeded(self, line: bytes) -> None:
        """One line of a head is longer than all of it may be."""
        self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "request head is too large")

    def timeoutConnection(self) -> None:
        """Idle for too long."""
        self._cancel_head_deadline()
        super().timeoutConnection()

    def loseConnection(self) -> None:
        """Close, and do not wait for ever for a TLS peer to agree."""
        if self._close_deadline is None and self.abortTimeout is not None:
            self._close_deadline = self.site.clock.callLater(self.abortTimeout, self._abort)
        super().loseConnection()

    def connectionLost(self, reason: Failure) -> None:
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

    def _abort(self) -> None:
        self._close_deadline = None
        self.forceAbortClient()

    def _respondToBadRequestAndDisconnect(self, reason: str = "malformed request") -> None:
        if self._receivedHeaderSize > self.totalHeadersSize or (
            self._receivedHeaderCount > self.maxHeaders
        ):
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "request head is too large")
        else:
            self._refuse(HTTPStatus.BAD_REQUEST, reason)

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        if self._refused:
            return
        self._refused = True
        self._cancel_head_deadline()
        body = error_body(BadRequest.code, reason)
        self.transport.writeSequence(
            [
                f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode(),
                b"Content-Type: application/json\r\nConnection: close\r\n",
                f"Content-Length: {len(body)}\r\n\r\n".encode(),
                body,
            ]
        )
        self.site.log_refusal(self, status, reason)
        self.loseConnection()


class StrictRequest(Request):
    """A request whose head has been checked, and which is logged once.

    Whoever answers sets what the log line shall say by :meth:`note`.
    """

    channel: StrictChannel
    site: StrictSite
    entry: Entry
    form: TargetForm
    authority: Host | None
    # twisted.web would call everything without a type text/html.
    defaultContentType = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._begun = time.time()
        self._begun_monotonic = time.monotonic()
        self._notes: dict[str, str | None] = {}
        self._logged = False

    def note(self, **fields: str | None) -> None:
        """Fields of this request's AccessRecord: registry, repository, reference, cache, reason."""
        self._notes.update(fields)

    def process(self) -> None:
        """Check the head, then have the site's resource answer.

        Sets ``form``, the target, and ``authority``, the host that the request is for
        (None only on HTTP/1.0).
        """
        self.entry = self.channel.entry
        try:
            self.form = parse_target(self.method, self.uri, secure=self.isSecure())
            self.authority = check_head(self)
        except RegistryError as error:
            self.channel.persistent = False
            self.setHeader(b"Connection", b"close")
            self.answer_error(error)
            return
        super().process()

    def answer_error(self, error: RegistryError) -> None:
        """Answer with an error of this proxy's own."""
        self.note(reason=error.message)
        body = error.body()
        self.setResponseCode(error.status)
        self.setHeader(b"Content-Type", b"application/json")
        self.setHeader(b"Content-Length", str(len(body)).encode())
        if error.proxy_status is not None:
            self.setHeader(b"Proxy-Status", f"regproxy; error={error.proxy_status}".encode())
        for name, value in error.headers.items():
            self.setHeader(name.encode(), value.encode("latin-1", "replace"))
        self.write(body)
        self.finish()

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """Have *producer* paused while the client is behind, but not for ever."""
        self._stall = _StallWatch(producer, self)
        super().registerProducer(self._stall, streaming)

    def unregisterProducer(self) -> None:
        """The body is over."""
        self._stall.stop()
        # After a disconnect there is nothing left to unregister from.
        if self.channel is not None:
            super().unregisterProducer()

    def cut(self, reason: str) -> None:
        """End the connection in the middle of an answer, so that the client knows."""
        self.note(reason=reason)
        self._log_once(self.code)
        if self.channel is not None:
            self.channel.transport.abortConnection()

    def server_name(self) -> str | None:
        """The name in the client's TLS hello (RFC 6066 section 3), lower-case."""
        if not self.isSecure():
            return None
        name: bytes | None = self.channel.transport.getHandle().get_servername()
        return None if name is None else name.decode("ascii", "replace").lower().removesuffix(".")

    def finish(self) -> None:
        """The answer is whole."""
        super().finish()
        self._log_once(self.code)

    def connectionLost(self, reason: Failure) -> None:
        """The client left, or was cut off, before the answer was whole."""
        self._log_once(CLIENT_LEFT)
        super().connectionLost(reason)

    def _log_once(self, status: int) -> None:
        if self._logged:
            return
        self._logged = True
        notes = self._notes
        self.site.access_log.record(
            AccessRecord(
                time=self._begun,
                client=client_of(self),
                way=self.entry.way,
                method=self.method.decode("ascii", "replace"),
                registry=notes.get("registry"),
                repository=notes.get("repository"),
                reference=notes.get("reference", self.path.decode("ascii", "backslashreplace")),
                status=status,
                bytes=self.sentLength,
                duration=time.monotonic() - self._begun_monotonic,
                cache=notes.get("cache") or "none",
                reason=notes.get("reason"),
            )
        )


@implementer(IPushProducer)
class _StallWatch:
    """A producer whose request is cut off when the client takes nothing for too long."""

    def __init__(self, producer: IPushProducer, request: StrictRequest) -> None:
        self._producer = producer
        self._request = request
        self._deadline: IDelayedCall | None = None

    def pauseProducing(self) -> None:
        """The client is behind: its time runs."""
        site = self._request.site
        if self._deadline is None:
            self._deadline = site.clock.callLater(site.limits.stall, self._expired)
        self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        """The client took something."""
        self.stop()
        self._producer.resumeProducing()

    def stopProducing(self) -> None:
        """The client is gone."""
        self.stop()
        self._producer.stopProducing()

    def stop(self) -> None:
        """Time does not run any more."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expired(self) -> None:
        self._deadline = None
        self._request.cut("client took nothing for too long")


def check_head(request: StrictRequest) -> Host | None:
    """Refuse what twisted.web's parser lets through; the host that the request is for.

    Raises:
        BadRequest: no Host or several (RFC 9112 section 3.2), Transfer-Encoding on
            HTTP/1.0 (section 6.1), or an absolute-form target that differs from Host.
        HostInvalid: Host is no host.
    """
    hosts = request.requestHeaders.getRawHeaders(b"host", [])
    if request.clientproto not in (b"HTTP/1.0", b"HTTP/1.1"):
        raise BadRequest("only HTTP/1.0 and HTTP/1.1 are spoken here")
    old = request.clientproto == b"HTTP/1.0"
    if len(hosts) > 1 or (not hosts and not old):
        raise BadRequest(f"{len(hosts)} Host header fields where there must be one")
    if old and request.requestHeaders.hasHeader(b"transfer-encoding"):
        raise BadRequest("Transfer-Encoding needs HTTP/1.1")
    form = request.form
    if not hosts:
        return form.host
    host = Host.parse(hosts[0].decode("ascii", "replace"), form.default_port)
    if form.host is not None and form.host != host:
        raise BadRequest(f"the target is for {form.host}, the Host header field for {host}")
    return host


def client_of(request: Request) -> str:
    """The client's address as text, without its port."""
    return str(getattr(request.getClientAddress(), "host", "") or "local")


class StrictSite(Site):
    """A site of strict channels.

    Args:
        resource: what answers.
        entry: how connections come in that do not say more.
        clock: for the deadlines.
        access_log: told of every request.
    """

    protocol = StrictChannel
    _log = Logger()

    def __init__(
        self,
        resource: IResource,
        entry: Entry,
        limits: Limits,
        clock: IReactorTime,
        access_log: AccessLog,
    ) -> None:
        super().__init__(resource, requestFactory=StrictRequest, timeout=limits.idle, reactor=clock)
        self.entry = entry
        self.limits = limits
        self.clock = clock
        self.access_log = access_log

    def buildProtocol(self, addr: IAddress) -> StrictChannel:
        """A channel for a connection from *addr*."""
        channel = super().buildProtocol(addr)
        channel.entry = self.entry
        return channel

    def entered_by(self, entry: Entry) -> IProtocolFactory:
        """A factory of channels of this site that came in by *entry*."""
        return _Entrance(self, entry)

    def startFactory(self) -> None:
        """Nothing: there is no log file, and no clock to keep for one."""

    def stopFactory(self) -> None:
        """Nothing: see startFactory."""

    def log(self, request: Request) -> None:
        """Nothing: the request itself writes the access log, at its real end."""

    def log_refusal(self, channel: StrictChannel, status: HTTPStatus, reason: str) -> None:
        """Log a request that never became one."""
        peer = channel.transport.getPeer()
        self.access_log.record(
            AccessRecord(
                time=time.time(),
                client=str(getattr(peer, "host", "") or "local"),
                way=channel.entry.way,
                method="",
                registry=None if channel.entry.host is None else str(channel.entry.host),
                repository=None,
                reference=None,
                status=status.value,
                bytes=0,
                duration=0.0,
                cache="none",
                reason=reason,
            )
        )


@implementer(IProtocolFactory)
class _Entrance:
    """A site's factory for connections whose way in is known."""

    def __init__(self, site: StrictSite, entry: Entry) -> None:
        self._site = site
        self._entry = entry

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        channel = self._site.buildProtocol(addr)
        channel.entry = self._entry
        return channel

    def doStart(self) -> None:
        """Nothing: the site is started by its own listener."""

    def doStop(self) -> None:
        """Nothing: see doStart."""
