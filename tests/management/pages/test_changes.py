"""Tests for :mod:`regproxy.management.pages.changes`."""

from __future__ import annotations

from urllib.parse import urlencode

from tests.support.management import FakeImages, image
from tests.support.pages import PagesCase

NAME = "ghcr.io/acme/shop:1"


class ChangeTests(PagesCase):
    """What can be done with an image."""

    def setUp(self) -> None:
        super().setUp()
        self.fake.images = FakeImages.of(image(NAME), image("ghcr.io/acme/other:1"))
        self.fake.images.jobs = self.fake.jobs

    def test_questions(self) -> None:
        """Each is asked about first, in a form that does what the question says."""
        for path in "pin", "unpin", "pull", "purge":
            page = self.page(f"/images/{path}?reference={NAME}")
            form = page.one("form")
            self.assertEqual(form.attributes["method"], "post")
            self.assertEqual(form.attributes["action"], f"/images/{path}")
            self.assertEqual(form.one("input").attributes["value"], NAME)
            self.assertIn(NAME, page.one("main").text)
            self.assertEqual(
                form.one("a").attributes["href"], "/image?reference=ghcr.io%2Facme%2Fshop%3A1"
            )
        self.assertEqual(len(self.fake.images.given), 2)
        self.assertFalse(self.fake.images.given[NAME].pinned)
        self.assertEqual(self.fake.jobs.given, [])

    def test_purge(self) -> None:
        answer = self.post("/images/purge", reference=NAME)
        self.assertEqual(answer.headers["location"], "/images?notice=purged")
        self.assertEqual(list(self.fake.images.given), ["ghcr.io/acme/other:1"])
        self.assertIn("Purged", self.page("/images?notice=purged").one("div", role="status").text)

    def test_pin(self) -> None:
        """And back to the list that the button was in, or to the image."""
        back = "/images?q=a%20b&cursor=xy"
        answer = self.post("/images/pin", reference=NAME, back=back)
        self.assertEqual((answer.status, answer.headers["location"]), (303, back))
        self.assertTrue(self.fake.images.given[NAME].pinned)
        answer = self.post("/images/unpin", reference=NAME)
        self.assertEqual(
            answer.headers["location"],
            "/image?reference=ghcr.io%2Facme%2Fshop%3A1&notice=unpinned",
        )
        self.assertFalse(self.fake.images.given[NAME].pinned)

    def test_back_to_elsewhere(self) -> None:
        """Nobody is sent to another site."""
        for back in (
            "http://evil.example/",
            "//evil.example",
            "/\\evil.example",
            "/images\r\nX: y",
            "/imagesx",
            "/images?\N{SNOWMAN}",
        ):
            answer = self.post("/images/pin", reference=NAME, back=back)
            self.assertEqual(answer.status, 400, back)

    def test_pull_again(self) -> None:
        """A job, and the page on which it is seen."""
        answer = self.post("/images/pull", reference=NAME)
        self.assertEqual(answer.headers["location"], "/#jobs-title")
        (job,) = self.fake.jobs.given
        self.assertEqual([each.reference for each in job.images], [NAME])
        page = self.page("/")
        self.assertEqual(page.by_id("jobs-title").text, "Jobs")
        self.assertIn(NAME, page.by_id("jobs").text)

    def test_unknown(self) -> None:
        for path in "pin", "unpin", "purge":
            self.assertEqual(self.post(f"/images/{path}", reference="a/b:c").status, 404)
            self.assertEqual(self.ask(f"/images/{path}?reference=a/b:c").status, 404)

    def test_rights(self) -> None:
        """Without a login there are questions, and no answers."""
        self.authorization = ""
        for path in "pin", "unpin", "pull", "purge":
            self.assertEqual(self.ask(f"/images/{path}?reference={NAME}").status, 200)
            answer = self.post(f"/images/{path}", reference=NAME)
            self.assertEqual(answer.status, 401)
            self.assertIn("basic", answer.headers["www-authenticate"].lower())
        self.assertEqual(len(self.fake.images.given), 2)
        self.assertEqual(self.fake.jobs.given, [])


class RepositoryTests(PagesCase):
    """What can be done with a repository."""

    def test_purge(self) -> None:
        """After a question: all of its images but those that are pinned, and no others."""
        names = "ghcr.io/acme/shop:1", "ghcr.io/acme/shop:2", "ghcr.io/acme/other:1"
        self.fake.images = FakeImages.of(
            image(names[0]), image(names[1], pinned=True), image(names[2])
        )
        asked = {"registry": "ghcr.io", "repository": "acme/shop"}
        page = self.page(f"/repositories/purge?{urlencode(asked)}")
        self.assertIn("ghcr.io/acme/shop", page.one("main").text)
        form = page.one("form")
        self.assertEqual(form.attributes["action"], "/repositories/purge")
        fields = {each.attributes["name"]: each.attributes["value"] for each in form.all("input")}
        self.assertEqual(fields, asked)
        answer = self.post("/repositories/purge", **asked)
        self.assertEqual(answer.headers["location"], "/repositories?notice=purged")
        self.assertEqual(list(self.fake.images.given), list(names[1:]))
        page = self.page("/repositories?notice=purged")
        self.assertIn("Purged", page.one("div", role="status").text)

    def test_unnamed(self) -> None:
        """Nothing is purged that is not named."""
        self.fake.images = FakeImages.of(image("ghcr.io/acme/shop:1"))
        for form in ({}, {"registry": "ghcr.io"}, {"registry": "ghcr.io", "repository": ""}):
            self.assertEqual(self.post("/repositories/purge", **form).status, 400)
        self.assertEqual(len(self.fake.images.given), 1)
