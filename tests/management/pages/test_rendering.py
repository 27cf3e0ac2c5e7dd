"""Tests for :mod:`regproxy.management.pages.rendering`."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import UndefinedError
from twisted.trial.unittest import SynchronousTestCase

from regproxy import __version__
from regproxy.management.pages.rendering import MANAGEMENT, PROXY, Pages
from tests.support.management import NOW
from tests.support.pages import parse


class RenderingTests(SynchronousTestCase):
    """From a template to a page."""

    def render(self, here: str = "", **values: object) -> bytes:
        pages = Pages(MANAGEMENT, lambda: NOW)
        return pages.render("pages/error.html", here, **{"title": "T", "text": "t", **values})

    def test_frame(self) -> None:
        """What all pages have: a title, a language, landmarks, a way past the navigation."""
        page = parse(self.render())
        self.assertTrue(self.render().startswith(b"<!doctype html>"))
        self.assertEqual(page.attributes["lang"], "en")
        self.assertEqual(page.one("title").text, "T \N{MIDDLE DOT} regproxy")
        self.assertEqual(page.one("main").attributes["id"], "content")
        self.assertEqual(page.one("body").all("a")[0].attributes["href"], "#content")
        self.assertIn(__version__, page.one("footer").text)
        self.assertIn("viewport", [each.attributes.get("name") for each in page.all("meta")])

    def test_navigation(self) -> None:
        """Says where the reader is."""
        page = parse(self.render("/images"))
        links = page.one("nav").all("a")
        self.assertEqual([(each.attributes["href"], each.text) for each in links], list(MANAGEMENT))
        current = [each.text for each in links if each.attributes.get("aria-current") == "page"]
        self.assertEqual(current, ["Images"])

    def test_two_ports(self) -> None:
        """Each has its own navigation, whoever came first."""
        Pages(MANAGEMENT, lambda: NOW)
        page = Pages(PROXY, lambda: NOW).render("pages/error.html", "", title="T", text="t")
        self.assertEqual(
            [each.text for each in parse(page).one("nav").all("a")], ["Certificate", "Set up"]
        )

    def test_escapes(self) -> None:
        page = self.render(text="<b>'\"&")
        self.assertIn(b"&lt;b&gt;&#39;&#34;&amp;", page)

    def test_missing_value(self) -> None:
        """A template that names what it is not given fails, instead of showing nothing."""
        with self.assertRaises(UndefinedError):
            Pages(MANAGEMENT, lambda: NOW).render("pages/error.html", "", title="T")

    def test_nothing_inline(self) -> None:
        """The policy would forbid it: no style, no script and no handler within a page."""
        templates = [
            each
            for folder in ("templates", "templates/pages")
            for each in files("regproxy.management").joinpath(folder).iterdir()
            if each.name.endswith(".html")
        ]
        self.assertGreater(len(templates), 8)
        for each in templates:
            text = each.read_text()
            self.assertNotRegex(text, r"style=|<style|<script(?! type=\"module\" src=)|\son\w+=")
            self.assertNotRegex(text, r"https?://")
