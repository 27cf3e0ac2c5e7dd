"""Archives with images, good ones and others, made entry by entry."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.support.images import OCI_INDEX, Content, Image, Index


def entry(name: str, **attributes: Any) -> tarfile.TarInfo:
    """A header with these attributes of TarInfo."""
    made = tarfile.TarInfo(name)
    for key, value in attributes.items():
        setattr(made, key, value)
    return made


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    """A link at *name*."""
    return entry(name, type=kind, linkname=target)


def tar(
    files: Mapping[str, bytes], others: Iterable[tarfile.TarInfo] = (), **options: Any
) -> bytes:
    """An archive of *files*, and of headers after them."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", **options) as archive:
        for name, content in files.items():
            archive.addfile(entry(name, size=len(content)), io.BytesIO(content))
        for each in others:
            archive.addfile(each)
    return stream.getvalue()


def written(path: str, content: bytes) -> Path:
    """The file at *path*, which now has *content*."""
    file = Path(path)
    file.write_bytes(content)
    return file


def blob(content: Content) -> tuple[str, bytes]:
    """A file of an OCI layout."""
    return f"blobs/{content.digest.replace(':', '/')}", content.content


def build_cache(*blobs: Content) -> Content:
    """An index that names no manifests: as BuildKit keeps what it has built."""
    entries = [each.descriptor for each in blobs]
    content = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    return Content(OCI_INDEX, json.dumps(content).encode())


def layout(
    *images: Image | Index, annotations: Iterable[Mapping[str, Any]] = ()
) -> dict[str, bytes]:
    """The files of an OCI layout; *annotations* are those of each image."""
    found = [*annotations, *({} for _ in images)]
    descriptors = [
        each.manifest.descriptor | ({"annotations": notes} if notes else {})
        for each, notes in zip(images, found, strict=False)
    ]
    files = {
        "oci-layout": json.dumps({"imageLayoutVersion": "1.0.0"}).encode(),
        "index.json": json.dumps({"schemaVersion": 2, "manifests": descriptors}).encode(),
    }
    for each in images:
        for image in each.images if isinstance(each, Index) else (each,):
            files |= map(blob, (each.manifest, image.manifest, *image.blobs))
    return files


def saved(image: Image, *tags: str, compressed: bool = False) -> dict[str, bytes]:
    """The files of an archive as docker before release 25 saved them."""
    config, *layers = image.blobs
    contents = [each.content if compressed else gzip.decompress(each.content) for each in layers]
    files = {f"{number}/layer.tar": content for number, content in enumerate(contents)}
    name = f"{config.digest.partition(':')[2]}.json"
    manifest = [{"Config": name, "RepoTags": [*tags] or None, "Layers": [*files]}]
    return {**files, name: config.content, "manifest.json": json.dumps(manifest).encode()}
