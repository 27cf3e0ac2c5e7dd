"""Answers requests to the API, by the rows of its operations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from twisted.internet.defer import CancelledError, ensureDeferred
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IConsumer
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from regproxy.management.access import Guard, Refused
from regproxy.management.encoding import Malformed, decode, encode, from_texts
from regproxy.management.openapi import document
from regproxy.management.operations import AnyOperation, Media
from regproxy.management.paging import BadCursor
from regproxy.management.security import restrict
from regproxy.management.values import Problem
from regproxy.web.headers import field_text
from regproxy.web.request_body import BodyBroken, RequestBody
from regproxy.web.site import StrictRequest

JSON: Final = "application/json"
#: The version of the API, the first segment of its paths.
VERSION: Final = "v1"
#: Bytes of a JSON body: a list of a thousand images is a tenth of it.
MAX_BODY: Final = 1 << 20


class Routes:
    """Finds the operation for a path and a method."""

    def __init__(self, operations: Iterable[AnyOperation]) -> None:
        self._paths: dict[tuple[str, ...], dict[str, AnyOperation]] = {}
        for operation in operations:
            methods = self._paths.setdefault(tuple(operation.path[1:].split("/")), {})
            if operation.method in methods:
                raise ValueError(f"{operation.method} {operation.path} is there twice")
            methods[operation.method] = operation

    def find(self, segments: Sequence[str], method: str) -> tuple[AnyOperation, dict[str, str]]:
        """The operation, and the parameters that are in the path.

        Raises:
            Refused: there is none.
        """
        found = [path for path in self._paths if _fits(path, segments)]
        if not found:
            raise Refused(HTTPStatus.NOT_FOUND, f"there is no /{'/'.join(segments)} here")
        # A name stands for more than what is written out.
        path = min(found, key=lambda each: [part.startswith("{") for part in each])
        methods = self._paths[path]
        operation = methods.get("GET" if method == "HEAD" else method)
        if operation is None:
            allow = sorted(methods.keys() | ({"HEAD"} if "GET" in methods else set()))
            raise Refused(
                HTTPStatus.METHOD_NOT_ALLOWED,
                f"this takes {', '.join(allow)}",
                headers=(("Allow", ", ".join(allow)),),
            )
        pairs = zip(path, segments, strict=True)
        return operation, {name[1:-1]: text for name, text in pairs if name.startswith("{")}


def _fits(path: Sequence[str], segments: Sequence[str]) -> bool:
    return len(path) == len(segments) and all(
        part == segment or (part.startswith("{") and segment)
        for part, segment in zip(path, segments, strict=True)
    )


class ApiResource(Resource):
    """``/api``.

    Args:
        operations: what can be asked for, besides the document about it.
        guard: lets requests in.
    """

    isLeaf = True
    _log = Logger()

    def __init__(self, operations: Iterable[AnyOperation], guard: Guard) -> None:
        Resource.__init__(self)
        operations = tuple(operations)
        self._guard = guard
        self._routes = Routes([*operations, document(operations, guard.schemes)])

    def render(self, request: StrictRequest) -> int:
        """Answer, now or later."""
        restrict(request)
        request.setHeader("Cache-Control", "no-store")
        answering = ensureDeferred(self._answer(request))
        request.notifyFinish().addErrback(lambda _: answering.cancel())
        answering.addErrback(self._failed, request)
        return NOT_DONE_YET

    async def _answer(self, request: StrictRequest) -> None:
        self._guard.check_reader(request)
        version, *segments = [part.decode("utf-8", "replace") for part in request.postpath or [b""]]
        if version != VERSION:
            raise Refused(HTTPStatus.NOT_FOUND, f"there is /api/{VERSION} only")
        operation, in_path = self._routes.find(segments, request.method.decode("ascii", "replace"))
        await self._guard.check(request, changes=operation.changes)
        parameters = from_texts(_texts(request, operation, in_path), operation.parameters)
        body = await _body(request, operation.body)
        try:
            answer = await operation.handler(parameters, body)
            await _give(request, operation, answer)
        except tuple(operation.errors) as error:
            raise _told(error, operation.errors) from error

    def _failed(self, failure: Failure, request: StrictRequest) -> None:
        if failure.check(ConnectionAborted):
            # The connection ends, and its request will be logged with that.
            return
        refusal = _refusal(failure.value)
        if request.over:
            # Nobody is there; who left is no fault of ours.
            if refusal is None and failure.check(CancelledError, BodyBroken) is None:
                self._log.failure("An operation failed after its client had left", failure)
            return
        if refusal is None:
            self._log.failure("An operation failed", failure)
            refusal = Refused(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error: the log says more")
        request.note(reason=refusal.message)
        if request.startedWriting:
            request.cut(refusal.message)
            return
        status = refusal.status
        for name, value in refusal.headers:
            request.responseHeaders.addRawHeader(name, value)
        # twisted.web does not know all of them by name.
        request.setResponseCode(status, status.phrase.encode())
        problem = Problem(status, status.phrase, refusal.message, refusal.messages)
        _send(request, "application/problem+json", encode(problem))


def _refusal(error: BaseException | None) -> Refused | None:
    """What *error* says to the client; None when it is a mistake of ours."""
    match error:
        case Refused():
            return error
        case Malformed():
            return Refused(HTTPStatus.BAD_REQUEST, str(error), messages=error.messages)
        case BadCursor():
            return Refused(HTTPStatus.BAD_REQUEST, str(error))
    return None


def _told(error: Exception, errors: Mapping[type[Exception], HTTPStatus]) -> Refused:
    status = next(errors[each] for each in type(error).__mro__ if each in errors)
    messages = getattr(error, "messages", ())
    return Refused(status, str(error), messages=tuple(messages))


async def _give(request: StrictRequest, operation: AnyOperation, answer: Any) -> None:
    request.setResponseCode(operation.status)
    if isinstance(operation.answer, Media):
        request.setHeader("Content-Type", operation.answer.type)
        await answer.send(request)
    elif operation.answer is None:
        request.finish()
    else:
        _send(request, JSON, encode(answer))


def _send(request: StrictRequest, media_type: str, body: bytes) -> None:
    request.setHeader("Content-Type", media_type)
    request.setHeader("Content-Length", str(len(body)))
    request.write(body)
    request.finish()


def _texts(
    request: StrictRequest, operation: AnyOperation, in_path: Mapping[str, str]
) -> dict[str, str]:
    """The parameters of *request*, each from its own place."""
    query = _query(request)
    for name in query.keys() & (operation.in_path | operation.in_header.keys()):
        raise Malformed(f"{name}: this has no place in the query")
    return {**query, **in_path, **_headers(request, operation.in_header)}


def _query(request: StrictRequest) -> dict[str, str]:
    texts = {}
    for name, values in (request.args or {}).items():
        try:
            key, *rest = name.decode(), *(value.decode() for value in values)
        except UnicodeDecodeError:
            raise Malformed("the query is not UTF-8") from None
        if len(rest) > 1:
            raise Malformed(f"{key}: given {len(rest)} times")
        (texts[key],) = rest
    return texts


def _headers(request: StrictRequest, names: Mapping[str, str]) -> dict[str, str]:
    """The values of header fields, by the names of the parameters that they are."""
    found = {key: field_text(request.requestHeaders, name) for key, name in names.items()}
    return {key: text for key, text in found.items() if text is not None}


async def _body(request: StrictRequest, wanted: Any) -> Any:
    """The request's body as its handler takes it."""
    body = request.body
    if request.method in (b"GET", b"HEAD"):
        return None
    if wanted is None:
        if body is not None:
            raise Malformed("this takes no body")
        return None
    given = field_text(request.requestHeaders, "content-type") or ""
    media_type = given.partition(";")[0].strip().lower()
    expected = wanted.type if isinstance(wanted, Media) else JSON
    if media_type != expected and not (isinstance(wanted, Media) and not media_type):
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the body has to be {expected}")
    if isinstance(wanted, Media):
        return body
    return decode(b"" if body is None else await read_whole(body, MAX_BODY), wanted)


async def read_whole(body: RequestBody, most: int) -> bytes:
    """All of *body*.

    Raises:
        Refused: it is longer than *most* bytes.
        BodyBroken: there will never be all of it.
    """
    taken = _Taken(body, most)
    try:
        await body.startProducing(taken)
    except BodyBroken:
        if taken.too_much:
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has more than {most} bytes"
            ) from None
        raise
    return bytes(taken.data)


@implementer(IConsumer)
class _Taken:
    """Takes a body, up to a length."""

    def __init__(self, body: RequestBody, most: int) -> None:
        self.data = bytearray()
        self.too_much = False
        self._body = body
        self._most = most

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Nothing: it is never behind."""

    def unregisterProducer(self) -> None:
        """Nothing: see registerProducer."""

    def write(self, data: bytes) -> None:
        """More of it."""
        self.data += data
        if len(self.data) > self._most:
            self.too_much = True
            self._body.abort("it is too long")
