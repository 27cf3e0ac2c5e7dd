"""What :mod:`regproxy.management.image_tree` makes is tested with the part that shows it:
:mod:`tests.management.test_images`. Here are the bounds of what it reads."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.defer import Deferred, ensureDeferred

from regproxy.management import image_tree as image_tree_module
from regproxy.management.image_tree import tree_of
from regproxy.management.values import ManifestNode
from regproxy.oci.names import Digest, Tag
from regproxy.store.catalog import PartRecord
from tests.support import images
from tests.support.stored_images import APP, HOST, ImageCase


class BoundsTests(ImageCase):
    def test_manifests(self) -> None:
        """What is not looked into is shown as it is named."""
        self.patch(image_tree_module, "MAX_MANIFESTS", 3)
        root = self.tree()
        self.assertEqual([len(node.layers) for node in root.children], [1, 1, 0, 0])
        self.assertEqual([node.stored for node in root.children], [True] * 4)

    def test_parts(self) -> None:
        """Of what will not be shown the index is not asked: that may be millions."""
        asked: list[Digest] = []
        ask = self.catalog.parts

        def parts(digests: Iterable[Digest]) -> Deferred[dict[Digest, PartRecord]]:
            asked.extend(digests)
            return ask(asked)

        self.patch(self.catalog, "parts", parts)
        self.patch(image_tree_module, "MAX_NODES", 6)
        root = self.tree()
        self.assertEqual([len(node.layers) for node in root.children], [1, 0, 0, 0])
        # The index, four manifests, and the configuration and the layer of one.
        self.assertEqual(len(asked), 7)

    def tree(self) -> ManifestNode:
        """Four images, each with a configuration and a layer."""
        several = [images.image(1, 10, platform=("linux", f"{number}")) for number in range(4)]
        self.pull(images.index(*several))
        self.catch_up()
        record = self.successResultOf(self.catalog.image(HOST, APP, Tag("latest")))
        assert record is not None
        work = tree_of(record, self.cataloguing, self.catalog)
        return self.successResultOf(ensureDeferred(work))
