"""Tests for :mod:`regproxy.management.ca_api`."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

from regproxy.management.access import Guard
from regproxy.management.ca import Authority
from regproxy.management.ca_api import operations
from regproxy.management.resource import ApiResource
from regproxy.tls.rotation import RotatingAuthority
from tests.support.api import NEIGHBOUR, ApiCase

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


class CATests(ApiCase):
    """``/ca`` and what is below it"""

    def setUp(self) -> None:
        super().setUp()
        rotating = RotatingAuthority.load(Path(self.mktemp()), None, lambda: NOW)
        self.authority = Authority(rotating, self.workers)
        guard = Guard(self.section, self.workers, self.clock, self.parts.bad_logins)
        api = ApiResource(operations(self.authority), guard)
        self.house.site.resource.putChild(b"api", api)

    def test_way(self) -> None:
        """Each answer is what there is from then on."""
        first = self.ask("GET", "/ca").json
        self.assertEqual((first["next"], first["previous"]), (None, []))
        announced = self.ask("POST", "/ca/announce")
        self.assertEqual(announced.status, 200)
        self.assertEqual(self.ask("GET", "/ca").json, announced.json)
        rotated = self.ask("POST", "/ca/rotate")
        self.assertEqual(rotated.status, 200)
        self.assertEqual(self.ask("GET", "/ca").json, rotated.json)
        self.assertEqual(rotated.json["fingerprint"], announced.json["next"]["fingerprint"])
        self.assertEqual(rotated.json["previous"][0]["fingerprint"], first["fingerprint"])

    def test_not_now(self) -> None:
        """Nothing is announced; and it is announced already."""
        answer = self.ask("POST", "/ca/rotate")
        self.assertEqual(answer.status, 409)
        self.assertIn("no CA is announced", answer.json["detail"])
        self.ask("POST", "/ca/announce")
        self.assertEqual(self.ask("POST", "/ca/announce").status, 409)

    def test_files(self) -> None:
        """What is wrong with them is told."""
        with patch.object(os, "rename", side_effect=OSError(30, "Read-only file system")):
            answer = self.ask("POST", "/ca/announce")
        self.assertEqual(answer.status, 500)
        self.assertIn("Read-only file system", answer.json["detail"])

    def test_changes(self) -> None:
        """Who may look may not change anything by that."""
        self.assertEqual(self.ask("GET", "/ca", client=NEIGHBOUR).status, 200)
        for path in "/ca/announce", "/ca/rotate":
            self.assertEqual(self.ask("POST", path, client=NEIGHBOUR).status, 403, path)
        self.assertIsNone(self.authority.state().next)
