"""Images made from random bytes: small, valid, and never seen before.

The layers are real gzipped tar files with correct ``diff_ids``, so daemons unpack them
(OCI image specification 1.1, "Image Layer Filesystem Changeset" and "Image
Configuration"; for the Docker types, distribution's "Image Manifest V2, Schema 2").
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from typing import Any, Final

from attrs import frozen

DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"

HELM_CONFIG: Final = "application/vnd.cncf.helm.config.v1+json"
HELM_CHART: Final = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"

_DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
_DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"

LAYER_SIZE: Final = 1 << 20


def digest(content: bytes) -> str:
    """``sha256:HEX`` of *content*."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


@frozen
class Content:
    """Bytes with the media type under which they are pushed and pulled."""

    media_type: str
    content: bytes

    @property
    def digest(self) -> str:
        """``sha256:HEX`` of the bytes."""
        return digest(self.content)

    @property
    def descriptor(self) -> dict[str, Any]:
        """The OCI descriptor."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.content)}


@frozen
class Image:
    """A manifest with the blobs it names: the config first, then the layers."""

    manifest: Content
    blobs: tuple[Content, ...]
    platform: tuple[str, str] = ("linux", "amd64")

    @property
    def digest(self) -> str:
        """The digest of the manifest."""
        return self.manifest.digest

    @property
    def image_id(self) -> str:
        """The digest of the config: what docker and podman call the image's ID."""
        return self.blobs[0].digest


@frozen
class Index:
    """Several images under one name, one for each platform."""

    manifest: Content
    images: tuple[Image, ...]

    @property
    def digest(self) -> str:
        """The digest of the index."""
        return self.manifest.digest


def layer(name: str, size: int = LAYER_SIZE) -> tuple[bytes, str]:
    """A gzipped layer with one file *name* of *size* random bytes, and its ``diff_id``."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = size
        entry.mode = 0o644
        tar.addfile(entry, io.BytesIO(os.urandom(size)))
    plain = archive.getvalue()
    # Random bytes do not get smaller: the fastest level is as good as the best.
    return gzip.compress(plain, compresslevel=1, mtime=0), digest(plain)


def image(
    layers: int = 3,
    size: int = LAYER_SIZE,
    *,
    oci: bool = False,
    platform: tuple[str, str] = ("linux", "amd64"),
) -> Image:
    """A new image with as many *layers*, each of *size* bytes."""
    made = [layer(f"layer-{number}", size) for number in range(layers)]
    system, architecture = platform
    config = {
        "os": system,
        "architecture": architecture,
        "config": {"Cmd": ["/layer-0"]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in made]},
        "history": [{"created_by": f"layer-{number}"} for number in range(layers)],
    }
    blobs = [Content(_OCI_CONFIG if oci else _DOCKER_CONFIG, json.dumps(config).encode())]
    blobs += [Content(_OCI_LAYER if oci else _DOCKER_LAYER, content) for content, _ in made]
    return Image(manifest(OCI_MANIFEST if oci else DOCKER_MANIFEST, blobs), tuple(blobs), platform)


def helm_chart() -> Image:
    """An artifact like those that ``helm push`` makes: its own config and layer types."""
    chart, _ = layer("chart/Chart.yaml", 4096)
    config = {"apiVersion": "v2", "name": "chart", "version": "0.1.0", "salt": os.urandom(8).hex()}
    blobs = [
        Content(HELM_CONFIG, json.dumps(config).encode()),
        Content(HELM_CHART, chart),
    ]
    return Image(manifest(OCI_MANIFEST, blobs), tuple(blobs))


def index(*images: Image, oci: bool = True) -> Index:
    """One name for all *images*."""
    entries = []
    for each in images:
        system, architecture = each.platform
        platform = {"os": system, "architecture": architecture}
        entries.append(each.manifest.descriptor | {"platform": platform})
    media_type = OCI_INDEX if oci else DOCKER_LIST
    content = {"schemaVersion": 2, "mediaType": media_type, "manifests": entries}
    return Index(Content(media_type, json.dumps(content).encode()), images)


def manifest(media_type: str, blobs: list[Content]) -> Content:
    """A manifest of *blobs*, the configuration first."""
    config, *layers = blobs
    content = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": config.descriptor,
        "layers": [each.descriptor for each in layers],
    }
    return Content(media_type, json.dumps(content).encode())
