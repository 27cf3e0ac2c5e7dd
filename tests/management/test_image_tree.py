"""What :mod:`regproxy.management.image_tree` makes is tested with the part that shows it:
:mod:`tests.management.test_images`. Here are the bounds of what it reads."""

from __future__ import annotations

from twisted.internet.defer import ensureDeferred

from regproxy.management import image_tree as image_tree_module
from regproxy.management.image_tree import tree_of
from regproxy.oci.names import Tag
from tests.support import images
from tests.support.stored_images import APP, HOST, ImageCase


class BoundsTests(ImageCase):
    def test_manifests(self) -> None:
        """What is not looked into is shown as it is named."""
        several = [images.image(1, 10, platform=("linux", f"{number}")) for number in range(4)]
        index = images.index(*several)
        self.pull(index)
        self.catch_up()
        self.patch(image_tree_module, "MAX_MANIFESTS", 3)
        record = self.successResultOf(self.catalog.image(HOST, APP, Tag("latest")))
        assert record is not None
        work = tree_of(record, self.cataloguing, self.catalog)
        root = self.successResultOf(ensureDeferred(work))
        self.assertEqual([len(node.layers) for node in root.children], [1, 1, 0, 0])
        self.assertEqual([node.stored for node in root.children], [True] * 4)
