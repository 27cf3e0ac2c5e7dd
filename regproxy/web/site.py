"""HTTP sites that refuse what no honest client sends, and never wait for ever.

twisted.web accepts several things that RFC 9110 and RFC 9112 tell a proxy to refuse,
and lets a client take as long as it likes. This module and :mod:`regproxy.web.channel`
close both gaps for every site of the appliance.
"""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from attrs import frozen
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    IReactorTime,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import datetimeToString, parse_qs
from twisted.web.iweb import UNKNOWN_LENGTH
from twisted.web.resource import IResource, getChildForRequest
from twisted.web.server import Request, Site
from zope.interface import implementer

from regproxy.oci.errors import (
    BadRequest,
    BodyTimeout,
    ContentTooLarge,
    InternalError,
    RegistryError,
)
from regproxy.oci.kinds import RequestKind
from regproxy.oci.names import Host
from regproxy.web.access_log import AccessLog, AccessRecord
from regproxy.web.channel import CLIENT_LEFT, StrictChannel
from regproxy.web.direct import direct
from regproxy.web.request_body import RequestBody
from regproxy.web.sender import Buffered, Outlet
from regproxy.web.stall import StallWatch
from regproxy.web.target import TargetForm, parse_target

# What an error keeps of the fields that were set before it.
_OF_EVERY_ANSWER: Final = frozenset({b"date", b"connection", b"oci-namespace"})

# The body of a GET or HEAD means nothing (RFC 9110 section 9.3.1). Some clients send one.
MEANINGLESS_BODY: Final = 64 * 1024

# Setting up the direct way costs more than it saves for a shorter body.
DIRECT_FROM: Final = 64 * 1024


@frozen
class Entry:
    """How a connection came in.

    Attributes:
        way: the listener's name, for logs: ``connect``, ``tls``, ``mirror``, ``proxy``,
            ``management``.
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
    for a response that it does not read or a body that it does not send."""

    head: float
    idle: float
    stall: float


