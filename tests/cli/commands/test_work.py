"""Tests of regproxy.cli.commands.work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.commands import CommandCase
from tests.support.management_api import job

NAME = "ghcr.io/o/a:1"


class WarmTests(CommandCase):
    """warm"""

    def setUp(self) -> None:
        super().setUp()
        self.api.script("POST", "warm", job("done", kind="warm"))

    def sent(self) -> Any:
        [asked] = self.api.asked
        return asked.body

    def test_images(self) -> None:
        """Each once; all platforms unless some are named."""
        out = self.succeed("warm", NAME, "quay.io/b", NAME).stdout
        self.assertEqual(json.loads(out), job("done", kind="warm"))
        self.assertEqual(self.sent(), {"images": [NAME, "quay.io/b"], "platforms": None})

    def test_platforms(self) -> None:
        self.succeed("warm", NAME, "--platform", "linux/amd64", "--platform=linux/arm/v7")
        self.assertEqual(self.sent()["platforms"], ["linux/amd64", "linux/arm/v7"])

    def test_bad_platform(self) -> None:
        told = self.fail_with(2, "warm", NAME, "--platform", "amd64")
        self.assertIn("Invalid value for '--platform': invalid platform 'amd64'", told)

    def test_file(self) -> None:
        """A line for an image; the rest is for people."""
        text = "# ours\n\nquay.io/b # the second\n  c:2\nquay.io/b\n"
        file = Path(self.mktemp())
        file.write_text(text)
        for arguments, given in ((["--file", str(file)], None), (["--file", "-"], text)):
            self.api.asked.clear()
            self.succeed("warm", NAME, *arguments, input=given)
            self.assertEqual(self.sent()["images"], [NAME, "quay.io/b", "c:2"])

    def test_nothing(self) -> None:
        self.assertIn("name at least one IMAGE", self.fail_with(2, "warm"))
        self.fail_with(2, "warm", "--file", "-", input="#\n")
        self.fail_with(2, "warm", "--file", "/nowhere")
        self.assertEqual(self.api.asked, [])

    def test_failures(self) -> None:
        """What was not fetched is named, and the status says so."""
        failed = {"reference": NAME, "state": "failed", "done": 0, "total": None, "error": "gone"}
        self.api.script("POST", "warm", job("done", kind="warm", images=[failed]))
        result = self.run_command("warm", NAME, "--text")
        self.assertEqual(result.exit_code, 1)
        self.assertEqual(
            result.stderr.splitlines(), [f"{NAME}: gone", "Error: warm: not all of it was done"]
        )


class VerifyTests(CommandCase):
    """verify"""

    def test_done(self) -> None:
        """It waits for the end."""
        self.api.script("POST", "verify", job())
        self.api.script("GET", "jobs/j1", job("done", message="7 blobs, all good"))
        self.assertEqual(self.succeed("verify", "--text").stdout, "7 blobs, all good\n")


class GcTests(CommandCase):
    """gc"""

    def test_failed(self) -> None:
        self.api.script("POST", "gc", job("failed", kind="gc", message="no room"))
        self.assertEqual(self.fail_with(1, "gc"), "gc: failed: no room")


class PurgeTests(CommandCase):
    """purge"""

    def setUp(self) -> None:
        super().setUp()
        self.api.script("POST", "purge", {"images": 3, "blobs": 7, "bytes": 5 << 20})

    def test_conditions(self) -> None:
        """Only what was said is sent."""
        for arguments, body in (
            ([NAME], {"images": [NAME]}),
            (["--registry", "ghcr.io"], {"registry": "ghcr.io"}),
            (
                ["--repository", "ghcr.io/o/a", "--unused-for", "1d12h"],
                {"repository": "ghcr.io/o/a", "unused_for": 129600},
            ),
        ):
            self.api.asked.clear()
            out = self.succeed("purge", "--yes", *arguments).stdout
            self.assertEqual(json.loads(out), {"images": 3, "blobs": 7, "bytes": 5 << 20})
            self.assertEqual([each.body for each in self.api.asked], [body])

    def test_text(self) -> None:
        out = self.succeed("purge", "-y", NAME, "--text").stdout
        self.assertEqual(out, "3 images, 7 blobs, 5.0 MiB removed\n")

    def test_asks(self) -> None:
        """Nothing is removed without a yes."""
        for given, status in (("y\n", 0), ("n\n", 1), ("", 1)):
            self.api.asked.clear()
            result = self.run_command("purge", NAME, input=given)
            self.assertEqual(result.exit_code, status)
            self.assertIn("Remove these images from the store?", result.stderr)
            self.assertEqual(len(self.api.asked), 1 - status)

    def test_nothing(self) -> None:
        """It is never all of them by mistake."""
        self.assertIn("say what to purge", self.fail_with(2, "purge", "--yes"))
        self.assertIn("expected a duration", self.fail_with(2, "purge", "--unused-for", "x"))
        self.assertEqual(self.api.asked, [])
