"""Tests for :mod:`regproxy.management.resource`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted
from twisted.internet.testing import StringTransport

from regproxy.config.model import ManagementSection
from regproxy.management.access import Guard, Refused
from regproxy.management.bounds import Count, Length
from regproxy.management.operations import AnyOperation, Media, Nothing, Operation
from regproxy.management.resource import MAX_BODY, ApiResource, Routes
from regproxy.management.security import NOTHING_ELSE
from regproxy.web.request_body import RequestBody
from regproxy.web.site import StrictRequest
from tests.support.api import ApiCase
from tests.support.sites import responses

OCTETS = "application/octet-stream"


class Wrong(Exception):
    """Something is wrong."""

    def __init__(self, *messages: str) -> None:
        super().__init__("wrong")
        self.messages = messages


class WorseWrong(Wrong):
    """Something is worse."""


@frozen
class Thing:
    """A thing.

    Attributes:
        names: of it.
        size: of it.
    """

    names: Annotated[tuple[str, ...], Count(1, 3)]
    size: int = 1


@frozen
class Which:
    """Which thing.

    Attributes:
        name: its name.
        agent: who asks.
        size: its size.
    """

    name: Annotated[str, Length(1, 20)]
    agent: str | None = None
    size: int = 0


class Pieces:
    """An answer in pieces."""

    def __init__(self, wait: Deferred[None] | None = None) -> None:
        self.wait = wait

    async def send(self, request: StrictRequest) -> None:
        if self.wait is not None:
            await self.wait
        request.setHeader("Content-Length", "4")
        request.write(b"ab")
        request.write(b"cd")
        request.finish()


class ResourceCase(ApiCase):
    """Operations that do as the test says."""

    def setUp(self) -> None:
        super().setUp()
        self.calls: list[Any] = []
        self.result: Any = Thing(("a",))

    async def handle(self, parameters: Any, body: Any) -> Any:
        self.calls.append((parameters, body))
        if isinstance(self.result, Exception):
            raise self.result
        if isinstance(self.result, Deferred):
            return await self.result
        return self.result

    def operation(self, method: str = "GET", path: str = "/things", **other: Any) -> AnyOperation:
        given: dict[str, Any] = {"parameters": Nothing, "answer": Thing, **other}
        return Operation(
            name=f"{method}{path}",
            method=method,
            path=path,
            summary="",
            handler=self.handle,
            **given,
        )

    def serve(self, *operations: AnyOperation) -> None:
        guard = Guard(ManagementSection(), self.workers, self.clock, self.parts.bad_logins)
        root: Any = self.house.site.resource
        root.putChild(b"api", ApiResource(operations, guard))


class RoutesTests(ResourceCase):
    def find(self, segments: Sequence[str], method: str = "GET") -> tuple[str, dict[str, str]]:
        paths = ("/a", "/a/{x}", "/a/{x}/b", "/a/new", "/{x}/b/{y}")
        routes = Routes([self.operation(path=path) for path in paths])
        operation, in_path = routes.find(segments, method)
        return operation.path, in_path

    def test_found(self) -> None:
        for segments, expected in (
            (["a"], ("/a", {})),
            (["a", "1"], ("/a/{x}", {"x": "1"})),
            (["a", "new"], ("/a/new", {})),
            (["a", "b/c"], ("/a/{x}", {"x": "b/c"})),
            (["a", "{x}"], ("/a/{x}", {"x": "{x}"})),
            (["a", "1", "b"], ("/a/{x}/b", {"x": "1"})),
            (["c", "b", "2"], ("/{x}/b/{y}", {"x": "c", "y": "2"})),
        ):
            self.assertEqual(self.find(segments), expected)

    def test_not_found(self) -> None:
        for segments in ([], [""], ["b"], ["a", ""], ["a", "1", "c"], ["", "b", "2"]):
            with self.assertRaises(Refused) as caught:
                self.find(segments)
            self.assertEqual(caught.exception.status, HTTPStatus.NOT_FOUND)

    def test_twice(self) -> None:
        self.assertRaises(ValueError, Routes, [self.operation(), self.operation()])


class AnswerTests(ResourceCase):
    """What is answered"""

    def test_json(self) -> None:
        self.serve(self.operation(status=HTTPStatus.ACCEPTED))
        answer = self.ask("GET", "/things")
        self.assertEqual((answer.status, answer.json), (202, {"names": ["a"], "size": 1}))
        self.assertEqual(answer.headers["content-type"], "application/json")
        self.assertEqual(self.calls, [(Nothing(), None)])

    def test_head(self) -> None:
        self.serve(self.operation())
        get, head = self.ask("GET", "/things"), self.ask("HEAD", "/things")
        self.assertEqual({**get.headers, "date": ""}, {**head.headers, "date": ""})
        self.assertEqual(head.status, 200)

    def test_nothing(self) -> None:
        self.serve(self.operation("POST", answer=None, status=HTTPStatus.NO_CONTENT))
        data = self.send("POST", "/things").take()
        head, _, body = data.partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 204 "))
        self.assertEqual(body, b"")
        self.assertNotIn(b"Transfer-Encoding", head)

    def test_pieces(self) -> None:
        self.serve(self.operation(answer=Media("text/plain")))
        self.result = Pieces()
        answer = self.ask("GET", "/things")
        self.assertEqual((answer.body, answer.headers["content-type"]), (b"abcd", "text/plain"))

    def test_not_found(self) -> None:
        self.serve(self.operation())
        for path in ("/", "", "/thing", "/things/", "/things/x", "//things"):
            answer = self.ask("GET", path)
            self.assertEqual(answer.status, 404, path)
            self.assertEqual(answer.headers["content-type"], "application/problem+json")
        stream = self.house.connect()
        stream.send(b"GET /api/v2/things HTTP/1.1\r\nHost: x\r\n\r\n")
        (answer,) = responses(stream.take())
        self.assertEqual((answer.status, answer.json["detail"]), (404, "there is /api/v1 only"))

    def test_methods(self) -> None:
        self.serve(self.operation(), self.operation("DELETE"))
        for method in ("POST", "OPTIONS", "TRACE", "BREW"):
            answer = self.ask(method, "/things")
            self.assertEqual(answer.status, 405)
            self.assertEqual(answer.headers["allow"], "delete, get, head")
        self.assertEqual(self.calls, [])

    def test_security(self) -> None:
        """All answers tie the reader's browser down, and are stored nowhere."""
        self.serve(self.operation())
        for method, path in (("GET", "/things"), ("GET", "/"), ("POST", "/things"), ("HEAD", "/x")):
            headers = self.ask(method, path).headers
            self.assertEqual(headers["content-security-policy"], NOTHING_ELSE)
            self.assertEqual(headers["x-content-type-options"], "nosniff")
            self.assertEqual(headers["cache-control"], "no-store")
            self.assertNotIn("access-control-allow-origin", headers)


