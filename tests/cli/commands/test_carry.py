"""Tests of regproxy.cli.commands.carry."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.archives import layout, saved, tar, written
from tests.support.commands import CommandCase
from tests.support.images import image, index

NAME = "ghcr.io/o/a:1"


class ExportTests(CommandCase):
    """export"""

    def test_json(self) -> None:
        """A line for each image says what is in the archive."""
        made = index(image(1, 100), image(1, 100, platform=("linux", "arm64")))
        self.api.add(NAME, made)
        self.api.add("ghcr.io/o/b:1", made)
        path = Path(self.mktemp())
        out = self.succeed("export", NAME, "ghcr.io/o/b:1", NAME, str(path)).stdout
        lines = [json.loads(line) for line in out.splitlines()]
        self.assertEqual(
            lines,
            [
                {
                    "reference": reference,
                    "digest": made.digest,
                    "platforms": ["linux/amd64", "linux/arm64"],
                    "left_out": [],
                    "bytes": sum(map(len, self.api.contents.values())),
                }
                for reference in (NAME, "ghcr.io/o/b:1")
            ],
        )
        self.assertTrue(path.exists())

    def test_remarks(self) -> None:
        """What is not in it, and who cannot read it, is said."""
        lost = image(1, 100, platform=("linux", "arm64"))
        images = image(1, 100), image(1, 100, platform=("linux", "s390x")), lost
        self.api.add(NAME, index(*images))
        del self.api.contents[lost.blobs[1].digest]
        result = self.succeed("export", NAME, self.mktemp(), "--text")
        self.assertRegex(result.stdout, f"^{NAME}: [0-9.]+ KiB\n$")
        self.assertEqual(
            result.stderr.splitlines(),
            [
                f"{NAME}: linux/arm64 is not stored as a whole and was left out",
                f"{NAME}: docker load does not take it; see --platform",
            ],
        )

    def test_platform(self) -> None:
        self.api.add(NAME, index(image(1, 100), image(1, 100, platform=("linux", "arm64"))))
        out = self.succeed("export", "--platform", "linux/arm64", NAME, self.mktemp()).stdout
        self.assertEqual(json.loads(out)["platforms"], ["linux/arm64"])
        self.fail_with(2, "export", "--platform", "arm64", NAME, self.mktemp())

    def test_not_there(self) -> None:
        path = Path(self.mktemp())
        self.assertEqual(self.fail_with(1, "export", NAME, str(path)), "there is no image")
        self.assertFalse(path.exists())

    def test_usage(self) -> None:
        """An image and a file."""
        self.fail_with(2, "export", NAME)


class ImportTests(CommandCase):
    """import"""

    def test_json(self) -> None:
        here, missing = image(1, 100), image(1, 100, platform=("linux", "arm64"))
        made = index(here, missing)
        files = {
            name: content
            for name, content in layout(made).items()
            if missing.digest.partition(":")[2] not in name
        }
        path = written(self.mktemp(), tar(files))
        out = self.succeed("import", str(path), "--name", NAME).stdout
        self.assertEqual(
            json.loads(out),
            {
                "reference": NAME,
                "digest": made.digest,
                "media_type": made.manifest.media_type,
                "left_out": ["linux/arm64"],
            },
        )
        self.assertEqual(self.api.images[NAME][0], made.digest)
        text = self.succeed("import", str(path), "--name", NAME, "--text")
        self.assertEqual(text.stdout, f"{NAME}: {made.digest}\n")
        self.assertEqual(text.stderr, f"{NAME}: linux/arm64 is not in the archive\n")

    def test_names_of_the_archive(self) -> None:
        path = written(self.mktemp(), tar(saved(image(1, 100), "a:1", "b:2")))
        lines = self.succeed("import", str(path)).stdout.splitlines()
        self.assertEqual([json.loads(line)["reference"] for line in lines], ["a:1", "b:2"])

    def test_bad_archive(self) -> None:
        """One line says what is wrong, and nothing is sent."""
        path = written(self.mktemp(), tar({"../a": b""}))
        told = self.fail_with(1, "import", str(path))
        self.assertEqual(told, f"{path}: '../a' is no name of a file in an archive")
        self.assertEqual(self.api.asked, [])

    def test_usage(self) -> None:
        self.fail_with(2, "import")
        self.fail_with(2, "import", "/nowhere")
