"""Tests of regproxy.cli.commands.overview."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.support.commands import CommandCase
from tests.support.management_api import fill, problem, registry, stats


def page(*items: Any) -> dict[str, Any]:
    return {"items": [*items], "next": None}


class StatusTests(CommandCase):
    """status"""

    def test_json(self) -> None:
        """What the server says, to the last key."""
        said = stats(new=[1])
        self.api.script("GET", "stats", said)
        self.assertEqual(json.loads(self.succeed("status").stdout), said)

    def test_text(self) -> None:
        self.api.script("GET", "stats", stats())
        lines = self.succeed("status", "--text").stdout.splitlines()
        self.assertIn("Hits           9 (90.0%)", [line.rstrip() for line in lines])

    def test_refused(self) -> None:
        self.api.script("GET", "stats", problem(403, "in none of the networks"))
        self.assertEqual(self.fail_with(4, "status"), "in none of the networks")

    def test_no_server(self) -> None:
        url = self.api.url
        self.api.stop()
        self.addCleanup(self.api.start)
        self.assertIn(f"cannot talk to regproxy at {url}", self.fail_with(3, "status"))


class TopTests(CommandCase):
    """top"""

    def setUp(self) -> None:
        super().setUp()
        self.slept: list[float] = []
        self.patch(time, "sleep", self.slept.append)
        self.api.script("GET", "stats", stats())
        self.api.script("GET", "fills", page(fill()))
        self.api.script("GET", "registries", page(registry("ghcr.io")))

    def test_json(self) -> None:
        """A line for each look."""
        lines = self.succeed("top", "--count", "2", "--interval", "5").stdout.splitlines()
        self.assertEqual(
            [json.loads(line) for line in lines],
            [{"stats": stats(), "fills": [fill()], "registries": [registry("ghcr.io")]}] * 2,
        )
        self.assertEqual(self.slept, [5.0])

    def test_text(self) -> None:
        self.api.script("GET", "stats", stats(), stats(requests=11))
        out = self.succeed("top", "--count", "2", "--text").stdout
        self.assertEqual(out.count("ghcr.io/o/a blob"), 2)
        self.assertIn("Requests       11, ", out)

    def test_interrupted(self) -> None:
        """It is how it ends."""

        def interrupt(_: float) -> None:
            raise KeyboardInterrupt

        self.patch(time, "sleep", interrupt)
        self.assertEqual(len(self.succeed("top").stdout.splitlines()), 1)

    def test_failure(self) -> None:
        """When the server goes, so does this."""
        self.api.script("GET", "fills", page(), problem(500, "internal error"))
        self.assertEqual(self.fail_with(1, "top"), "internal error")
