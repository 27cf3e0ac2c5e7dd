"""Tests for :mod:`regproxy.management.pages.static`."""

from __future__ import annotations

import re

from tests.support.pages import PagesCase


class StaticTests(PagesCase):
    """What pages load."""

    def test_loaded(self) -> None:
        """What a page names is there, by an URL that changes with the content."""
        page = self.page("/")
        loaded = [str(each.attributes["href"]) for each in page.all("link")]
        loaded += [str(each.attributes["src"]) for each in page.all("script")]
        types = []
        for url in loaded:
            answer = self.ask(url)
            self.assertEqual(answer.status, 200)
            self.assertEqual(answer.headers["cache-control"], "public, max-age=31536000, immutable")
            types.append(answer.headers["content-type"])
        self.assertEqual(
            types, ["image/svg+xml", "text/css; charset=utf-8", "text/javascript; charset=utf-8"]
        )

    def test_other_versions(self) -> None:
        """An old page gets what there is now, and does not keep it under the old name."""
        for query in ("", "?0123456789ab", "?"):
            answer = self.ask(f"/static/regproxy.css{query}")
            self.assertEqual((answer.status, answer.headers["cache-control"]), (200, "no-cache"))

    def test_nothing_from_elsewhere(self) -> None:
        """Neither style nor script loads anything: it works without internet."""
        for name in "regproxy.css", "live.js":
            text = self.ask(f"/static/{name}").body.decode()
            self.assertIsNone(re.search(r"https?:|@import|url\(|import\(|import ", text))