class ErrorTests(ResourceCase):
    """Errors are problems (RFC 9457)."""

    def test_told(self) -> None:
        """The most exact row counts."""
        errors = {Wrong: HTTPStatus.CONFLICT, WorseWrong: HTTPStatus.GONE}
        self.serve(self.operation(errors=errors))
        for error, status in ((Wrong("a", "b"), 409), (WorseWrong("a", "b"), 410)):
            self.result = error
            answer = self.ask("GET", "/things")
            self.assertEqual(answer.headers["content-type"], "application/problem+json")
            self.assertEqual(
                answer.json,
                {
                    "status": status,
                    "title": HTTPStatus(status).phrase,
                    "detail": "wrong",
                    "messages": ["a", "b"],
                },
            )
        self.assertEqual([each.reason for each in self.house.log.records], ["wrong", "wrong"])

    def test_phrase(self) -> None:
        """Also of statuses that twisted.web does not know."""
        self.serve(self.operation(errors={Wrong: HTTPStatus.UNPROCESSABLE_ENTITY}))
        self.result = Wrong()
        answer = self.send("GET", "/things").take()
        self.assertTrue(answer.startswith(b"HTTP/1.1 422 Unprocessable "), answer)

    def test_mistake(self) -> None:
        """Nothing of it is shown, and all of it is in the log."""
        self.serve(self.operation(errors={Wrong: HTTPStatus.CONFLICT}))
        self.result = ZeroDivisionError("secret")
        answer = self.ask("GET", "/things")
        self.assertEqual(answer.status, 500)
        self.assertEqual(answer.json["detail"], "internal error: the log says more")
        self.assertEqual(answer.headers["content-security-policy"], NOTHING_ELSE)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_in_pieces(self) -> None:
        """An error before the first byte is answered."""
        self.serve(self.operation(answer=Media(OCTETS), errors={Wrong: HTTPStatus.GONE}))
        wait: Deferred[None] = Deferred()
        self.result = Pieces(wait)
        stream = self.send("GET", "/things")
        self.assertEqual(stream.take(), b"")
        wait.errback(Wrong())
        (answer,) = responses(stream.take())
        self.assertEqual((answer.status, answer.json["detail"]), (410, "wrong"))

    def test_in_the_middle(self) -> None:
        """Later, the client is to see that it is not whole."""

        class Broken:
            async def send(self, request: StrictRequest) -> None:
                request.setHeader("Content-Length", "4")
                request.write(b"ab")
                raise Wrong

        self.serve(self.operation(answer=Media(OCTETS), errors={Wrong: HTTPStatus.GONE}))
        self.result = Broken()
        stream = self.send("GET", "/things")
        self.assertTrue(stream.aborted)
        self.assertTrue(stream.take().endswith(b"ab"))

    def test_leaves(self) -> None:
        """Who leaves takes the work along; that is no error."""
        cancelled: list[object] = []
        self.serve(self.operation())
        self.result = Deferred(cancelled.append)
        self.send("GET", "/things").finish()
        self.assertEqual(len(cancelled), 1)
        self.assertEqual(self.house.statuses, [499])

    def test_leaves_unseen(self) -> None:
        """The body's way knows it before the request does; that is no error either."""

        class Left:
            async def send(self, request: StrictRequest) -> None:
                request.setHeader("Content-Length", "4")
                request.write(b"ab")
                raise ConnectionAborted

        self.serve(self.operation(answer=Media(OCTETS)))
        self.result = Left()
        stream = self.send("GET", "/things")
        self.assertTrue(stream.take().endswith(b"ab"))
        stream.finish()
        self.assertEqual(self.house.statuses, [499])

    def test_mistake_after_leaving(self) -> None:
        """It is in the log all the same."""
        self.serve(self.operation())

        def fail(deferred: Deferred[None]) -> None:
            deferred.errback(ZeroDivisionError())

        self.result = Deferred(fail)
        self.send("GET", "/things").finish()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class ParameterTests(ResourceCase):
    def setUp(self) -> None:
        super().setUp()
        self.serve(
            self.operation(path="/things/{name}", parameters=Which, in_header={"agent": "X-Agent"})
        )

    def test_places(self) -> None:
        self.ask("GET", "/things/a%2Fb%20%C3%A4?size=7", {"X-Agent": "me"})
        self.assertEqual(self.calls, [(Which("a/b ä", "me", 7), None)])

    def test_bytes(self) -> None:
        """A field is text whatever its bytes; those of several are one value."""
        stream = self.house.connect()
        fields = b"X-Agent: \xe9\r\nX-Agent: b\r\nContent-Type: \xff"
        stream.send(b"GET /api/v1/things/a HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n\r\n")
        self.assertIn(b" 200 ", stream.take())
        self.assertEqual(self.calls, [(Which("a", "\xe9, b", 0), None)])

    def test_refused(self) -> None:
        for path, expected in (
            ("/things/a?color=red", ["color: unknown key (allowed: name, agent, size)"]),
            ("/things/a?size=1&size=2", ["size: given 2 times"]),
            ("/things/a?size=", ["size: expected an integer"]),
            ("/things/a?size=%FF", ["the query is not UTF-8"]),
            ("/things/a?name=b", ["name: this has no place in the query"]),
            ("/things/a?agent=me", ["agent: this has no place in the query"]),
            ("/things/aaaaaaaaaaaaaaaaaaaaaaaa", ["name: expected 1 to 20 characters"]),
        ):
            answer = self.ask("GET", path)
            self.assertEqual((answer.status, answer.json["messages"]), (400, expected))
        self.assertEqual(self.calls, [])


