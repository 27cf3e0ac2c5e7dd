"""``/readyz``."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

from twisted.internet.defer import CancelledError, ensureDeferred
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request

from regproxy.management.pages.answers import NotFound
from regproxy.management.readiness import Readiness
from regproxy.management.security import restrict


class ReadyResource(Resource):
    """Says whether clients may be sent here; if not, why, in a line each."""

    def __init__(self, readiness: Readiness) -> None:
        Resource.__init__(self)
        self._readiness = readiness

    def getChild(self, path: bytes, request: IRequest) -> IResource:
        return NotFound()

    def render(self, request: Request) -> int:
        """Answer, soon."""
        if request.method not in (b"GET", b"HEAD"):
            request.setHeader("Allow", "GET, HEAD")
            _text(request, HTTPStatus.METHOD_NOT_ALLOWED, ["this can be read only"])
            return NOT_DONE_YET
        answering = ensureDeferred(self._answer(request))
        request.notifyFinish().addErrback(lambda _: answering.cancel())
        answering.addErrback(_failed, request)
        return NOT_DONE_YET

    async def _answer(self, request: Request) -> None:
        problems = await self._readiness.problems()
        status = HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK
        _text(request, status, problems or ["ok"])


def _text(request: Request, status: HTTPStatus, lines: Iterable[str]) -> None:
    body = "".join(f"{line}\n" for line in lines).encode()
    restrict(request)
    request.setResponseCode(status)
    request.setHeader("Content-Type", "text/plain; charset=utf-8")
    request.setHeader("Cache-Control", "no-store")
    request.setHeader("Content-Length", str(len(body)))
    request.write(body)
    request.finish()


def _failed(failure: Failure, request: Request) -> None:
    if failure.check(CancelledError) is None:
        request.processingFailed(failure)
