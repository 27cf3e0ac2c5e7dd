"""How the pages answer: one place for methods, rights, errors and header fields."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, ClassVar, Final
from urllib.parse import parse_qsl

from attrs import Factory, frozen
from twisted.internet.defer import CancelledError, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET

from regproxy.management.access import Guard, Refused
from regproxy.management.encoding import Malformed
from regproxy.management.images import UnknownImage
from regproxy.management.jobs import TooManyJobs
from regproxy.management.pages.rendering import Pages
from regproxy.management.paging import BadCursor
from regproxy.management.resource import read_whole
from regproxy.management.security import restrict
from regproxy.oci.errors import RegistryError
from regproxy.store.errors import StoreError
from regproxy.web.headers import field_text
from regproxy.web.request_body import BodyBroken
from regproxy.web.site import StrictRequest

#: What a page may load and where its forms may go: this site, nothing else, nothing inline.
POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HTML: Final = "text/html; charset=utf-8"
FORM: Final = "application/x-www-form-urlencoded"
#: Bytes of a form: it names an image.
MAX_FORM: Final = 16 * 1024


#: What may come of a request, besides the registries' errors, which have their own status.
ERRORS: Final[Mapping[type[Exception], HTTPStatus]] = {
    Malformed: HTTPStatus.BAD_REQUEST,
    BadCursor: HTTPStatus.BAD_REQUEST,
    UnknownImage: HTTPStatus.NOT_FOUND,
    TooManyJobs: HTTPStatus.SERVICE_UNAVAILABLE,
    StoreError: HTTPStatus.SERVICE_UNAVAILABLE,
}


class Answering(Resource, ABC):
    """What is at one address.

    Args:
        pages: for errors that people see; None where no people are.
        guard: lets requests in; None where everybody may read, and nothing is changed.
    """

    #: Whether forms are sent to it: whether :meth:`change` does something.
    changes: ClassVar[bool] = False
    _log = Logger()

    def __init__(self, pages: Pages | None = None, guard: Guard | None = None) -> None:
        super().__init__()
        self._pages = pages
        self._guard = guard

    def getChild(self, path: bytes, request: IRequest) -> IResource:
        return NotFound(self._pages)

    def render(self, request: StrictRequest) -> int:
        """Answer, now or later."""
        answering = ensureDeferred(self._answer(request))
        request.notifyFinish().addErrback(lambda _: answering.cancel())
        answering.addErrback(self._failed, request)
        # The page about an error may fail as well.
        answering.addErrback(request.processingFailed)
        return NOT_DONE_YET

    @abstractmethod
    async def read(self, request: StrictRequest) -> tuple[str, bytes]:
        """The media type and the content. Header fields that differ from others' are set.

        Raises:
            Any of :data:`ERRORS`, RegistryError: there is none.
        """

    async def change(self, form: Mapping[str, str]) -> str:
        """Do what the fields of a *form* say; the URL of the page to see then.

        Raises:
            Any of :data:`ERRORS`, RegistryError: it cannot be done.
        """
        raise NotImplementedError

    async def _answer(self, request: StrictRequest) -> None:
        if request.method in (b"GET", b"HEAD"):
            if self._guard is not None:
                self._guard.check_reader(request)
            send(request, HTTPStatus.OK, *await self.read(request))
        elif request.method == b"POST" and self.changes and self._guard is not None:
            await self._guard.check(request, changes=True)
            request.setHeader("Location", await self.change(await _form(request)))
            send(request, HTTPStatus.SEE_OTHER, HTML, b"")
        else:
            methods = "GET, HEAD, POST" if self.changes else "GET, HEAD"
            raise Refused(
                HTTPStatus.METHOD_NOT_ALLOWED,
                f"this takes {methods}",
                headers=(("Allow", methods),),
            )

    def _failed(self, failure: Failure, request: StrictRequest) -> None:
        refusal = _refusal(failure.value)
        if request.over:
            if refusal is None and failure.check(CancelledError, BodyBroken) is None:
                self._log.failure("A page failed after its reader had left", failure)
            return
        if refusal is None:
            self._log.failure("A page failed", failure)
            refusal = Refused(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error: the log says more")
        for name, value in refusal.headers:
            request.responseHeaders.addRawHeader(name, value)
        answer_error(request, refusal.status, refusal.message, self._pages)


def _refusal(error: BaseException | None) -> Refused | None:
    """What *error* says to the reader; None when it is a mistake of ours."""
    match error:
        case Refused():
            return error
        case RegistryError():
            return Refused(HTTPStatus(error.status), error.message)
    for kind, status in ERRORS.items():
        if isinstance(error, kind):
            return Refused(status, str(error))
    return None


@frozen
class Shown:
    """What a page shows: a template and the values for it."""

    template: str
    values: Mapping[str, Any] = Factory(dict)


class View(Answering):
    """A page for people.

    Args:
        pages: renders.
    """

    #: The path of the entry of the navigation that it belongs to.
    here: str

    def __init__(self, pages: Pages, guard: Guard | None) -> None:
        super().__init__(pages, guard)
        self._render = pages.render

    async def read(self, request: StrictRequest) -> tuple[str, bytes]:
        shown = await self.show(request)
        return HTML, self._render(shown.template, self.here, **shown.values)

    @abstractmethod
    async def show(self, request: StrictRequest) -> Shown:
        """What a reader sees.

        Raises:
            Any of :data:`ERRORS`, RegistryError: there is nothing to be seen.
        """


class NotFound(Resource):
    """Whatever there is not, for every method.

    Args:
        pages: for readers who can see a page.
    """

    def __init__(self, pages: Pages | None = None) -> None:
        super().__init__()
        self._pages = pages

    def getChild(self, path: bytes, request: IRequest) -> IResource:
        return self

    def render(self, request: StrictRequest) -> int:
        """Say so."""
        text = "there is nothing at this address"
        answer_error(request, HTTPStatus.NOT_FOUND, text, self._pages)
        return NOT_DONE_YET


def send(request: StrictRequest, status: HTTPStatus, media_type: str, content: bytes) -> None:
    """Answer with *content*, which nobody stores unless the answer says so already."""
    restrict(request, POLICY)
    request.setResponseCode(status, status.phrase.encode())
    request.setHeader("Content-Type", media_type)
    request.setHeader("Content-Length", str(len(content)))
    if not request.responseHeaders.hasHeader("Cache-Control"):
        request.setHeader("Cache-Control", "no-store")
    # twisted.web drops it when the method is HEAD.
    request.write(content)
    request.finish()


def answer_error(
    request: StrictRequest, status: HTTPStatus, text: str, pages: Pages | None = None
) -> None:
    """Answer with an error: a page for browsers, one line for the others."""
    request.note(reason=text)
    accepted = field_text(request.requestHeaders, "accept") or ""
    if pages is not None and "text/html" in accepted:
        page = pages.render("pages/error.html", "", title=status.phrase, text=text)
        send(request, status, HTML, page)
    else:
        send(request, status, "text/plain; charset=utf-8", f"{text}\n".encode())


def query(request: StrictRequest) -> dict[str, str]:
    """The fields of the query that are not empty, as a form with unused fields sends it.

    Raises:
        Malformed: one is there twice, or is no UTF-8.
    """
    return _fields(request.uri.partition(b"?")[2])


async def _form(request: StrictRequest) -> dict[str, str]:
    given = field_text(request.requestHeaders, "content-type") or ""
    if given.partition(";")[0].strip().lower() != FORM:
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the body has to be {FORM}")
    body = request.body
    return _fields(b"" if body is None else await read_whole(body, MAX_FORM))


def _fields(data: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(data.decode("ascii"), encoding="utf-8", errors="strict")
    except ValueError:
        raise Malformed("the fields are not UTF-8") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise Malformed("a field is there twice")
    return fields
