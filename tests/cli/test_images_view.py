"""Tests of regproxy.cli.images_view."""

from __future__ import annotations

from datetime import datetime, timedelta

from twisted.trial.unittest import SynchronousTestCase

from regproxy.cli.images_view import image, images
from regproxy.cli.values import Image, ImageTree, read
from tests.support.images import image as make_image
from tests.support.images import index
from tests.support.management_api import NOW, ManagementApi, image_value
from tests.support.screen import lines_of

LATER = datetime.fromisoformat(NOW) + timedelta(days=2)


class ImagesTests(SynchronousTestCase):
    """images"""

    def test_lines(self) -> None:
        values = [
            image_value("ghcr.io/o/[a]\x1b:1", bytes=5 << 20, pinned=True),
            image_value("ghcr.io/o/b:1", complete=False),
        ]
        lines = lines_of(images(read(tuple[Image, ...], values), LATER))
        self.assertEqual(
            [" ".join(line.split()) for line in lines],
            [
                "Image Digest Size State Last used",
                "ghcr.io/o/[a]�:1 sha256:000000000000 5.0 MiB complete, pinned 2 days ago",
                "ghcr.io/o/b:1 sha256:000000000000 1 B in parts 2 days ago",
            ],
        )


class ImageTests(SynchronousTestCase):
    """image"""

    def test_tree(self) -> None:
        """Platforms, layers, what is missing, and what others have too."""
        here, missing = make_image(1), make_image(1, platform=("linux", "arm64"))
        api = ManagementApi()
        api.add("ghcr.io/o/a:1", index(here, missing))
        for content in (missing.manifest, *missing.blobs):
            del api.contents[content.digest]
        tree = api.tree("ghcr.io/o/a:1")
        tree["manifest"]["children"][0]["layers"][0]["shared_by"] = 3
        lines = lines_of(image(read(ImageTree, tree), LATER))
        self.assertIn("Last used   2 days ago", lines)
        config, layer = (each.digest[:19] for each in here.blobs)
        drawn = [" ".join(line.strip("─│├└ ").split()[:2]) for line in lines[-5:]]
        self.assertEqual(
            drawn,
            [
                f"index {api.images['ghcr.io/o/a:1'][0][:19]}",
                f"linux/amd64 {here.digest[:19]}",
                f"config {config}",
                f"layer {layer}",
                f"linux/arm64 {missing.digest[:19]}",
            ],
        )
        self.assertTrue(lines[-2].endswith("in 3 manifests"))
        self.assertTrue(lines[-1].endswith("not stored"))