class StrictRequest(Request):
    """A request whose head has been checked, and which is logged once.

    It is processed when its head is whole. Whoever answers sets what the log line shall
    say by :meth:`note`.

    Attributes:
        body: what follows the head, to be taken by whoever wants it; None when nothing does.
        kind: what the log line says that it is for.
    """

    channel: StrictChannel
    site: StrictSite
    form: TargetForm
    authority: Host | None
    body: RequestBody | None = None
    kind = RequestKind.OTHER
    # twisted.web would call everything without a type text/html.
    defaultContentType = None

    def __init__(self, channel: StrictChannel, *args: Any, **kwargs: Any) -> None:
        super().__init__(channel, *args, **kwargs)
        self.site = channel.site
        self.entry = channel.entry
        self._stall: StallWatch | None = None
        self._received = False
        self._begun = time.time()
        self._begun_monotonic = time.monotonic()
        self._notes: dict[str, str | None] = {}
        self._logged = False

    def note(self, **fields: str | None) -> None:
        """Fields of this request's AccessRecord: registry, repository, reference, cache, reason."""
        self._notes.update(fields)

    @property
    def registry(self) -> str | None:
        """The host identity of the registry that it is for, if one was named."""
        return self._notes.get("registry", _text(self.entry.host))

    @property
    def over(self) -> bool:
        """Whether nothing can be sent any more: the answer is whole, or the client gone."""
        # twisted.web deletes the attribute in one case and sets None in the other.
        return bool(self.finished) or getattr(self, "channel", None) is None

    def gotLength(self, length: int | None) -> None:
        """The head is whole; *length* bytes of body follow, None for as many as there will be."""
        if length != 0:
            self.body = RequestBody(
                length,
                self.channel.transport,
                self.site.clock,
                self.site.limits.stall,
                self.channel.send_continue,
                lambda: self.give_up(BodyTimeout("the request's body did not come in time")),
            )

    def handleContentChunk(self, data: bytes) -> None:
        """More of the body."""
        if self.body is not None:
            self.body.received(data)

    def body_received(self) -> None:
        """The body is whole."""
        if self.body is not None:
            self.body.finished()

    def give_up(self, error: RegistryError) -> None:
        """There will be no more of the body, for the reason that *error* says."""
        if self.startedWriting:
            self.cut(error.message)
        else:
            self.answer_error(error)

    def finish(self) -> None:
        """The answer is whole; nobody waits for what is missing of the body."""
        super().finish()
        if self.body is not None:
            answered = "it was answered before all of it had come"
            self.body.abort(self._notes.get("reason") or answered)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """The head is whole; what twisted.web does here is for forms, which nobody reads."""
        self.method, self.uri, self.clientproto = command, path, version
        self.path, _, query = path.partition(b"?")
        self.args = parse_qs(query, keep_blank_values=True) if query else {}
        self.process()

    def process(self) -> None:
        """Check the head, then have the site's resource answer.

        What twisted.web sets besides, as a Server field, is the origin's or none.
        Sets ``form``, the target, and ``authority``, the host that the request is for
        (None only on HTTP/1.0).
        """
        self._received = True
        self.site.access_log.under_way.add(self)
        try:
            self.form = parse_target(self.method, self.uri, secure=self.isSecure())
            self.note(reference=self.form.path)
            self.authority = check_head(self)
            self._refuse_meaningless_body()
        except RegistryError as error:
            self.channel.persistent = False
            self.setHeader(b"Connection", b"close")
            self.answer_error(error)
            return
        self.setHeader(b"Date", datetimeToString())
        if self.path == b"*":
            # RFC 9110 section 9.3.7: no resource is asked.
            self.setHeader(b"Content-Length", b"0")
            self.finish()
            return
        resource = self.site.resource
        try:
            if not resource.isLeaf:
                self.prepath = []
                path = self.form.origin_form.partition(b"?")[0]
                self.postpath = list(map(unquote_to_bytes, path[1:].split(b"/")))
                resource = getChildForRequest(resource, self)
            self.render(resource)
        except Exception:
            self.processingFailed(Failure())

    def _refuse_meaningless_body(self) -> None:
        if self.body is None or self.method not in (b"GET", b"HEAD"):
            return
        if self.body.length is not UNKNOWN_LENGTH and self.body.length > MEANINGLESS_BODY:
            raise ContentTooLarge(f"a {self.method.decode()} has no use for so large a body")
        self.body.stopProducing()

    def answer_error(self, error: RegistryError) -> None:
        """Answer with an error of this proxy's own, if there still is somebody to answer.

        Nothing may have been written; the fields that were set for another answer go.
        """
        self.note(reason=error.message)
        if self.over:
            return
        for name, _ in tuple(self.responseHeaders.getAllRawHeaders()):
            if name.lower() not in _OF_EVERY_ANSWER:
                self.responseHeaders.removeHeader(name)
        body = error.body()
        self.setResponseCode(error.status, reason_phrase(error))
        self.setHeader(b"Content-Type", b"application/json")
        self.setHeader(b"Content-Length", str(len(body)).encode())
        if error.proxy_status is not None:
            self.setHeader(b"Proxy-Status", f"regproxy; error={error.proxy_status}".encode())
        for field, value in error.headers.items():
            self.setHeader(field.encode(), value.encode("latin-1", "replace"))
        self.write(body)
        self.finish()

    def processingFailed(self, reason: Failure) -> None:
        """A resource raised: an error like every other, not a page of HTML."""
        self._log.failure("A request could not be answered", reason)
        if self.startedWriting:
            self.cut("internal error")
        else:
            self.answer_error(InternalError())

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """Have *producer* paused while the client is behind, but not for ever."""
        if self.over:
            producer.stopProducing()
            return
        self._stall = self.stall_watch(producer)
        super().registerProducer(self._stall, streaming)
        if self.channel.behind:
            # With an earlier answer. TLS tells of it once, not at every write.
            self._stall.pauseProducing()

    def stall_watch(self, producer: IPushProducer) -> StallWatch:
        """Cuts this answer off when its client keeps *producer* waiting for too long."""
        return StallWatch(producer, self.site.clock, self.site.limits.stall, self._stalled)

    def outlet(self, length: int) -> Outlet:
        """Where a body of *length* bytes goes, 0 when that is not known; the head goes first."""
        self.write(b"")
        channel = self.channel
        long = length >= DIRECT_FROM and not (self.over or self.chunked or channel.behind)
        return (direct(self) if long else None) or Buffered(self)

    def unregisterProducer(self) -> None:
        """The body is over."""
        self._stop_stall_watch()
        # After a disconnect there is nothing left to unregister from.
        if not self.over:
            super().unregisterProducer()

    def cut(self, reason: str) -> None:
        """End the connection in the middle of an answer, so that the client knows."""
        self.note(reason=reason)
        self.log_once(self.code)
        if not self.over:
            self.channel.transport.abortConnection()

    def server_name(self) -> str | None:
        """The name in the client's TLS hello (RFC 6066 section 3), lower-case."""
        return self.channel.server_name()

    def connectionLost(self, reason: Failure) -> None:
        """The client left, or was cut off, before the answer was whole."""
        self._stop_stall_watch()
        if self._received:
            self.log_once(CLIENT_LEFT)
        super().connectionLost(reason)
        if self.body is not None:
            self.body.abort("the client left")

    def _stalled(self) -> None:
        self.cut("client took nothing for too long")

    def _stop_stall_watch(self) -> None:
        if self._stall is not None:
            self._stall.stop()

    def log_once(self, status: int) -> None:
        """Write the log line, if it is not written yet."""
        if self._logged:
            return
        self._logged = True
        self.site.access_log.under_way.discard(self)
        notes = self._notes
        self.site.access_log.record(
            AccessRecord(
                time=self._begun,
                client=client_of(self),
                way=self.entry.way,
                method=self.method.decode("ascii", "replace"),
                registry=self.registry,
                repository=notes.get("repository"),
                reference=notes.get("reference"),
                status=int(status),
                bytes=self.sentLength,
                duration=time.monotonic() - self._begun_monotonic,
                cache=notes.get("cache") or "none",
                reason=notes.get("reason"),
                kind=self.kind,
            )
        )


