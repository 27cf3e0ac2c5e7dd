from __future__ import annotations

import contextlib
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.manifests import (
    MAX_PARTS,
    ImageIndex,
    ImageManifest,
    ManifestInvalid,
    Part,
    Platform,
    PlatformInvalid,
    parse_manifest,
)
from regproxy.oci.media_types import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from regproxy.oci.names import Digest
from tests.oci.strategies import digests
from tests.support import images

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"

_words = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)
_platforms = st.builds(Platform, _words, _words, _words)
_parts = st.builds(Part, digests, _words, st.integers(0, (1 << 63) - 1), st.none() | _platforms)
_manifests = st.builds(
    ImageManifest,
    st.sampled_from([None, OCI_MANIFEST, DOCKER_MANIFEST]),
    st.none() | _parts,
    st.lists(_parts, max_size=5).map(tuple),
) | st.builds(
    ImageIndex,
    st.sampled_from([None, OCI_INDEX, DOCKER_LIST]),
    st.lists(_parts, max_size=5).map(tuple),
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def descriptor(part: Part) -> dict[str, Any]:
    """How a part is written."""
    written: dict[str, Any] = {
        "mediaType": part.media_type,
        "digest": str(part.digest),
        "size": part.size,
    }
    if part.platform is not None:
        platform = part.platform
        written["platform"] = {"os": platform.os, "architecture": platform.architecture}
        if platform.variant:
            written["platform"]["variant"] = platform.variant
    return written


def written(manifest: ImageManifest | ImageIndex) -> bytes:
    """How a manifest is written."""
    value: dict[str, Any] = {"schemaVersion": 2}
    if manifest.media_type is not None:
        value["mediaType"] = manifest.media_type
    if isinstance(manifest, ImageIndex):
        value["manifests"] = list(map(descriptor, manifest.children))
    else:
        value["layers"] = list(map(descriptor, manifest.layers))
        if manifest.config is not None:
            value["config"] = descriptor(manifest.config)
    return json.dumps(value).encode()


class ParseTests(SynchronousTestCase):
    @given(_manifests)
    def test_round_trip(self, manifest: ImageManifest | ImageIndex) -> None:
        self.assertEqual(parse_manifest(written(manifest)), manifest)

    @given(st.binary() | _json.map(lambda value: json.dumps(value).encode()))
    def test_anything(self, content: bytes) -> None:
        """Whatever it is, it is read or refused."""
        try:
            parse_manifest(content)
        except ManifestInvalid as error:
            self.assertIn("not a manifest", error.message)

    @given(_manifests, st.data())
    def test_something_else_in_it(
        self, manifest: ImageManifest | ImageIndex, data: st.DataObject
    ) -> None:
        """One value, anywhere, is something else: that is read, if it can be, or refused."""
        value = json.loads(written(manifest))
        place: Any = value
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = data.draw(st.sampled_from(keys))
            inner = place[key]
            if not isinstance(inner, (dict, list)) or not inner or data.draw(st.booleans()):
                break
            place = inner
        place[key] = data.draw(_json)
        with contextlib.suppress(ManifestInvalid):
            parse_manifest(json.dumps(value).encode())

    def test_images(self) -> None:
        """What real images look like."""
        image = images.image(2, 10, oci=True, platform=("linux", "arm64"))
        parsed = parse_manifest(image.manifest.content)
        assert isinstance(parsed, ImageManifest)
        self.assertEqual(
            [str(part.digest) for part in parsed.blobs], [b.digest for b in image.blobs]
        )
        index = parse_manifest(images.index(image).manifest.content)
        assert isinstance(index, ImageIndex)
        (child,) = index.children
        self.assertEqual(str(child.platform), "linux/arm64")
        self.assertEqual((str(child.digest), child.media_type), (image.digest, OCI_MANIFEST))

    def test_parts_once(self) -> None:
        """Many images have the empty layer more than once."""
        one, two = (Part(Digest.of(content), LAYER, 1) for content in (b"1", b"2"))
        self.assertEqual(ImageManifest(None, two, (one, two, one)).blobs, (two, one))

    def test_blobs_in_an_index(self) -> None:
        """As BuildKit writes its caches."""
        manifest = Part(Digest.of(b"1"), OCI_MANIFEST, 1)
        layer = Part(Digest.of(b"2"), LAYER, 1)
        index = ImageIndex(None, (manifest, layer, layer))
        self.assertEqual((index.manifests, index.blobs), ((manifest,), (layer,)))
        self.assertEqual(ImageManifest(None, manifest, (layer,)).manifests, ())

    def test_empty_list_of_go(self) -> None:
        self.assertEqual(parse_manifest(b'{"manifests": null}'), ImageIndex(None, ()))

    def test_refused(self) -> None:
        digest = str(Digest.of(b""))
        part = {"digest": digest, "mediaType": LAYER, "size": 1}
        for value, why in (
            ([], "no object"),
            ({}, "neither"),
            ({"schemaVersion": 1, "fsLayers": []}, "neither"),
            ({"manifests": [], "layers": []}, "index as well"),
            ({"manifests": [], "config": part}, "index as well"),
            ({"mediaType": OCI_INDEX, "layers": []}, "not what its fields are"),
            ({"mediaType": DOCKER_MANIFEST, "manifests": []}, "not what its fields are"),
            ({"mediaType": 1, "layers": []}, "mediaType is no plain text"),
            ({"layers": {}}, "layers is no list"),
            ({"layers": [1]}, r"layers\[0\] is no object"),
            ({"layers": [part] * (MAX_PARTS + 1)}, "4097 members"),
            ({"layers": [part | {"digest": "sha256:ab"}]}, "invalid digest"),
            ({"layers": [part | {"digest": "blake3:" + 64 * "a"}]}, "invalid digest"),
            ({"layers": [part | {"size": True}]}, r"layers\[0\].size"),
            ({"layers": [part | {"size": -1}]}, r"layers\[0\].size"),
            ({"layers": [part | {"size": 1 << 63}]}, r"layers\[0\].size"),
            ({"layers": [part | {"mediaType": "\ud800"}]}, "no plain text"),
            ({"layers": [part | {"mediaType": "a" * 256}]}, "more than 255"),
            ({"config": {}}, "config.digest"),
            ({"manifests": [part | {"platform": "linux"}]}, "platform is no object"),
            ({"manifests": [part | {"platform": {"os": 1}}]}, "platform.os"),
        ):
            with self.subTest(why=why):
                error = self.assertRaises(
                    ManifestInvalid, parse_manifest, json.dumps(value).encode()
                )
                self.assertRegex(error.message, why)

    def test_deep(self) -> None:
        self.assertRaises(ManifestInvalid, parse_manifest, b"[" * 1_000_000)

    def test_foreign(self) -> None:
        """A layer that is to be had elsewhere; not because it says so, but because it is one."""
        for media_type, urls, foreign in (
            (FOREIGN, ["https://example.com/layer"], True),
            (FOREIGN, [], False),
            (LAYER, ["https://example.com/layer"], False),
        ):
            value = descriptor(Part(Digest.of(b""), media_type, 0)) | {"urls": urls}
            manifest = parse_manifest(json.dumps({"layers": [value]}).encode())
            self.assertEqual([part.foreign for part in manifest.blobs], [foreign])


class PlatformTests(SynchronousTestCase):
    def test_texts(self) -> None:
        for text in "linux/amd64", "linux/arm/v7":
            self.assertEqual(str(Platform.parse(text)), text)

    def test_refused(self) -> None:
        for text in "", "linux", "linux/", "/amd64", "linux/arm/v7/x", "l/" + 255 * "a":
            self.assertRaises(PlatformInvalid, Platform.parse, text)

    def test_is_met_by(self) -> None:
        for wanted, other, met in (
            ("linux/arm64", "linux/arm64/v8", True),
            ("linux/arm64/v8", "linux/arm64", False),
            ("linux/arm/v7", "linux/arm/v6", False),
            ("linux/amd64", "windows/amd64", False),
            ("linux/amd64", "linux/amd64", True),
        ):
            self.assertIs(Platform.parse(wanted).is_met_by(Platform.parse(other)), met)
