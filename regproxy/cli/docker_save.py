"""Archives of ``docker save`` (moby, "Docker Image Specification v1.2", manifest.json).

Docker before release 25, skopeo (``docker-archive:``), podman and many build tools write them.
Such an archive has no manifests: its layers are mostly not compressed, and the digests by which
registries know an image are lost. Manifests are made here, the same ones each time.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable
from typing import Any, BinaryIO, Final, cast

from attrs import frozen

from regproxy.cli.archive import Archive, ArchiveUnusable, File
from regproxy.cli.bundle import MAX_DOCUMENT, Bundle, CarriedImage, Content
from regproxy.cli.client import BLOCK, Source
from regproxy.oci.errors import BlobDigestInvalid
from regproxy.oci.media_types import OCI_MANIFEST
from regproxy.oci.names import Digest

MANIFEST: Final = "manifest.json"

OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"


def read_saved(archive: Archive) -> Bundle:
    """The images of an archive of ``docker save``.

    Raises:
        ArchiveUnusable: it is damaged, or lacks something of them.
    """
    content = archive.read(archive.find(MANIFEST), MAX_DOCUMENT)
    saved = _Saved(archive)
    try:
        images = tuple(saved.image(entry) for entry in _list(json.loads(content)))
    except (ValueError, RecursionError, LookupError, TypeError):
        raise ArchiveUnusable(f"{MANIFEST} is not that of docker save") from None
    return Bundle(images, saved.contents)


def saved_manifest(images: Iterable[tuple[str, list[str], list[str]]]) -> bytes:
    """The file MANIFEST of images, each with the file of its config, its tags, and its layers."""
    return json.dumps(
        [
            {"Config": config, "RepoTags": tags or None, "Layers": layers}
            for config, tags, layers in images
        ],
        indent=2,
    ).encode()


@frozen
class _Layer:
    """What is known of the file of a layer once it has been read.

    Attributes:
        diff_id: the digest of the archive in it; None when it cannot be known here.
    """

    digest: Digest
    diff_id: Digest | None
    media_type: str


class _Saved:
    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._layers: dict[File, _Layer] = {}
        self.contents: dict[Digest, Content] = {}

    def image(self, entry: Any) -> CarriedImage:
        """The image that *entry* of MANIFEST describes, whatever it may be."""
        file = self._archive.find(_text(entry["Config"]))
        config = self._archive.read(file, MAX_DOCUMENT)
        diff_ids = [_digest(each) for each in _list(json.loads(config)["rootfs"]["diff_ids"])]
        files = [self._archive.find(_text(name)) for name in _list(entry["Layers"])]
        if len(files) != len(diff_ids):
            raise ArchiveUnusable(
                f"an image of {len(files)} layers, where its config says {len(diff_ids)}"
            )
        layers = [
            self._descriptor(file, diff_id) for file, diff_id in zip(files, diff_ids, strict=True)
        ]
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": self._add(
                    Digest.of(config), Content.in_archive(self._archive, file), OCI_CONFIG
                ),
                "layers": layers,
            }
        ).encode()
        digest = Digest.of(manifest)
        self.contents[digest] = Content.of(manifest)
        names = tuple(map(_text, _list(entry.get("RepoTags"))))
        return CarriedImage(names, digest, OCI_MANIFEST)

    def _add(self, digest: Digest, content: Content, media_type: str) -> dict[str, Any]:
        """Add *content* to the contents; its descriptor."""
        self.contents[digest] = content
        return {"mediaType": media_type, "digest": str(digest), "size": content.size}

    def _descriptor(self, file: File, diff_id: Digest) -> dict[str, Any]:
        if file not in self._layers:
            self._layers[file] = self._look(file, diff_id.algorithm)
        layer = self._layers[file]
        if layer.diff_id not in (None, diff_id):
            raise ArchiveUnusable(f"a layer is damaged: it is not {diff_id}, as the config says")
        content = Content.in_archive(self._archive, file)
        return self._add(layer.digest, content, layer.media_type)

    def _look(self, file: File, algorithm: str) -> _Layer:
        magic = self._archive.open(file).read(4)
        outer = _Hashing(self._archive.open(file))
        inner: Source = outer
        media_type = _OCI_LAYER
        if magic.startswith(_GZIP):
            media_type = f"{_OCI_LAYER}+gzip"
            inner = gzip.GzipFile(fileobj=cast(BinaryIO, outer))
        content = hashlib.new(algorithm)
        try:
            while block := inner.read(BLOCK):
                content.update(block)
        except (OSError, EOFError, zlib.error) as error:
            raise ArchiveUnusable(f"a layer is damaged: {error}") from None
        if magic == _ZSTD:
            return _Layer(outer.digest, None, f"{_OCI_LAYER}+zstd")
        return _Layer(outer.digest, Digest(algorithm, content.hexdigest()), media_type)


class _Hashing:
    """Reads *source*, and takes the digest of what has been read."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._hash = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        block = self._source.read(size)
        self._hash.update(block)
        return block

    @property
    def digest(self) -> Digest:
        return Digest("sha256", self._hash.hexdigest())


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _list(value: Any) -> list[Any]:
    """*value*; Go writes an empty list as null."""
    if value is not None and not isinstance(value, list):
        raise TypeError("not a list")
    return value or []


def _digest(value: Any) -> Digest:
    try:
        return Digest.parse(_text(value))
    except BlobDigestInvalid as error:
        raise ArchiveUnusable(f"the config of an image: {error.message}") from None
