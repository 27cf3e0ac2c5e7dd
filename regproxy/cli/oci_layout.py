"""Archives in the form of an OCI image layout (OCI image specification 1.1, "Image Layout").

Skopeo, podman, buildx and, from release 25 on, docker write them. An index may name images for
platforms that are not in the archive; they are left out, as the specification allows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from regproxy.cli.archive import Archive, ArchiveUnusable
from regproxy.cli.bundle import MAX_DOCUMENT, Bundle, CarriedImage, Content
from regproxy.oci.errors import RegistryError, shown
from regproxy.oci.manifests import ImageIndex, Manifest, Part, parse_manifest
from regproxy.oci.names import Digest

LAYOUT: Final = "oci-layout"
INDEX: Final = "index.json"
#: What the file LAYOUT holds.
VERSION: Final = {"imageLayoutVersion": "1.0.0"}

#: The annotation with the name of an image. It may be a tag only.
REF_NAME: Final = "org.opencontainers.image.ref.name"
#: containerd's, and docker's, with the whole name.
IMAGE_NAME: Final = "io.containerd.image.name"

# An index of indices of images is all that clients make.
_MAX_DEPTH: Final = 4


def blob_name(digest: Digest) -> str:
    """Where the content of *digest* is in a layout."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def read_layout(archive: Archive) -> Bundle:
    """The images of a layout.

    Raises:
        ArchiveUnusable: it is damaged, or lacks something of them.
    """
    return _Layout(archive).bundle()


class _Layout:
    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._contents: dict[Digest, Content] = {}
        self._whole: dict[Digest, bool] = {}
        self._left_out: list[str] = []

    def bundle(self) -> Bundle:
        self._check_version()
        index = self._document(INDEX)
        manifest = _parsed(index, INDEX)
        if not isinstance(manifest, ImageIndex):
            raise ArchiveUnusable(f"{INDEX} is no index of images")
        names: dict[Part, list[str]] = {}
        for part, found in zip(manifest.children, _names(index), strict=True):
            names.setdefault(part, [])
            if found is not None:
                names[part].append(found)
        images = tuple(self._image(part, found) for part, found in names.items())
        return Bundle(images, self._contents)

    def _check_version(self) -> None:
        try:
            version = json.loads(self._document(LAYOUT))["imageLayoutVersion"]
        except (ValueError, RecursionError, LookupError, TypeError):
            version = None
        if not isinstance(version, str) or not version.startswith("1."):
            raise ArchiveUnusable(f"{LAYOUT} is not that of a layout of version 1")

    def _image(self, part: Part, names: Iterable[str]) -> CarriedImage:
        self._left_out = []
        if not self._take(part, 0):
            raise ArchiveUnusable(f"{part.digest} is not in the archive as a whole")
        left_out = tuple(dict.fromkeys(self._left_out))
        return CarriedImage(tuple(dict.fromkeys(names)), part.digest, part.media_type, left_out)

    def _take(self, part: Part, depth: int) -> bool:
        """Add what *part*, a manifest, consists of to the contents, if all is there."""
        known = self._whole.get(part.digest)
        if known is None:
            known = self._whole[part.digest] = self._look(part, depth)
        return known

    def _look(self, part: Part, depth: int) -> bool:
        if depth > _MAX_DEPTH:
            raise ArchiveUnusable(f"indices within indices, more than {_MAX_DEPTH}")
        if not self._has(part):
            return False
        name = blob_name(part.digest)
        content = self._document(name)
        if Digest.of(content, part.digest.algorithm) != part.digest:
            raise ArchiveUnusable(f"{name} is damaged: it is other than its digest says")
        manifest = _parsed(content, name)
        blobs = [each for each in manifest.blobs if not each.foreign or self._has(each)]
        there = [self._take(each, depth + 1) for each in manifest.manifests]
        self._left_out += (
            str(each.platform or each.digest)
            for each, whole in zip(manifest.manifests, there, strict=True)
            if not whole
        )
        if not all(map(self._has, blobs)) or (there and not any(there)):
            return False
        for each in blobs:
            self._contents[each.digest] = self._blob(each)
        self._contents[part.digest] = self._blob(part)
        return True

    def _has(self, part: Part) -> bool:
        file = self._archive.files.get(blob_name(part.digest))
        if file is not None and file.size != part.size:
            raise ArchiveUnusable(
                f"{part.digest} has {file.size} bytes and not {part.size}, as it should"
            )
        return file is not None

    def _blob(self, part: Part) -> Content:
        file = self._archive.files[blob_name(part.digest)]
        return Content.in_archive(self._archive, file)

    def _document(self, name: str) -> bytes:
        return self._archive.read(self._archive.find(name), MAX_DOCUMENT)


def _parsed(content: bytes, name: str) -> Manifest:
    try:
        return parse_manifest(content)
    except RegistryError as error:
        raise ArchiveUnusable(f"{name}: {error.message}") from None


def _names(index: bytes) -> Iterator[str | None]:
    """The whole name of each manifest of *index*, which is a good one; None if it has none."""
    for descriptor in json.loads(index)["manifests"] or ():
        annotations = descriptor.get("annotations") or {}
        if not isinstance(annotations, dict):
            raise ArchiveUnusable(f"{INDEX}: {shown(str(annotations))} are no annotations")
        found = (annotations.get(key) for key in (IMAGE_NAME, REF_NAME))
        # A tag alone does not say of which repository it is.
        whole = (name for name in found if isinstance(name, str) and set(name) & set("/:"))
        yield next(whole, None)


def layout_index(descriptors: Iterable[tuple[dict[str, Any], str, str | None]]) -> bytes:
    """The file INDEX of a layout with these manifests, each with its name and its tag."""
    entries = []
    for descriptor, name, tag in descriptors:
        annotations = {IMAGE_NAME: name} | ({} if tag is None else {REF_NAME: tag})
        entries.append({**descriptor, "annotations": annotations})
    return json.dumps({"schemaVersion": 2, "manifests": entries}, indent=2).encode()
