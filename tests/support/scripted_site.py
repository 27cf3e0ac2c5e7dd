"""A web server that answers as it is told and remembers what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import Request, Site


@frozen
class Asked:
    """A request that came.

    Attributes:
        connection: tells connections apart.
    """

    method: bytes
    uri: bytes
    headers: Headers
    body: bytes
    connection: int

    def header(self, name: bytes) -> bytes | None:
        values = self.headers.getRawHeaders(name)
        return None if values is None else b", ".join(values)


@frozen
class Say:
    """An answer."""

    code: int = 200
    headers: Mapping[bytes, bytes] = field(factory=dict)
    body: bytes = b""


def redirect(location: bytes, code: int = 307) -> Say:
    return Say(code, {b"Location": location}, b"<a>moved</a>")


Answerer = Callable[[Asked], Say]


class ScriptedSite(Site):
    """A site whose every answer comes from *answerer*, called with each request.

    Attributes:
        asked: the requests so far.
    """

    def __init__(self, reactor: IReactorTime, answerer: Answerer | Say) -> None:
        self.answerer: Answerer = answerer if callable(answerer) else lambda asked: answerer
        self.asked: list[Asked] = []
        super().__init__(_Script(self), reactor=reactor)

    def log(self, request: object) -> None:
        """No access log."""


class _Script(Resource):
    isLeaf = True

    def __init__(self, site: ScriptedSite) -> None:
        super().__init__()
        self._site = site

    def render(self, request: Request) -> bytes:
        asked = Asked(
            request.method,
            request.uri,
            request.requestHeaders.copy(),
            request.content.read() if request.content else b"",
            id(request.channel),
        )
        self._site.asked.append(asked)
        said = self._site.answerer(asked)
        request.setResponseCode(said.code)
        for name, value in said.headers.items():
            request.setHeader(name, value)
        request.setHeader(b"content-length", b"%d" % len(said.body))
        return b"" if request.method == b"HEAD" else said.body
