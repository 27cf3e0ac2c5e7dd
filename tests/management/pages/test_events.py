"""Tests for :mod:`regproxy.management.pages.events`."""

from __future__ import annotations

from tests.support.management import FakeEvents, busy, request
from tests.support.pages import Element, PagesCase


class EventTests(PagesCase):
    """``/events``"""

    def rows(self, page: Element) -> list[list[str]]:
        return page.by_id("requests").rows()

    def test_empty(self) -> None:
        self.assertIn("Nobody has asked", self.page("/events").by_id("requests").text)

    def test_row(self) -> None:
        self.fake.events = FakeEvents(
            [
                request(
                    7, cache="stale", status=200, reason="the registry is down", duration=0.0123
                ),
                request(
                    6,
                    method="",
                    way="tls",
                    kind="other",
                    repository=None,
                    reference=None,
                    status=421,
                    cache="none",
                ),
            ]
        )
        first, second = self.rows(self.page("/events"))
        self.assertEqual(first[1:3], ["stale", "200"])
        self.assertEqual(first[3], "GET tag docker.io/library/alpine:3.20 the registry is down")
        self.assertEqual(first[4:], ["9.19 KiB", "12 ms", "10.0.4.17 connect"])
        self.assertEqual(second[2:4], ["421", "tls other registry-1.docker.io"])

    def test_thousand(self) -> None:
        """They come in parts; together they are all, the latest first."""
        self.fake = busy()
        target, times, seen = "/events", [], 0
        while target:
            page = self.page(target)
            rows = self.rows(page)
            self.assertLessEqual(len(rows), 100)
            seen += len(rows)
            times += [str(each.attributes["datetime"]) for each in page.all("time")]
            # What changes under the reader is not read back.
            self.assertEqual(bool(page.all("script")), target == "/events")
            following = page.all("a", rel="next")
            target = str(following[0].attributes["href"]) if following else ""
        self.assertEqual(seen, 1000)
        self.assertEqual(times, sorted(times, reverse=True))

    def test_filters(self) -> None:
        """By registry, by cache status, and those that failed."""
        self.fake = busy()
        rows = self.rows(self.page("/events?registry=ghcr.io&cache=miss&outcome="))
        self.assertGreater(len(rows), 5)
        self.assertTrue(all(row[1] == "miss" and "ghcr.io/" in row[3] for row in rows))
        rows = self.rows(self.page("/events?outcome=failed"))
        self.assertEqual([row[2] for row in rows], ["502", "429", "403"])
        page = self.page("/events?registry=ghcr.io&cache=miss")
        chosen = [each.text for each in page.all("option") if "selected" in each.attributes]
        self.assertEqual(chosen, ["ghcr.io", "miss"])
        page = self.page("/events?registry=nobody.example")
        self.assertIn("No request fits", page.by_id("requests").text)

    def test_bad(self) -> None:
        for query in ("outcome=good", "before=x", "before=-1", "before=1&before=2"):
            self.assertEqual(self.ask(f"/events?{query}").status, 400)
