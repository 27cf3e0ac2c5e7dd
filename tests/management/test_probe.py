"""Tests for :mod:`regproxy.management.probe`."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from regproxy.management.probe import ReadyResource
from regproxy.management.readiness import Readiness
from tests.support.sites import House, Response, responses
from tests.support.streams import MemoryStream


class Given(Readiness):
    """Readiness that the test gives."""

    def __init__(self, answer: Callable[[], list[str] | Deferred[list[str]]]) -> None:
        self._given = answer

    async def problems(self) -> list[str]:
        given = self._given()
        return await given if isinstance(given, Deferred) else given


class ProbeTests(SynchronousTestCase):
    def send(
        self,
        given: Callable[[], list[str] | Deferred[list[str]]],
        method: str = "GET",
        path: str = "/readyz",
    ) -> MemoryStream:
        root = Resource()
        root.putChild(b"readyz", ReadyResource(Given(given)))
        stream = House(root).connect()
        stream.send(f"{method} {path} HTTP/1.1\r\nHost: proxy\r\n\r\n".encode())
        return stream

    def ask(self, problems: list[str], method: str = "GET") -> Response:
        (answer,) = responses(self.send(lambda: problems, method).take(), method)
        return answer

    def test_ready(self) -> None:
        answer = self.ask([])
        self.assertEqual((answer.status, answer.body), (200, b"ok\n"))
        self.assertEqual(answer.headers["content-type"], "text/plain; charset=utf-8")
        self.assertEqual(answer.headers["cache-control"], "no-store")
        self.assertEqual(answer.headers["x-content-type-options"], "nosniff")

    def test_not_ready(self) -> None:
        answer = self.ask(["one", "two"])
        self.assertEqual((answer.status, answer.body), (503, b"one\ntwo\n"))

    def test_head(self) -> None:
        answer = self.ask(["one"], "HEAD")
        self.assertEqual((answer.status, answer.headers["content-length"]), (503, "4"))

    def test_other_methods(self) -> None:
        answer = self.ask([], "POST")
        self.assertEqual((answer.status, answer.headers["allow"]), (405, "get, head"))

    def test_nothing_below(self) -> None:
        (answer,) = responses(self.send(list, path="/readyz/x").take())
        self.assertEqual(answer.status, 404)

    def test_leaves(self) -> None:
        cancelled: list[object] = []
        stream = self.send(lambda: Deferred(cancelled.append))
        stream.finish()
        self.assertEqual(len(cancelled), 1)

    def test_mistake(self) -> None:
        (answer,) = responses(self.send(lambda: [str(1 // 0)]).take())
        self.assertEqual(answer.status, 500)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
