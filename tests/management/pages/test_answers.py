"""Tests for :mod:`regproxy.management.pages.answers`."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred

from regproxy.management.images import UnknownImage
from regproxy.management.jobs import TooManyJobs
from regproxy.management.values import ImageTree, ImageValue, Job, Page, Stats
from regproxy.oci.errors import BadRequest
from regproxy.store.errors import IndexFailed
from tests.support.management import FakeImages, FakeOverview, image
from tests.support.pages import PagesCase, parse
from tests.support.sites import Response

NAME = "ghcr.io/acme/shop:1"
FORM = "Content-Type: application/x-www-form-urlencoded"


class Broken(FakeOverview):
    """Has a mistake in it."""

    async def stats(self) -> Stats:
        raise ZeroDivisionError


class Slow(FakeOverview):
    """Tells its numbers when the test says so."""

    def __init__(self, answering: Deferred[Stats]) -> None:
        super().__init__()
        self._answering = answering

    async def stats(self) -> Stats:
        return await self._answering


class Failing(FakeImages):
    """Fails with an error."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    async def images(self, **_: object) -> Page[ImageValue]:
        raise self._error

    async def tree(self, reference: str) -> ImageTree:
        raise self._error

    async def purge(self, reference: str) -> None:
        raise self._error


class Busy(FakeImages):
    """Can do no more now."""

    def warm(self, images: Sequence[str], platforms: Sequence[str] | None) -> Job:
        raise TooManyJobs


class MethodTests(PagesCase):
    """What can be done with a page."""

    def test_head(self) -> None:
        """HEAD is GET without the body."""
        get, head = self.ask("/"), self.ask("/", "HEAD")
        self.assertEqual((head.status, head.body), (200, b""))
        self.assertEqual({**get.headers, "date": ""}, {**head.headers, "date": ""})
        self.assertEqual(get.headers["content-length"], str(len(get.body)))

    def test_bytes(self) -> None:
        """A field is text whatever its bytes."""
        for line, field, expected in (
            (b"GET /nothing", b"Accept: text/html, \xff", b"HTTP/1.1 404 Not Found\r\n"),
            (
                b"POST /images/purge",
                b"Content-Type: \xff",
                b"HTTP/1.1 415 Unsupported Media Type\r\n",
            ),
        ):
            login = f"Host: localhost\r\nAuthorization: {self.authorization}\r\n".encode()
            answer = self.house().ask(line + b" HTTP/1.1\r\n" + login + field + b"\r\n\r\n")
            self.assertTrue(answer.startswith(expected), answer)

    def test_others(self) -> None:
        """Only what forms are sent to takes POST."""
        for path in ("/", "/images", "/events", "/image", "/ca", "/ca.crt", "/healthz"):
            for method in ("POST", "PUT", "DELETE", "OPTIONS", "BREW"):
                answer = self.ask(path, method)
                self.assertEqual(answer.status, 405)
                self.assertEqual(answer.headers["allow"], "GET, HEAD")
        answer = self.ask("/images/purge", "PUT")
        self.assertEqual(answer.headers["allow"], "GET, HEAD, POST")

    def test_fields(self) -> None:
        """Nothing is stored, framed or guessed, and nothing that is not of this site runs."""
        for target, status in (("/", 200), ("/nothing", 404), ("/ca.crt", 200), ("/images", 200)):
            answer = self.ask(target)
            self.assertEqual(answer.status, status)
            self.assertEqual(answer.headers["cache-control"], "no-store")
            self.assertEqual(answer.headers["x-content-type-options"], "nosniff")
            policy = answer.headers["content-security-policy"]
            self.assertIn("default-src 'none'", policy)
            self.assertIn("script-src 'self'", policy)
            self.assertIn("frame-ancestors 'none'", policy)
            self.assertNotIn("unsafe", policy)


