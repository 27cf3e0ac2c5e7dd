"""Tests of regproxy.cli.commands.images."""

from __future__ import annotations

import json

from tests.support.commands import CommandCase
from tests.support.images import image
from tests.support.management_api import Answer, image_value, problem

NAME = "ghcr.io/o/a:1"


class ListTests(CommandCase):
    """images ls"""

    def test_json(self) -> None:
        """A line for each image, of all parts of the list."""
        values = [image_value(f"ghcr.io/o/{name}:1") for name in "ab"]
        self.api.script(
            "GET",
            "images",
            {"items": values[:1], "next": "c"},
            {"items": values[1:], "next": None},
        )
        lines = self.succeed("images", "ls").stdout.splitlines()
        self.assertEqual([json.loads(line) for line in lines], values)

    def test_what_is_asked_for(self) -> None:
        self.api.script("GET", "images", {"items": [], "next": None})
        options = ["--registry", "ghcr.io", "--repository", "o/a", "--sort", "bytes"]
        self.succeed("images", "ls", "text", *options)
        self.succeed("images", "ls")
        self.assertEqual(
            [each.query for each in self.api.asked],
            [
                {
                    "limit": "1000",
                    "q": "text",
                    "registry": "ghcr.io",
                    "repository": "o/a",
                    "sort": "bytes",
                },
                {"limit": "1000", "sort": "last_used"},
            ],
        )

    def test_text(self) -> None:
        page = {"items": [image_value(NAME)], "next": None}
        self.api.script("GET", "images", page)
        out = self.succeed("images", "ls", "--text").stdout
        self.assertEqual(out.splitlines()[1].split()[0], NAME)


class ShowTests(CommandCase):
    """images show"""

    def test_forms(self) -> None:
        made = image(1, 100)
        self.api.add(NAME, made)
        out = self.succeed("images", "show", NAME).stdout
        self.assertEqual(json.loads(out), self.api.tree(NAME))
        out = self.succeed("images", "show", NAME, "--text").stdout
        self.assertIn(made.digest[:19], out)

    def test_unknown(self) -> None:
        self.assertEqual(self.fail_with(1, "images", "show", NAME), "there is no image")


class ChangeTests(CommandCase):
    """images rm, pin, unpin"""

    def test_each(self) -> None:
        """The server is told of each image, in their order."""
        for command, method, path in (
            ("rm", "DELETE", "image"),
            ("pin", "PUT", "image/pin"),
            ("unpin", "DELETE", "image/pin"),
        ):
            self.api.asked.clear()
            self.api.script(method, path, Answer(None, 204))
            result = self.succeed("images", command, NAME, "quay.io/o/b")
            self.assertEqual(result.output, "")
            self.assertEqual(
                [(each.method, each.path, each.query) for each in self.api.asked],
                [
                    (method, path, {"reference": NAME}),
                    (method, path, {"reference": "quay.io/o/b"}),
                ],
            )

    def test_failure(self) -> None:
        """It ends at the first that fails."""
        self.api.script("DELETE", "image", Answer(None, 204), problem(404, "there is no b"))
        self.assertEqual(self.fail_with(1, "images", "rm", "a", "b", "c"), "there is no b")
        self.assertEqual(len(self.api.asked), 2)

    def test_no_images(self) -> None:
        for command in ("rm", "pin", "unpin"):
            self.fail_with(2, "images", command)
