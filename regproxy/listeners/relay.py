"""Requests for http URLs, relayed to the hosts that they name and kept nowhere.

Only with ``[relay] allow_http``: this is for what else a node needs on its way to its
images, and no web proxy. There are no upgrades, and redirects are the client's to follow.
"""

from __future__ import annotations

from typing import Final, cast

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent
from twisted.web.http import NO_BODY_CODES
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer, IResponse
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from regproxy.config.model import Config, RegistrySection
from regproxy.config.wayout import Line
from regproxy.oci.errors import InternalError
from regproxy.oci.names import Host
from regproxy.policy.addresses import AddressGuard, LeadsBack, nowhere
from regproxy.policy.caching import CacheStatus, Forward
from regproxy.registry.ask import length_of
from regproxy.registry.errors import answer_to
from regproxy.registry.transfer import relay
from regproxy.upstream.body import Deadline, WatchedBody
from regproxy.upstream.errors import (
    REQUEST_ERRORS,
    UpstreamError,
    UpstreamTimeout,
    translated,
)
from regproxy.upstream.pool import MeteredPool
from regproxy.upstream.ways_out import WaysOut
from regproxy.web.headers import relayed_headers, response_headers
from regproxy.web.site import StrictRequest

HTTP_PORT: Final = 80
_VIA: Final = b"1.1 regproxy"


@implementer(IAgentEndpointFactory)
@frozen
class _Endpoints:
    """Connects to where http URLs are, through the guard."""

    ways_out: WaysOut
    guard: AddressGuard
    line: Line

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        host = Host(uri.host.decode("ascii"), uri.port)
        return self.ways_out.endpoint(host, self.guard, self.line)


class RelayResource(Resource):
    """Answers absolute-form requests with what their hosts say.

    Hosts are dialled as with CONNECT, at port 80 instead of 443.

    Args:
        config: its ``[relay] allow`` and ``[limits]`` count.
        own: where this proxy itself is; it is not dialled.
    """

    isLeaf = True
    _log = Logger()

    def __init__(self, ways_out: WaysOut, config: Config, own: LeadsBack = nowhere) -> None:
        super().__init__()
        self._clock = cast(IReactorTime, ways_out.reactor)
        self._limits = config.limits
        guard = AddressGuard.relaying(config.relay, frozenset({HTTP_PORT}), own)
        # Each connection carries one request: its next client may be another.
        pool = MeteredPool(self._clock, config.limits.upstream_head_size, persistent=False)
        endpoints = _Endpoints(ways_out, guard, config.line(RegistrySection()))
        self._agent = Agent.usingEndpointFactory(ways_out.reactor, endpoints, pool)

    def render(self, request: StrictRequest) -> int:
        """Begin to answer."""
        relaying = ensureDeferred(self._relay(request))
        request.notifyFinish().addErrback(lambda _: relaying.cancel())
        relaying.addErrback(self._failed, request)
        return NOT_DONE_YET

    async def _relay(self, request: StrictRequest) -> None:
        status = CacheStatus(Forward.BYPASS)
        request.note(registry=str(request.form.host), cache=status.word)
        response = await self._ask(request)
        request.setResponseCode(response.code, response.phrase)
        for name, values in response_headers(response.headers).getAllRawHeaders():
            request.responseHeaders.setRawHeaders(name, values)
        request.responseHeaders.addRawHeader(b"Via", _VIA)
        length = length_of(response)
        if length is not None and response.code not in NO_BODY_CODES:
            request.setHeader(b"Content-Length", b"%d" % length)
        await relay(response, request, self._clock, self._limits.upstream_idle)
        request.finish()

    async def _ask(self, request: StrictRequest) -> IResponse:
        host = request.form.host
        assert host is not None, "only absolute-form requests come here"
        headers = relayed_headers(request.requestHeaders)
        headers.addRawHeader(b"Via", _VIA)
        limits = self._limits
        deadline = Deadline(self._clock, lambda: requesting.cancel())
        deadline.within(limits.upstream_head)
        body: IBodyProducer | None = request.body
        if body is not None:
            body = WatchedBody(body, deadline, limits.upstream_idle, limits.upstream_head)
        url = b"http://" + host.authority.encode() + request.form.origin_form
        try:
            requesting: Deferred[IResponse] = self._agent.request(
                request.method, url, headers, body
            )
            return await requesting
        except (*REQUEST_ERRORS, CancelledError) as error:
            if deadline.passed:
                raise UpstreamTimeout(f"{host.authority} did not answer in time") from error
            raise translated(error, host.authority) from error
        finally:
            deadline.stop()

    def _failed(self, failure: Failure, request: StrictRequest) -> None:
        if failure.check(CancelledError, ConnectionAborted):
            # The client left; its request has been logged with that.
            return
        if isinstance(failure.value, UpstreamError):
            error = answer_to(failure.value)
        else:
            self._log.failure("A request could not be relayed", failure)
            error = InternalError()
        if request.startedWriting:
            request.cut(error.message)
        else:
            request.answer_error(error)