class ErrorTests(PagesCase):
    """What went wrong, for people and for programs."""

    def test_page(self) -> None:
        """A browser gets a page, with the way back."""
        answer = self.ask("/image?reference=a/b:c")
        self.assertEqual(answer.status, 404)
        page = parse(answer.body)
        self.assertEqual(page.one("h1").text, "Not Found")
        self.assertIn("There is no image a/b:c here.", page.one("main").text)
        self.assertEqual(page.one("main").one("a").attributes["href"], "/")

    def test_text(self) -> None:
        """A program gets a line."""
        answer = self.house().ask(b"GET /nothing HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n")
        self.assertIn(b"Content-Type: text/plain", answer)
        self.assertTrue(answer.endswith(b"\r\n\r\nthere is nothing at this address\n"))

    def test_nothing_there(self) -> None:
        """What is not there is not there for any method."""
        for target in (
            "/nothing",
            "/images/",
            "/ca/x",
            "/static/",
            "/static/x.js",
            "//",
            "/image/",
        ):
            for method in ("GET", "POST"):
                self.assertEqual(self.ask(target, method).status, 404, target)

    def test_bad_queries(self) -> None:
        for query in (
            "sort=size",
            "q=a&q=b",
            "q=%ff",
            "q=\xff",
            "unknown=1",
            "cursor=x",
            "notice=hello",
        ):
            self.fake.images = FakeImages.of(image(NAME))
            answer = self.ask(f"/images?{query}")
            self.assertEqual(answer.status, 400, query)

    def test_no_image(self) -> None:
        """What names no image is the reader's mistake; that the store is silent is none."""
        for error, status in (
            (BadRequest("x is no image"), 400),
            (IndexFailed("the disk is gone"), 503),
            (UnknownImage("a/b:c"), 404),
        ):
            self.fake.images = Failing(error)
            for answer in (
                self.ask("/images"),
                self.ask("/image?reference=a"),
                self.post("/images/purge", reference="a"),
            ):
                self.assertEqual(answer.status, status)
                self.assertIn(str(error).encode()[1:], answer.body)

    def test_mistake(self) -> None:
        """A mistake of ours is an error for the reader, and in the log."""
        self.fake.overview = Broken()
        answer = self.ask("/")
        self.assertEqual(answer.status, 500)
        self.assertEqual(parse(answer.body).one("h1").text, "Internal Server Error")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_reader_leaves(self) -> None:
        """Who leaves takes the question along."""
        cancelled: list[object] = []
        self.fake.overview = Slow(Deferred(cancelled.append))
        stream = self.house().connect()
        stream.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.assertEqual(cancelled, [])
        stream.finish()
        self.assertEqual(len(cancelled), 1)


class FormTests(PagesCase):
    """Forms."""

    def setUp(self) -> None:
        super().setUp()
        self.fake.images = FakeImages.of(image(NAME))

    def refused(self, status: int, answer: Response) -> None:
        self.assertEqual(answer.status, status)
        self.assertIn(NAME, self.fake.images.given)

    def test_done(self) -> None:
        """It is done, and the browser is sent to a page that it may load again."""
        answer = self.post("/images/purge", reference=NAME)
        self.assertEqual((answer.status, answer.body), (303, b""))
        self.assertEqual(answer.headers["location"], "/images?notice=purged")
        self.assertEqual(self.fake.images.given, {})

    def test_other_types(self) -> None:
        """A form of another site could send text/plain without being asked for leave."""
        body = f"reference={NAME}".encode()
        for fields in ([], ["Content-Type: text/plain"], ["Content-Type: multipart/form-data"]):
            self.refused(415, self.ask("/images/purge", "POST", *fields, body=body))

    def test_too_long(self) -> None:
        self.refused(413, self.post("/images/purge", reference=NAME, back="x" * 20_000))

    def test_wrong_fields(self) -> None:
        for form in ({}, {"reference": ""}, {"reference": NAME, "more": "1"}):
            self.refused(400, self.post("/images/purge", **form))
        twice = f"reference={NAME}&reference={NAME}".encode()
        self.refused(400, self.ask("/images/purge", "POST", FORM, body=twice))

    def test_other_sites(self) -> None:
        """A page of another site cannot send a form here."""
        for field in ("Origin: http://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site"):
            self.refused(403, self.post("/images/purge", field, reference=NAME))

    def test_busy(self) -> None:
        """What cannot be begun now is said to be so."""
        self.fake.images = Busy()
        answer = self.post("/images/pull", reference=NAME)
        self.assertEqual(answer.status, 503)
        self.assertIn(b"jobs are running", answer.body)

    def test_breaks_off(self) -> None:
        """Half a form does nothing."""
        stream = self.house().connect()
        head = f"POST /images/purge HTTP/1.1\r\nHost: localhost\r\n{FORM}\r\nContent-Length: 99\r\n"
        stream.send(f"{head}Authorization: {self.authorization}\r\n\r\nreference={NAME}".encode())
        stream.finish()
        self.assertIn(NAME, self.fake.images.given)