class BodyTests(ResourceCase):
    def setUp(self) -> None:
        super().setUp()
        self.serve(
            self.operation("POST", body=Thing),
            self.operation("DELETE"),
            self.operation("PUT", body=Media(OCTETS)),
        )

    def test_taken(self) -> None:
        for media_type in ("application/json", "Application/JSON; charset=utf-8"):
            answer = self.ask_json(
                "POST", "/things", {"names": ["b"]}, **{"Content-Type": media_type}
            )
            self.assertEqual(answer.status, 200)
        self.assertEqual(self.calls, [(Nothing(), Thing(("b",)))] * 2)

    def test_in_pieces(self) -> None:
        """However it comes."""
        head = "POST /api/v1/things HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
        stream = self.house.connect()
        stream.peerAddr = type(stream.getPeer())("TCP", "127.0.0.1", 1)
        stream.send(f"{head}Content-Type: application/json\r\n\r\n".encode())
        for piece in (b'{"na', b'mes": ["b', b'"]}'):
            self.assertEqual(self.calls, [])
            stream.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        stream.send(b"0\r\n\r\n")
        self.assertEqual(self.calls, [(Nothing(), Thing(("b",)))])

    def test_media_type(self) -> None:
        for media_type in ("text/plain", "application/x-www-form-urlencoded", "", "json"):
            answer = self.ask("POST", "/things", {"Content-Type": media_type}, b'{"names": ["b"]}')
            self.assertEqual(answer.status, 415, media_type)
            self.assertEqual(answer.json["detail"], "the body has to be application/json")
        self.assertEqual(self.ask("POST", "/things", {}, b'{"names": ["b"]}').status, 415)
        self.assertEqual(self.calls, [])

    def test_bytes_in_media_type(self) -> None:
        head = b"POST /api/v1/things HTTP/1.1\r\nHost: x\r\nContent-Type: \xff\r\n"
        stream = self.house.connect()
        stream.send(head + b"Content-Length: 2\r\n\r\n{}")
        self.assertIn(b" 415 ", stream.take())

    def test_malformed(self) -> None:
        for body in (b"", b"{", b"[]", b'{"names": []}', b'{"names": ["a"], "x": 1}', b"\xff"):
            answer = self.ask("POST", "/things", {"Content-Type": "application/json"}, body)
            self.assertEqual(answer.status, 400, body)
            self.assertTrue(answer.json["messages"])
        self.assertEqual(self.calls, [])

    def test_too_long(self) -> None:
        """It is not read to the end, and not kept."""
        fields = {"Content-Type": "application/json", "Content-Length": str(1 << 40)}
        stream = self.send("POST", "/things", fields, b"[" * (MAX_BODY + 1))
        (answer,) = responses(stream.take())
        self.assertEqual(answer.status, 413)
        self.assertEqual(self.calls, [])

    def test_breaks_off(self) -> None:
        fields = {"Content-Type": "application/json", "Content-Length": "100"}
        stream = self.send("POST", "/things", fields, b"{")
        stream.finish()
        self.assertEqual((self.calls, self.house.statuses), ([], [499]))

    def test_takes_too_long(self) -> None:
        fields = {"Content-Type": "application/json", "Content-Length": "100"}
        stream = self.send("POST", "/things", fields, b"{")
        self.clock.advance(self.house.limits.stall)
        (answer,) = responses(stream.take())
        self.assertEqual((answer.status, self.calls), (408, []))

    def test_none_wanted(self) -> None:
        self.assertEqual(self.ask("DELETE", "/things", {}, b"x").status, 400)
        self.assertEqual(self.ask("DELETE", "/things").status, 200)

    def test_bytes(self) -> None:
        """What is no JSON is handed on as it comes."""
        taken = StringTransport()

        async def handle(parameters: Nothing, body: RequestBody) -> Thing:
            await body.startProducing(taken)
            return Thing(("a",))

        self.handle = handle  # type: ignore[method-assign]
        self.serve(self.operation("PUT", body=Media(OCTETS)))
        for fields in ({"Content-Type": OCTETS}, {}):
            self.assertEqual(self.ask("PUT", "/things", fields, b"\0\1").status, 200)
        self.assertEqual(taken.value(), b"\0\1" * 2)
        answer = self.ask("PUT", "/things", {"Content-Type": "text/plain"}, b"\0\1")
        self.assertEqual(answer.status, 415)

    def test_empty_bytes(self) -> None:
        self.assertEqual(self.ask("PUT", "/things").status, 200)
        self.assertEqual(self.calls, [(Nothing(), None)])


class DocumentTests(ResourceCase):
    def test_served(self) -> None:
        self.serve(self.operation(path="/x"))
        answer = self.ask("GET", "/openapi.json")
        self.assertEqual(list(json.loads(answer.body)["paths"]), ["/openapi.json", "/x"])
