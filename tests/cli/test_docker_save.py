"""Tests of regproxy.cli.docker_save."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterable, Mapping
from tarfile import TarInfo
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from regproxy.cli.archive import Archive, ArchiveUnusable
from regproxy.cli.bundle import MAX_DOCUMENT, Bundle
from regproxy.cli.docker_save import MANIFEST, read_saved, saved_manifest
from regproxy.oci.manifests import ImageManifest, parse_manifest
from regproxy.oci.names import Digest
from tests.support.archives import link, saved, tar
from tests.support.images import Image, digest, image


def read(files: Mapping[str, bytes], links: Iterable[TarInfo] = ()) -> Bundle:
    return read_saved(Archive(io.BytesIO(tar(files, links))))


def manifest_of(bundle: Bundle, number: int = 0) -> ImageManifest:
    content = bundle.contents[bundle.images[number].digest].open().read()
    manifest = parse_manifest(content)
    assert isinstance(manifest, ImageManifest)
    return manifest


def described(files: Mapping[str, bytes], **changes: Any) -> dict[str, bytes]:
    """*files* with these changes of what MANIFEST says."""
    [entry] = json.loads(files[MANIFEST])
    return {**files, MANIFEST: json.dumps([entry | changes]).encode()}


def layers_of(made: Image) -> list[bytes]:
    return [each.content for each in made.blobs[1:]]


class SavedTests(SynchronousTestCase):
    """read_saved"""

    def check(self, bundle: Bundle, layers: list[bytes], made: Image, kind: str) -> None:
        """The manifest that was made names the config and *layers*, and all of it is there."""
        manifest = manifest_of(bundle)
        assert manifest.config is not None
        self.assertEqual(str(manifest.config.digest), made.image_id)
        self.assertEqual([str(each.digest) for each in manifest.layers], list(map(digest, layers)))
        self.assertEqual(
            {each.media_type for each in manifest.layers},
            {f"application/vnd.oci.image.layer.v1.tar{kind}"},
        )
        for part in manifest.blobs:
            content = bundle.contents[part.digest]
            read = content.open().read()
            self.assertEqual((Digest.of(read), content.size), (part.digest, part.size))
        self.assertEqual(len(bundle.contents), len(set(layers)) + 2)

    def test_plain(self) -> None:
        made = image(3, 1000)
        bundle = read(saved(made, "a:1", "ghcr.io/o/a:2"))
        self.check(bundle, list(map(gzip.decompress, layers_of(made))), made, "")
        self.assertEqual(bundle.images[0].names, ("a:1", "ghcr.io/o/a:2"))

    def test_compressed(self) -> None:
        """Some tools leave layers as they are in registries."""
        made = image(2, 1000)
        self.check(read(saved(made, compressed=True)), layers_of(made), made, "+gzip")

    def test_zstd(self) -> None:
        """It is not looked into."""
        made = image(1, 1000)
        layer = b"\x28\xb5\x2f\xfd" + b"0" * 500
        bundle = read(saved(made) | {"0/layer.tar": layer})
        self.check(bundle, [layer], made, "+zstd")

    def test_same_each_time(self) -> None:
        files = saved(image(2, 100))
        self.assertEqual(read(files).images[0].digest, read(files).images[0].digest)

    def test_shared_layers(self) -> None:
        """Docker wrote a link for a layer that is there already."""
        made = image(1, 100)
        config = json.loads(made.blobs[0].content)
        config["rootfs"]["diff_ids"] *= 2
        files = saved(made) | {"config.json": json.dumps(config).encode()}
        files = described(files, Config="config.json", Layers=["0/layer.tar", "1/layer.tar"])
        bundle = read(files, [link("1/layer.tar", "../0/layer.tar")])
        first, second = manifest_of(bundle).layers
        self.assertEqual(first, second)

    def test_several(self) -> None:
        made, other = image(1, 100), image(1, 100)
        files = saved(made, "a:1")
        more = {f"x{name}": content for name, content in saved(other).items()}
        [entry] = json.loads(files[MANIFEST])
        second = {
            "Config": f"x{other.image_id.partition(':')[2]}.json",
            "RepoTags": ["b:1"],
            "Layers": ["x0/layer.tar"],
        }
        bundle = read({**more, **files, MANIFEST: json.dumps([entry, second]).encode()})
        self.assertEqual([each.names for each in bundle.images], [("a:1",), ("b:1",)])
        config = manifest_of(bundle, 1).config
        assert config is not None
        self.assertEqual(str(config.digest), other.image_id)

    def test_damaged_layers(self) -> None:
        """A layer that is not what the config says does not get in."""
        made = image(1, 1000)
        plain = gzip.decompress(layers_of(made)[0])
        packed = layers_of(made)[0]
        for bad in (
            plain[:-1] + b"x",
            b"",
            gzip.compress(plain + b"x"),
            packed[:-20],
            packed + b"trailing",
            packed[:500] + b"\xff" * 20 + packed[520:],
        ):
            error = self.assertRaises(ArchiveUnusable, read, saved(made) | {"0/layer.tar": bad})
            self.assertIn("a layer is damaged", error.message)

    def test_bad_documents(self) -> None:
        files = saved(image(1, 100), "a:1")
        config = next(name for name in files if name.endswith(".json"))
        for changed, expected in (
            ({MANIFEST: b"[]"}, None),
            ({MANIFEST: b"{}"}, "is not that of docker save"),
            ({MANIFEST: b"[1]"}, "is not that of docker save"),
            ({MANIFEST: b"[[]]"}, "is not that of docker save"),
            ({MANIFEST: b"[" * 9999}, "is not that of docker save"),
            ({MANIFEST: b"\xff"}, "is not that of docker save"),
            ({MANIFEST: bytes(MAX_DOCUMENT + 1)}, "a description of 4194305 bytes"),
            (described(files, Config=1), "is not that of docker save"),
            (described(files, Config="x"), "'x' is missing in the archive"),
            (described(files, Config="../x"), "is no name of a file"),
            (described(files, Layers=None), "an image of 0 layers, where its config says 1"),
            (described(files, Layers="0/layer.tar"), "is not that of docker save"),
            (described(files, Layers=[1]), "is not that of docker save"),
            (described(files, RepoTags="a:1"), "is not that of docker save"),
            (described(files, RepoTags=[{}]), "is not that of docker save"),
            ({config: b"[]"}, "is not that of docker save"),
            ({config: b'{"rootfs": {"diff_ids": ["x"]}}'}, "the config of an image: invalid"),
            ({config: b'{"rootfs": {"diff_ids": {"x": 1}}}'}, "is not that of docker save"),
        ):
            if expected is None:
                self.assertEqual(read(files | changed).images, ())
            else:
                error = self.assertRaises(ArchiveUnusable, read, files | changed)
                self.assertIn(expected, error.message)


class ManifestTests(SynchronousTestCase):
    """saved_manifest"""

    def test_is_read_again(self) -> None:
        made = image(1, 100)
        files = saved(made)
        [entry] = json.loads(files[MANIFEST])
        content = saved_manifest([(entry["Config"], ["a:1"], entry["Layers"])])
        self.assertEqual(read(files | {MANIFEST: content}).images[0].names, ("a:1",))
        untagged = saved_manifest([(entry["Config"], [], entry["Layers"])])
        self.assertEqual(json.loads(untagged), [entry])