def _text(host: Host | None) -> str | None:
    return None if host is None else str(host)


def check_head(request: StrictRequest) -> Host | None:
    """Refuse what twisted.web's parser lets through; the host that the request is for.

    Raises:
        BadRequest: no Host or several (RFC 9112 section 3.2), a Transfer-Encoding on
            HTTP/1.0 or other than chunked (section 6.1), or an absolute-form target
            that differs from Host.
        HostInvalid: Host is no host.
    """
    hosts = request.requestHeaders.getRawHeaders(b"host", [])
    codings = request.requestHeaders.getRawHeaders(b"transfer-encoding", [])
    old = request.clientproto == b"HTTP/1.0"
    if len(hosts) > 1 or (not hosts and not old):
        raise BadRequest(f"{len(hosts)} Host header fields where there must be one")
    if old and codings:
        raise BadRequest("Transfer-Encoding needs HTTP/1.1")
    if codings and [coding.lower() for coding in codings] != [b"chunked"]:
        raise BadRequest("the only Transfer-Encoding understood is chunked, once")
    form = request.form
    if not hosts:
        return form.host
    host = Host.parse(hosts[0].decode("ascii", "replace"), form.default_port)
    if form.host is not None and form.host != host:
        raise BadRequest(f"the target is for {form.host}, the Host header field for {host}")
    return host


def reason_phrase(error: RegistryError) -> bytes:
    """The reason phrase of an answer to *error*.

    docker, containerd and podman show no more than the status line of a 5xx: there it says
    why, in at most 200 printable characters (RFC 9112 section 4).
    """
    phrase = HTTPStatus(error.status).phrase
    if error.status < HTTPStatus.INTERNAL_SERVER_ERROR:
        # twisted.web does not know all of them.
        return phrase.encode()
    phrase = f"{phrase}: {error.message}"[:200]
    return "".join(each if " " <= each <= "~" else "?" for each in phrase).encode("ascii")


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

    protocol: Any = StrictChannel
    _log = Logger()

    def __init__(
        self,
        resource: IResource,
        entry: Entry,
        limits: Limits,
        clock: IReactorTime,
        access_log: AccessLog,
    ) -> None:
        super().__init__(
            resource,
            requestFactory=StrictRequest,
            # Forms are nothing that is read here, and would be read whole into memory.
            parsePOSTFormSubmission=False,
            # The channel has a deadline of its own.
            timeout=None,
            reactor=clock,
        )
        self.entry = entry
        self.limits = limits
        self.clock = clock
        self.access_log = access_log

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """A :class:`StrictChannel` for a connection from *addr*."""
        channel: Any = super().buildProtocol(addr)
        channel.entry = self.entry
        return channel

    def entered_by(self, entry: Entry) -> IProtocolFactory:
        """A factory of channels of this site that came in by *entry*."""
        return _Entrance(self, entry)

    def startFactory(self) -> None:
        """Nothing: there is no log file, and no clock to keep for one."""

    def stopFactory(self) -> None:
        """Nothing: see startFactory."""

    def log(self, request: Any) -> None:
        """The answer to *request* is whole. What is not whole in the end logs itself."""
        request.log_once(request.code)

    def log_refusal(self, channel: StrictChannel, status: int, reason: str) -> None:
        """Log a request that never became one."""
        peer = channel.transport.getPeer()
        self.access_log.record(
            AccessRecord(
                time=time.time(),
                client=str(getattr(peer, "host", "") or "local"),
                way=channel.entry.way,
                method="",
                registry=_text(channel.entry.host),
                repository=None,
                reference=None,
                status=int(status),
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
        channel: StrictChannel = self._site.buildProtocol(addr)
        channel.entry = self._entry
        return channel

    def doStart(self) -> None:
        """Nothing: the site is started by its own listener."""

    def doStop(self) -> None:
        """Nothing: see doStart."""
