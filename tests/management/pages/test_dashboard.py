"""Tests for :mod:`regproxy.management.pages.dashboard`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from regproxy.management.pages.dashboard import alarms, condition, failed, hub, most_wanted
from regproxy.management.values import RateLimitValue
from regproxy.oci.kinds import RequestKind
from tests.support.management import (
    CA,
    EMPTY_STORE,
    HUB,
    MIB,
    NEXT_CA,
    NO_STATS,
    NOW,
    FakeJobs,
    FakeOverview,
    busy,
    fill,
    registry,
    request,
    warming,
)
from tests.support.pages import PagesCase


class AlarmTests(SynchronousTestCase):
    """What somebody has to look after."""

    def found(self, **changes: Any) -> str:
        return "; ".join(alarms(evolve(NO_STATS, **changes), NOW))

    def test_none(self) -> None:
        self.assertEqual(self.found(), "")

    def test_certificate(self) -> None:
        for days, text in ((-1, "has expired"), (29, "expires in 29 days"), (30, "")):
            ca = evolve(CA, not_after=NOW + timedelta(days=days, hours=1))
            found = self.found(ca=ca)
            self.assertIn(text, found)
            self.assertEqual(bool(found), bool(text))

    def test_no_more_pulls(self) -> None:
        for remaining, alarm in ((0, True), (1, False)):
            limit = RateLimitValue(HUB, "own", 100, remaining, 21600, NOW)
            self.assertEqual(bool(self.found(rate_limits=(limit,))), alarm)

    def test_store(self) -> None:
        self.assertIn("does not answer", self.found(store=None))
        self.assertIn("no room", self.found(store=evolve(EMPTY_STORE, disk_full=1)))
        self.assertIn("damaged", self.found(store=evolve(EMPTY_STORE, quarantined=1)))


class HubTests(SynchronousTestCase):
    """Pulls left at Docker Hub."""

    def test_latest(self) -> None:
        """What it said last, to whomever."""
        limits = [
            RateLimitValue(HUB, "anonymous", 100, 7, 21600, NOW - timedelta(seconds=9)),
            RateLimitValue(HUB, "own", 200, 163, 21600, NOW - timedelta(seconds=3)),
            RateLimitValue("quay.io", "own", 10, 1, 60, NOW),
        ]
        self.assertEqual(hub(limits), limits[1])
        self.assertIsNone(hub(limits[2:]))


class ConditionTests(SynchronousTestCase):
    """How a registry is doing."""

    def test_conditions(self) -> None:
        well = registry("a", 10, 0.5)
        error: dict[str, Any] = {"errors": 1, "last_error": "refused"}
        for value, expected in (
            (well, "ok"),
            (evolve(well, latency_p50=None), "ok"),
            (evolve(well, latency_p50=2.1), "slow"),
            (evolve(well, **error, last_error_at=NOW - timedelta(minutes=9)), "failing"),
            (evolve(well, **error, last_error_at=NOW - timedelta(minutes=11)), "ok"),
            (evolve(well, **error, last_error_at=NOW, backoff_seconds=3.0), "backing off"),
        ):
            self.assertEqual(condition(value, NOW), expected)


class RequestTests(SynchronousTestCase):
    """What the last requests tell."""

    def test_failed(self) -> None:
        for status in (403, 421, 429, 500, 502, 504):
            self.assertTrue(failed(request(1, status=status)))
        for status in (200, 206, 304, 401, 404, 405, 416, 499):
            self.assertFalse(failed(request(1, status=status)))

    def test_most_wanted(self) -> None:
        """Tags that were served count, the rest is what follows from them."""
        requests = [
            request(1, repository="a", reference="1"),
            request(2, repository="b", reference="1"),
            request(3, repository="b", reference="1", method="HEAD"),
            request(4, repository="c", reference="1", status=404),
            request(5, repository="d", reference="sha256:00", kind=RequestKind.BLOB),
            request(6, repository="e", reference="sha256:00", kind=RequestKind.MANIFEST),
        ]
        found = [(each.reference, each.times) for each in most_wanted(requests)]
        self.assertEqual(found, [(f"{HUB}/b:1", 2), (f"{HUB}/a:1", 1)])

    def test_only_some(self) -> None:
        requests = [request(n, repository=f"r{n}") for n in range(100)]
        self.assertEqual(len(most_wanted(requests)), 8)


class PageTests(PagesCase):
    """The page."""

    def test_begin(self) -> None:
        """With nothing to show it says so, and how to go on."""
        page = self.page("/")
        figures = [" ".join(each.text for each in group.all("dd")) for group in page.all("dl")]
        self.assertIn("\N{EN DASH} 0 of 0 requests", figures[0])
        self.assertIn("Docker Hub has not said yet", figures[0])
        for id in "fills", "registries", "top", "errors", "jobs":
            (row,) = page.by_id(id).all("tr")
            self.assertEqual(row.one("td").attributes["class"], "empty")
        self.assertIn("first figures come within seconds", page.by_id("throughput-words").text)
        self.assertIn("No client has pulled", page.by_id("alarms").text)
        self.assertEqual(page.by_id("alarms").one("a").attributes["href"], "/setup")

    def test_busy(self) -> None:
        """All that the parts tell is there."""
        self.fake = busy()
        page = self.page("/")
        self.assertEqual(page.by_id("alarms").text, "")
        figures = page.by_id("figures").text
        for shown in (
            "94.2%",
            "1,209,638 of 1,284,117 requests",
            "10.1 TiB",
            "of 11.4 TiB to clients",
            "1.31 TiB",
            "163",
            "37 of 200 used in 6 h",
        ):
            self.assertIn(shown, figures)
        self.assertIn("372 GiB of 512 GiB", page.by_id("store").text)
        self.assertIn("9 March 2036", page.by_id("certificate").text)
        registries = [row[0] for row in page.by_id("registries").rows()]
        self.assertEqual(
            registries[:4], ["public.ecr.aws", "quay.io", "nvcr.io", "registry-1.docker.io"]
        )
        self.assertEqual(registries[-1], "Nobody has asked lscr.io, *-docker.pkg.dev.")
        self.assertIn("backing off 39 s", page.by_id("registries").text)
        self.assertIn("502 Bad Gateway", page.by_id("errors").text)
        self.assertTrue(page.by_id("throughput").one("polyline", **{"class": "out"}))
        self.assertEqual(len(page.by_id("throughput-rows").all("tr")), 13)

    def test_store_is_silent(self) -> None:
        self.fake.overview = FakeOverview(evolve(NO_STATS, store=None))
        page = self.page("/")
        self.assertIn("does not answer", page.by_id("store").text)
        self.assertIn("does not answer", page.by_id("alarms").text)

    def test_limit_unknown(self) -> None:
        """A registry may tell what is left and not of how much."""
        limit = RateLimitValue(HUB, "own", None, 12, 0, NOW)
        self.fake.overview = FakeOverview(evolve(NO_STATS, rate_limits=(limit,)))
        figures = self.page("/").by_id("figures")
        self.assertIn("12 as of now", figures.text)
        self.assertEqual(figures.all("meter"), [])

    def test_transfers(self) -> None:
        """A bar as far as the transfer is; without an end while that is not known."""
        self.fake.fills.given = (
            fill("a", "acme/a", 3 * MIB, 4 * MIB, 1.5 * MIB),
            fill("b", "acme/b", 5 * MIB, None, 0),
        )
        known, unknown = self.page("/").by_id("fills").all("tr")
        bar = known.one("progress").attributes
        self.assertEqual((bar["value"], bar["max"]), (str(3 * MIB), str(4 * MIB)))
        self.assertIn("3.00 MiB of 4.00 MiB", known.text)
        self.assertIn("1.50 MiB/s", known.text)
        self.assertNotIn("value", unknown.one("progress").attributes)
        self.assertIn("5.00 MiB", unknown.text)

    def test_jobs(self) -> None:
        self.fake.jobs = FakeJobs([warming("1", "a/b:1", "a/c:1", done=1 * MIB, total=4 * MIB)])
        row = self.page("/").by_id("jobs").one("tr")
        self.assertIn("Pull again a/b:1 and 1 more", row.text)
        self.assertEqual(row.one("progress").attributes["value"], str(MIB))

    def test_next_certificate(self) -> None:
        self.fake.overview = FakeOverview(evolve(NO_STATS, ca=evolve(CA, next=NEXT_CA)))
        self.assertIn(NEXT_CA.fingerprint[:23], self.page("/").by_id("certificate").text)

    def test_live_parts(self) -> None:
        """The script finds what it replaces by ids, each of which is there once."""
        self.fake = busy()
        page = self.page("/")
        ids = [each.attributes["id"] for each in page if "id" in each.attributes]
        self.assertEqual(len(ids), len(set(ids)))
        live = [each for each in page if "data-live" in each.attributes]
        self.assertGreater(len(live), 5)
        self.assertTrue(all(each.attributes.get("id") in ids for each in live))
