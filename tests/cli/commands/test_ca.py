"""Tests of regproxy.cli.commands.ca."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.commands import CommandCase
from tests.support.management_api import Answer, ca, problem

ROOT = {"subject": "CN=next", "fingerprint": "12:34", "not_after": "2046-11-24T12:00:00Z"}


class ShowTests(CommandCase):
    """ca show"""

    def test_json(self) -> None:
        said = ca(next=ROOT, new=1)
        self.api.script("GET", "ca", said)
        self.assertEqual(json.loads(self.succeed("ca", "show").stdout), said)

    def test_text(self) -> None:
        self.api.script("GET", "ca", ca(next=ROOT, previous=[ROOT | {"subject": "CN=old"}]))
        out = " ".join(self.succeed("ca", "show", "--text").stdout.split())
        for text in (
            "In use CN=regproxy, until 2036-11-24",
            "Next CN=next, until 2046-11-24",
            "Before CN=old, until 2046-11-24",
            "SHA-256 12:34",
        ):
            self.assertIn(text, out)


class ExportTests(CommandCase):
    """ca export"""

    def test_forms(self) -> None:
        self.api.script("GET", "/ca.crt", Answer(b"PEM\n"))
        self.api.script("GET", "/ca.der", Answer(b"\x30\x82"))
        self.assertEqual(self.succeed("ca", "export").stdout_bytes, b"PEM\n")
        path = Path(self.mktemp())
        self.succeed("ca", "export", "--der", str(path))
        self.assertEqual(path.read_bytes(), b"\x30\x82")

    def test_failure_leaves_the_file(self) -> None:
        """A certificate is not lost because the server does not answer."""
        self.api.script("GET", "/ca.crt", problem(500, "internal error"))
        path = Path(self.mktemp())
        path.write_text("old")
        self.assertEqual(self.fail_with(1, "ca", "export", str(path)), "internal error")
        self.assertEqual(path.read_text(), "old")


class ChangeTests(CommandCase):
    """ca announce, ca rotate"""

    def test_announce(self) -> None:
        self.api.script("POST", "ca/announce", ca(next=ROOT))
        self.assertEqual(json.loads(self.succeed("ca", "announce").stdout), ca(next=ROOT))

    def test_rotate(self) -> None:
        """It has to be meant."""
        self.api.script("POST", "ca/rotate", ca())
        self.assertEqual(json.loads(self.succeed("ca", "rotate", "--yes").stdout), ca())
        for given, status in (("y\n", 0), ("n\n", 1)):
            self.api.asked.clear()
            self.assertEqual(self.run_command("ca", "rotate", input=given).exit_code, status)
            self.assertEqual(len(self.api.asked), 1 - status)

    def test_not_announced(self) -> None:
        self.api.script("POST", "ca/rotate", problem(409, "announce it first"))
        self.assertEqual(self.fail_with(1, "ca", "rotate", "-y"), "announce it first")
