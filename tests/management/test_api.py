"""Tests for :mod:`regproxy.management.api`."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred

from regproxy.management.api import NotReloaded, Reloaded
from regproxy.management.history import Totals
from regproxy.management.jobs import MAX_RUNNING, Progress
from regproxy.management.values import Job, JobKind
from regproxy.oci.names import Digest, Host, Repository
from regproxy.store.fill import Origin
from regproxy.web.access_log import AccessRecord
from tests.support.api import ApiCase

RECORD = AccessRecord(
    time=1.0,
    client="10.0.0.7",
    way="connect",
    method="GET",
    registry="ghcr.io",
    repository="o/app",
    reference="latest",
    status=200,
    bytes=1000,
    duration=0.02,
    cache="hit",
    reason=None,
)


class ProxyCase(ApiCase):
    maxDiff = None

    def get(self, path: str) -> Any:
        answer = self.ask("GET", path)
        self.assertEqual(answer.status, 200, answer.body)
        return answer.json

    def items(self, path: str) -> list[Any]:
        found: list[Any] = self.get(path)["items"]
        return found


class NumbersTests(ProxyCase):
    def test_stats(self) -> None:
        self.traffic.record(RECORD)
        self.assertEqual(self.get("/stats")["bytes_to_clients"], 1000)

    def test_history(self) -> None:
        self.history.tick()
        self.totals = Totals(100, 50, 2, 1)
        self.clock.advance(10)
        self.history.tick()
        self.assertEqual(
            self.get("/history"),
            {
                "items": [
                    {
                        "time": "1970-01-01T00:16:30Z",
                        "seconds": 10.0,
                        "bytes_to_clients": 100,
                        "bytes_from_upstream": 50,
                        "requests": 2,
                        "hits": 1,
                    }
                ],
                "next": None,
            },
        )

    def test_registries(self) -> None:
        """In parts."""
        for registry in ("quay.io", "ghcr.io", "gcr.io"):
            self.traffic.record(evolve(RECORD, registry=registry))
        first = self.get("/registries?limit=2")
        self.assertEqual([each["name"] for each in first["items"]], ["gcr.io", "ghcr.io"])
        rest = self.get(f"/registries?limit=2&cursor={first['next']}")
        self.assertEqual([each["name"] for each in rest["items"]], ["quay.io"])
        self.assertIsNone(rest["next"])

    def test_cursor_of_another_list(self) -> None:
        self.traffic.record(RECORD)
        answer = self.ask("GET", "/registries?cursor=x")
        self.assertEqual(answer.status, 400)
        self.assertEqual(answer.json["detail"], "the cursor is none of this list")

    def test_fills(self) -> None:
        self.assertEqual(self.items("/fills"), [])
        fill = self.finish(self.store.begin(Digest.of(b"x"), 1))
        fill.origin = Origin(Host("ghcr.io"), Repository("o/app"), "blob")
        (value,) = self.items("/fills")
        self.assertEqual((value["digest"], value["state"]), (str(fill.digest), "running"))


class RequestsTests(ProxyCase):
    def setUp(self) -> None:
        super().setUp()
        for number in range(5):
            self.events.record(
                evolve(
                    RECORD,
                    reference=str(number),
                    status=200 if number else 404,
                    cache="miss" if number == 1 else "hit",
                    registry="quay.io" if number == 2 else "ghcr.io",
                )
            )

    def references(self, query: str = "") -> list[str]:
        return [each["reference"] for each in self.items(f"/requests{query}")]

    def test_all(self) -> None:
        self.assertEqual(self.references(), ["4", "3", "2", "1", "0"])

    def test_chosen(self) -> None:
        since = self.items("/requests")[2]["id"]
        for query, expected in (
            ("?limit=2", ["4", "3"]),
            ("?status=404", ["0"]),
            ("?cache=miss", ["1"]),
            ("?registry=quay.io", ["2"]),
            (f"?since={since}", ["4", "3"]),
            (f"?since={since}&status=404", []),
        ):
            self.assertEqual(self.references(query), expected, query)


class JobsTests(ProxyCase):
    def start(self) -> Job:
        async def work(progress: Progress) -> None:
            await Deferred()

        return self.parts.jobs.start(JobKind.WARM, work)

    def test_list(self) -> None:
        """The latest first, in parts."""
        ids = []
        for _ in range(3):
            ids.append(self.start().id)
            self.time += 1
        first = self.get("/jobs?limit=2")
        self.assertEqual([each["id"] for each in first["items"]], [ids[2], ids[1]])
        rest = self.get(f"/jobs?limit=2&cursor={first['next']}")
        self.assertEqual([each["id"] for each in rest["items"]], [ids[0]])

    def test_one(self) -> None:
        job = self.start()
        self.assertEqual(self.get(f"/jobs/{job.id}")["state"], "running")
        self.assertEqual(self.ask("GET", "/jobs/x").status, 404)

    def test_cancel(self) -> None:
        job = self.start()
        answer = self.ask("DELETE", f"/jobs/{job.id}")
        self.assertEqual((answer.status, answer.json["state"]), (200, "cancelled"))
        self.assertEqual(self.get(f"/jobs/{job.id}")["state"], "cancelled")

    def test_verify(self) -> None:
        self.put(b"content")
        self.time += 1
        answer = self.ask("POST", "/verify")
        self.assertEqual((answer.status, answer.json["kind"]), (202, "verify"))
        job = self.get(f"/jobs/{answer.json['id']}")
        self.assertEqual((job["state"], job["done"], job["unit"]), ("done", 7, "bytes"))

    def test_gc(self) -> None:
        answer = self.ask("POST", "/gc")
        self.assertEqual((answer.status, answer.json["kind"]), (202, "gc"))
        self.assertEqual(self.get(f"/jobs/{answer.json['id']}")["state"], "done")

    def test_too_many(self) -> None:
        for _ in range(MAX_RUNNING):
            self.start()
        for path in ("/verify", "/gc"):
            answer = self.ask("POST", path)
            self.assertEqual(answer.status, 503)
            self.assertIn(f"{MAX_RUNNING} jobs are running", answer.json["detail"])


class ReloadTests(ProxyCase):
    def test_good(self) -> None:
        self.parts.reload = lambda: Reloaded(restart_needed=True)
        answer = self.ask("POST", "/reload")
        self.assertEqual((answer.status, answer.json), (200, {"restart_needed": True}))

    def test_bad(self) -> None:
        def fail() -> Reloaded:
            raise NotReloaded(["cache.max_size: expected a size", "x: unknown key"])

        self.parts.reload = fail
        answer = self.ask("POST", "/reload")
        self.assertEqual(answer.status, 422)
        self.assertEqual(
            answer.json["messages"], ["cache.max_size: expected a size", "x: unknown key"]
        )
