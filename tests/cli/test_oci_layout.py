"""Tests of regproxy.cli.oci_layout."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from regproxy.cli.archive import Archive, ArchiveUnusable, File
from regproxy.cli.bundle import MAX_DOCUMENT, Bundle
from regproxy.cli.oci_layout import (
    IMAGE_NAME,
    INDEX,
    LAYOUT,
    REF_NAME,
    layout_index,
    read_layout,
)
from regproxy.oci.names import Digest
from tests.support.archives import blob, build_cache, layout, tar
from tests.support.images import OCI_INDEX, Content, Image, digest, image, index


def read(files: Mapping[str, bytes]) -> Bundle:
    return read_layout(Archive(io.BytesIO(tar(files))))


def contents(bundle: Bundle) -> dict[str, bytes]:
    return {str(digest): each.open().read() for digest, each in bundle.contents.items()}


def of(*images: Image) -> dict[str, bytes]:
    """What *images* consist of."""
    return {
        each.digest: each.content for image in images for each in (image.manifest, *image.blobs)
    }


def without(files: Mapping[str, bytes], *lost: Content) -> dict[str, bytes]:
    names = [blob(each)[0] for each in lost]
    return {name: content for name, content in files.items() if name not in names}


class CountingArchive(Archive):
    reads = 0

    def read(self, file: File, limit: int) -> bytes:
        self.reads += 1
        return super().read(file, limit)


class LayoutTests(SynchronousTestCase):
    """read_layout"""

    maxDiff = None

    def test_image(self) -> None:
        """Exactly what belongs to it is taken."""
        for oci in (True, False):
            made = image(2, 100, oci=oci)
            bundle = read({**layout(made), "blobs/sha256/" + "0" * 64: b"more", "x": b""})
            [found] = bundle.images
            self.assertEqual(str(found.digest), made.digest)
            self.assertEqual(found.media_type, made.manifest.media_type)
            self.assertEqual((found.names, found.left_out), ((), ()))
            self.assertEqual(contents(bundle), of(made))

    def test_index(self) -> None:
        images = image(1, 100), image(1, 100, platform=("linux", "arm64"))
        made = index(*images)
        bundle = read(layout(made))
        self.assertEqual(contents(bundle), {**of(*images), made.digest: made.manifest.content})
        self.assertEqual(bundle.images[0].left_out, ())

    def test_part_of_an_index(self) -> None:
        """Platforms may be missing, with or without their manifests."""
        here = image(1, 100)
        bare = image(1, 100, platform=("linux", "arm64"))
        gone = image(1, 100, platform=("linux", "s390x"))
        made = index(here, bare, gone)
        bundle = read(without(layout(made), bare.blobs[1], gone.manifest, *gone.blobs))
        self.assertEqual(contents(bundle), {**of(here), made.digest: made.manifest.content})
        self.assertEqual(bundle.images[0].left_out, ("linux/arm64", "linux/s390x"))

    def test_build_cache(self) -> None:
        """An index of blobs needs them all."""
        made = image(2, 100)
        cache = Image(build_cache(*made.blobs), made.blobs)
        self.assertEqual(contents(read(layout(cache))), of(cache))
        for lost in made.blobs:
            self.assertRaises(ArchiveUnusable, read, without(layout(cache), lost))

    def test_nothing_of_an_index(self) -> None:
        made = index(image(1, 100))
        files = without(layout(made), *made.images[0].blobs)
        error = self.assertRaises(ArchiveUnusable, read, files)
        self.assertEqual(error.message, f"{made.digest} is not in the archive as a whole")

    def test_incomplete_image(self) -> None:
        made = image(2, 100)
        for lost in (made.manifest, *made.blobs):
            error = self.assertRaises(ArchiveUnusable, read, without(layout(made), lost))
            self.assertEqual(error.message, f"{made.digest} is not in the archive as a whole")

    def test_names(self) -> None:
        """The whole name is taken; one image may have several."""
        made, other = image(1, 10), image(1, 10)
        notes: list[dict[str, Any]] = [
            {IMAGE_NAME: "docker.io/library/a:1", REF_NAME: "1"},
            {REF_NAME: "ghcr.io/o/a:2"},
            {REF_NAME: "3"},
            {REF_NAME: 4},
        ]
        bundle = read(layout(made, made, other, other, annotations=notes))
        self.assertEqual(
            [each.names for each in bundle.images],
            [("docker.io/library/a:1", "ghcr.io/o/a:2"), ()],
        )

    def test_foreign_layers(self) -> None:
        """Layers that registries do not have need not be there."""
        made = image(1, 100)
        manifest = json.loads(made.manifest.content)
        manifest["layers"][0] |= {
            "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "urls": ["https://example.com/layer"],
        }
        content = Content(made.manifest.media_type, json.dumps(manifest).encode())
        foreign = Image(content, made.blobs)
        bundle = read(without(layout(foreign), made.blobs[1]))
        self.assertEqual(set(contents(bundle)), {foreign.digest, made.blobs[0].digest})

    def test_damaged_manifest(self) -> None:
        """A manifest is checked before it is believed."""
        made = image(1, 100)
        name, content = blob(made.manifest)
        files = layout(made) | {name: content.replace(b"linux", b"xxxxx")[::-1]}
        error = self.assertRaises(ArchiveUnusable, read, files)
        self.assertEqual(error.message, f"{name} is damaged: it is other than its digest says")

    def test_wrong_sizes(self) -> None:
        made = image(1, 100)
        for part in (made.manifest, *made.blobs):
            name, content = blob(part)
            error = self.assertRaises(ArchiveUnusable, read, layout(made) | {name: content + b" "})
            size = len(content)
            self.assertEqual(
                error.message,
                f"{part.digest} has {size + 1} bytes and not {size}, as it should",
            )

    def test_nested_indices(self) -> None:
        """They are followed, to a depth."""
        made = image(1, 100)
        outer = index(made)
        inner = [outer.manifest]
        for _ in range(6):
            content = {"schemaVersion": 2, "manifests": [inner[-1].descriptor]}
            inner.append(Content(outer.manifest.media_type, json.dumps(content).encode()))
        files = layout(outer) | dict(map(blob, inner))
        for depth, good in ((3, True), (4, False)):
            top = {"schemaVersion": 2, "manifests": [inner[depth].descriptor]}
            files[INDEX] = json.dumps(top).encode()
            if good:
                self.assertEqual(len(read(files).contents), depth + 1 + 3)
            else:
                self.assertRaises(ArchiveUnusable, read, files)

    def test_woven_indices(self) -> None:
        """Indices that each name all of the next level are looked at once each."""
        level = [image(1, 10, platform=("linux", f"p{number}")).manifest for number in range(20)]
        files: dict[str, bytes] = {}
        for _ in range(3):
            made = []
            for number in range(20):
                content = {"manifests": [each.descriptor for each in level], "n": number}
                made.append(Content(OCI_INDEX, json.dumps(content).encode()))
            files |= dict(map(blob, level))
            level = made
        files |= dict(map(blob, level)) | layout()
        files[INDEX] = json.dumps({"manifests": [each.descriptor for each in level]}).encode()
        archive = CountingArchive(io.BytesIO(tar(files)))
        error = self.assertRaises(ArchiveUnusable, read_layout, archive)
        self.assertIn("is not in the archive as a whole", error.message)
        self.assertLess(archive.reads, 100)

    def test_bad_documents(self) -> None:
        made = layout(image(1, 100))
        [descriptor] = json.loads(made[INDEX])["manifests"]
        bad_size = json.dumps({"manifests": [descriptor | {"size": "1"}]}).encode()
        bad_notes = json.dumps({"manifests": [descriptor | {"annotations": [1]}]}).encode()
        for changed, expected in (
            ({LAYOUT: b"{}"}, "oci-layout is not that of a layout of version 1"),
            ({LAYOUT: b"[" * 9999}, "oci-layout is not that of a layout of version 1"),
            ({LAYOUT: b'{"imageLayoutVersion": "2.0.0"}'}, "oci-layout is not that of a layout"),
            ({INDEX: b"x"}, "index.json: not a manifest of an image: it is no JSON"),
            ({INDEX: b'{"layers": []}'}, "index.json is no index of images"),
            ({INDEX: bad_size}, "index.json: not a manifest of an image: manifests[0].size is"),
            ({INDEX: bad_notes}, "index.json: '[1]' are no annotations"),
            ({INDEX: bytes(MAX_DOCUMENT + 1)}, "a description of 4194305 bytes"),
        ):
            error = self.assertRaises(ArchiveUnusable, read, made | changed)
            self.assertIn(expected, error.message)
        for name in (LAYOUT, INDEX):
            files = {key: value for key, value in made.items() if key != name}
            error = self.assertRaises(ArchiveUnusable, read, files)
            self.assertEqual(error.message, f"'{name}' is missing in the archive")

    def test_no_images(self) -> None:
        """An empty layout, as Go writes it."""
        self.assertEqual(read({**layout(), INDEX: b'{"manifests": null}'}).images, ())


class IndexTests(SynchronousTestCase):
    """layout_index"""

    def test_names_come_back(self) -> None:
        made = image(1, 10)
        by_digest = f"ghcr.io/o/a@{made.digest}"
        content = layout_index(
            [
                (made.manifest.descriptor, "ghcr.io/o/a:1", "1"),
                (made.manifest.descriptor, by_digest, None),
            ]
        )
        [found] = read(layout(made) | {INDEX: content}).images
        self.assertEqual(found.names, ("ghcr.io/o/a:1", by_digest))
        self.assertEqual(found.digest, Digest.parse(digest(made.manifest.content)))
