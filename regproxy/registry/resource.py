"""The deferred-returning resource at which every way in ends: a decrypted request for a host."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus

from twisted.internet.defer import CancelledError, ensureDeferred
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import NO_BODY_CODES
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from regproxy.config.model import Config
from regproxy.oci.errors import (
    BadGateway,
    BadRequest,
    Denied,
    InternalError,
    OwnFailure,
    RegistryError,
)
from regproxy.oci.kinds import kind_of
from regproxy.oci.routes import parse_route
from regproxy.registry.ask import (
    Answer,
    Ask,
    Content,
    Description,
    Made,
    Relayed,
    length_of,
    subject,
)
from regproxy.registry.entrance import Door, Entrance, by_name
from regproxy.registry.errors import answer_to
from regproxy.registry.representation import (
    describe,
    describe_content,
    local_location,
    mirror_references,
)
from regproxy.registry.service import READS
from regproxy.registry.straight import FallbackBlob
from regproxy.registry.tokens import Answerer
from regproxy.registry.transfer import relay
from regproxy.store.errors import FillFailed, StoreError
from regproxy.upstream.errors import UpstreamError
from regproxy.web.headers import response_headers
from regproxy.web.sender import send
from regproxy.web.site import StrictRequest, client_of


class RegistryResource(Resource):
    """Answers requests to intercepted registries.

    Args:
        service: answers the questions.
        config: which hosts are registries, and their sections.
        clock: for the pace of relayed bodies.
        door: tells which registry a request is for.
    """

    isLeaf = True
    _log = Logger()

    def __init__(
        self, service: Answerer, config: Config, clock: IReactorTime, door: Door = by_name
    ) -> None:
        super().__init__()
        self._door = door
        self._service = service
        self._config = config
        self._clock = clock

    def render(self, request: StrictRequest) -> int:
        """Begin to answer; the rest happens when what is needed is there."""
        answering = ensureDeferred(self._answer(request))
        if not answering.called:
            request.notifyFinish().addErrback(lambda _: answering.cancel())
        answering.addErrback(self._failed, request)
        return NOT_DONE_YET

    async def _answer(self, request: StrictRequest) -> None:
        try:
            entrance = self._door(request)
            if entrance.namespace is not None:
                request.setHeader(b"OCI-Namespace", entrance.namespace.encode())
            ask = self._read(request, entrance)
            answer = await self._service.answer(ask)
        except RegistryError as error:
            request.answer_error(error)
        except UpstreamError as error:
            request.answer_error(answer_to(error))
        else:
            await self._render(request, entrance, ask, answer)

    def _read(self, request: StrictRequest, entrance: Entrance) -> Ask:
        if not self._config.intercepts(entrance.host):
            raise Denied(f"{entrance.host} is not a registry of this proxy: add it to [registries]")
        host = entrance.host.canonical
        request.note(registry=str(host))
        route = parse_route(entrance.target)
        request.kind = kind_of(request.method, route)
        repository, reference = subject(route)
        if reference is not None:
            request.note(repository=repository, reference=reference)
        elif repository is not None:
            request.note(repository=repository)
        authorization = request.requestHeaders.getRawHeaders(b"authorization", [])
        if len(authorization) > 1:
            raise BadRequest("more than one Authorization header field")
        return Ask(
            method=request.method,
            host=host,
            section=self._config.registry(host),
            route=route,
            headers=request.requestHeaders,
            authorization=authorization[0] if authorization else None,
            body=None if request.method in READS else request.body,
            client=client_of(request),
        )

    async def _render(
        self, request: StrictRequest, entrance: Entrance, ask: Ask, answer: Answer | Made
    ) -> None:
        if isinstance(answer, Made):
            self._render_made(request, answer)
            return
        request.setHeader(b"Cache-Status", str(answer.status).encode())
        request.note(cache=answer.status.word, reason=answer.status.detail)
        match answer:
            case Content():
                await self._render_content(request, answer)
            case Description():
                self._render_description(request, answer)
            case Relayed():
                await self._render_relayed(request, entrance, ask, answer)

    async def _render_content(self, request: StrictRequest, content: Content) -> None:
        blob = content.blob
        try:
            span = describe_content(request, content)
            if span is not None:
                if request.code == HTTPStatus.PARTIAL_CONTENT:
                    # Its bytes may be long in coming, and some clients wait 30 s for a head.
                    request.write(b"")
                if content.straight is not None:
                    blob = FallbackBlob(blob, content.straight, span[1])
                start, end = span
                length = 0 if end is None else end - start
                await send(partial(request.outlet, length), blob, start, end)
        finally:
            blob.close()
        request.finish()

    def _render_description(self, request: StrictRequest, description: Description) -> None:
        describe(request, description)
        request.finish()

    def _render_made(self, request: StrictRequest, made: Made) -> None:
        request.note(reason=made.reason)
        request.setHeader(b"Content-Type", made.media_type.encode())
        request.setHeader(b"Content-Length", b"%d" % len(made.body))
        request.setHeader(b"Cache-Control", b"no-store")
        request.write(made.body)
        request.finish()

    async def _render_relayed(
        self, request: StrictRequest, entrance: Entrance, ask: Ask, relayed: Relayed
    ) -> None:
        response = relayed.response
        request.setResponseCode(response.code, response.phrase)
        for name, values in response_headers(response.headers).getAllRawHeaders():
            request.responseHeaders.setRawHeaders(name, values)
        length = length_of(response)
        if length is not None and response.code not in NO_BODY_CODES:
            request.setHeader(b"Content-Length", b"%d" % length)
        # Clients' cookies do not go up either, and the proxy's own session is its own.
        request.responseHeaders.removeHeader(b"set-cookie")
        local_location(request.responseHeaders, ask.section)
        if entrance.namespace is not None:
            mirror_references(request.responseHeaders, ask.host, ask.section)
            request.setHeader(b"OCI-Namespace", entrance.namespace.encode())
        request.setHeader(b"Cache-Status", str(relayed.status).encode())
        limits = ask.section.limits.over(self._config.limits)
        await relay(response, request, self._clock, limits.upstream_idle)
        request.finish()

    def _failed(self, failure: Failure, request: StrictRequest) -> None:
        if failure.check(CancelledError, ConnectionAborted):
            # The client left; its request has been logged with that.
            return
        match failure.value:
            case RegistryError() as cause:
                error = cause
            case UpstreamError() as cause:
                error = answer_to(cause)
            case FillFailed() as cause:
                error = BadGateway(str(cause))
            case (StoreError() | OSError()) as cause:
                error = OwnFailure(str(cause))
            case _:
                self._log.failure("A request could not be answered", failure)
                error = InternalError()
        if request.startedWriting:
            request.cut(error.message)
        else:
            request.answer_error(error)
