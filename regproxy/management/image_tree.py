"""What an image consists of, and what of it is here, as people look at it."""

from __future__ import annotations

from typing import Final

from attrs import define

from regproxy.management.values import LayerNode, ManifestNode
from regproxy.oci.manifests import ImageManifest, Manifest, ManifestInvalid, Part, Platform
from regproxy.oci.names import Digest
from regproxy.store.catalog import Catalog, ImageRecord, PartRecord
from regproxy.store.cataloguing import DEPTH, Cataloguing

#: Manifests of one image that are looked into: ten times as many as the largest indices have.
MAX_MANIFESTS: Final = 500
#: Manifests and layers that are shown: few indices that name each other make a tree without end.
MAX_NODES: Final = 10_000


async def tree_of(image: ImageRecord, cataloguing: Cataloguing, catalog: Catalog) -> ManifestNode:
    """What *image* consists of.

    Raises:
        OSError, IndexFailed: what is here cannot be read.
    """
    manifests: dict[Digest, Manifest] = {}
    named: dict[Digest, None] = {image.digest: None}
    level = [image.digest]
    for _ in range(DEPTH):
        below: dict[Digest, None] = {}
        for digest in level:
            full = len(manifests) == MAX_MANIFESTS or len(named) > MAX_NODES
            if digest in manifests or full:
                continue
            try:
                manifest = await cataloguing.manifest(digest)
            except ManifestInvalid:
                # A tag may point to anything.
                continue
            if manifest is not None:
                manifests[digest] = manifest
                below |= dict.fromkeys(part.digest for part in manifest.manifests)
                named |= dict.fromkeys(
                    part.digest for part in (*manifest.manifests, *manifest.blobs)
                )
        level = list(below)
    tree = _Tree(manifests, await catalog.parts(named))
    root = Part(image.digest, image.media_type, tree.parts[image.digest].size or 0)
    return tree.node(root, DEPTH)


@define
class _Tree:
    manifests: dict[Digest, Manifest]
    parts: dict[Digest, PartRecord]
    shown: int = 0

    def node(self, part: Part, depth: int) -> ManifestNode:
        """A manifest, and what is below it."""
        manifest = self.manifests.get(part.digest) if depth else None
        if manifest is not None:
            self.shown += len(manifest.manifests) + len(manifest.blobs)
            if self.shown > MAX_NODES:
                manifest = None
        config: LayerNode | None = None
        layers: tuple[LayerNode, ...] = ()
        children: tuple[ManifestNode, ...] = ()
        if isinstance(manifest, ImageManifest):
            config = None if manifest.config is None else self.layer(manifest.config)
            layers = tuple(map(self.layer, manifest.layers))
        elif manifest is not None:
            layers = tuple(map(self.layer, manifest.blobs))
            children = tuple(self.node(each, depth - 1) for each in manifest.manifests)
        return ManifestNode(
            digest=str(part.digest),
            media_type=part.media_type,
            bytes=part.size,
            stored=self.parts[part.digest].size is not None,
            platform=_text(part.platform),
            config=config,
            layers=layers,
            children=children,
        )

    def layer(self, part: Part) -> LayerNode:
        """A layer, or a configuration."""
        known = self.parts[part.digest]
        return LayerNode(
            digest=str(part.digest),
            media_type=part.media_type,
            bytes=part.size,
            stored=known.size is not None,
            shared_by=known.shared_by,
        )


def _text(platform: Platform | None) -> str | None:
    return None if platform is None else str(platform)
