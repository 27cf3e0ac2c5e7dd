"""Tests of regproxy.cli.carry."""

from __future__ import annotations

import io
import json
import os
import tarfile
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from regproxy.cli.archive import Archive, ArchiveUnusable, open_archive
from regproxy.cli.bundle import Bundle
from regproxy.cli.carry import Parcel, export, import_, is_loadable, named, pack, read_bundle
from regproxy.cli.client import Client
from regproxy.cli.docker_save import MANIFEST
from regproxy.cli.errors import CommandFailed
from regproxy.cli.settings import Settings
from regproxy.cli.values import ImageTree, read
from regproxy.oci.manifests import Platform
from tests.support.archives import blob, build_cache, layout, saved, tar, written
from tests.support.images import Content, Image, Index, helm_chart, image, index
from tests.support.management_api import ManagementApi, problem

MIB = 1 << 20
NAME = "ghcr.io/o/a:1"
AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64", "v8")


def arm64(layers: int = 1) -> Image:
    return image(layers, 100, platform=("linux", "arm64"))


class PackTests(SynchronousTestCase):
    """pack, is_loadable"""

    def pack(
        self, made: Image | Index, *platforms: Platform, lost: tuple[Content, ...] = ()
    ) -> Parcel:
        api = ManagementApi()
        api.add(NAME, made)
        for content in lost:
            del api.contents[content.digest]
        return pack(read(ImageTree, api.tree(NAME)), platforms)

    def test_image(self) -> None:
        """All of it, each content once."""
        made = image(2, 100)
        parcel = self.pack(made)
        self.assertEqual(
            {str(digest): size for digest, size in parcel.sizes.items()},
            {each.digest: len(each.content) for each in (made.manifest, *made.blobs)},
        )
        self.assertTrue(is_loadable(parcel))

    def test_platforms(self) -> None:
        """Those that are wanted; the index goes along as it is, so that its digest holds."""
        first, second = image(1, 100), arm64()
        made = index(first, second)
        every = {each.digest for each in (first, second)}
        for platforms, digests in (
            ((), every),
            ((AMD64,), {first.digest}),
            ((AMD64, Platform("linux", "arm64")), every),
        ):
            parcel = self.pack(made, *platforms)
            self.assertEqual({each.digest for each in parcel.images}, digests)
            self.assertIn(made.digest, map(str, parcel.sizes))
            self.assertEqual(parcel.left_out, [])
            self.assertEqual(is_loadable(parcel), len(digests) == 1)

    def test_half_a_platform(self) -> None:
        """Who does not say all of it is not asked for it."""
        made = index(image(1, 100), image(1, 100, platform=("linux", "")))
        self.assertEqual(len(self.pack(made, AMD64).images), 1)
        self.assertEqual(len(self.pack(made).images), 2)

    def test_platform_of_an_image_alone(self) -> None:
        """Its manifest says none, so it is what is wanted."""
        self.assertEqual(len(self.pack(image(1, 100), ARM64).images), 1)

    def test_stored_in_part(self) -> None:
        """What is there as a whole is taken, and the rest named."""
        first, second = image(1, 100), arm64()
        parcel = self.pack(index(first, second), lost=(second.blobs[1],))
        self.assertEqual([each.digest for each in parcel.images], [first.digest])
        self.assertEqual(parcel.left_out, ["linux/arm64"])

    def test_attestations(self) -> None:
        """They are no platforms that somebody misses."""
        first, note = image(1, 100), image(1, 100, platform=("unknown", "unknown"))
        parcel = self.pack(index(first, note), lost=(note.manifest, *note.blobs))
        self.assertEqual(parcel.left_out, [])

    def test_not_stored(self) -> None:
        """Then it says how to get it."""
        made = image(1, 100)
        both = index(made, arm64())
        for what, platforms, lost in (
            (made, (), made.blobs[0]),
            (made, (), made.blobs[1]),
            (made, (), made.manifest),
            (index(made), (), made.blobs[1]),
            (both, (AMD64,), made.blobs[1]),
        ):
            error = self.assertRaises(CommandFailed, self.pack, what, *platforms, lost=(lost,))
            option = " --platform linux/amd64" if platforms else ""
            self.assertEqual(
                error.message,
                f"{NAME} is not stored as a whole: fetch it first,"
                f" with regproxy warm{option} {NAME}",
            )
        error = self.assertRaises(CommandFailed, self.pack, both, AMD64, Platform("linux", "s390x"))
        self.assertIn("regproxy warm --platform linux/s390x ghcr.io/o/a:1", error.message)

    def test_artifacts(self) -> None:
        """Docker would not know what to do with them."""
        self.assertFalse(is_loadable(self.pack(helm_chart())))
        blobs = image(2, 100).blobs
        cache = Image(build_cache(*blobs), blobs)
        parcel = self.pack(cache)
        self.assertEqual(len(parcel.sizes), 4)
        self.assertFalse(is_loadable(parcel))
        self.assertRaises(CommandFailed, self.pack, cache, lost=(blobs[0],))


class CarryCase(SynchronousTestCase):
    """Has a server."""

    def setUp(self) -> None:
        self.api, self.client = self.server()
        self.moved: list[int] = []

    def server(self) -> tuple[ManagementApi, Client]:
        api = ManagementApi().start()
        self.addCleanup(api.stop)
        return api, Client(Settings(api.url))

    def export(self, client: Client, *references: str) -> Path:
        """The archive of these images."""
        path = Path(self.mktemp())
        trees = [read(ImageTree, client.get("image", reference=each)) for each in references]
        export(client, [pack(each, ()) for each in trees], path, self.moved.append)
        return path

    def import_(self, client: Client, path: Path, name: str | None = None) -> None:
        with open_archive(path) as archive:
            bundle = read_bundle(archive)
            import_(client, bundle, named(bundle, name), self.moved.append)


class ExportTests(CarryCase):
    """export"""

    def test_archive(self) -> None:
        """It has the files of an OCI layout and of docker save, and says nothing of its maker."""
        made = image(2, 100)
        self.api.add(NAME, made)
        path = self.export(self.client, NAME)
        with tarfile.open(path) as archive:
            entries = archive.getmembers()
            names = [each.name for each in entries]
            read_all = {name: archive.extractfile(name).read() for name in names}  # type: ignore[union-attr]
        blobs = dict(map(blob, (made.manifest, *made.blobs)))
        self.assertEqual(names[:3], ["oci-layout", "index.json", "manifest.json"])
        self.assertEqual({name: read_all[name] for name in names[3:]}, blobs)
        self.assertEqual({(each.mtime, each.uid, each.mode) for each in entries}, {(0, 0, 0o644)})
        config, *layers = (blob(each)[0] for each in made.blobs)
        self.assertEqual(
            json.loads(read_all[MANIFEST]),
            [{"Config": config, "RepoTags": [NAME], "Layers": layers}],
        )
        self.assertEqual(sum(self.moved), sum(map(len, blobs.values())))

    def test_shared_contents(self) -> None:
        """Two images with the same layers have them once in the archive."""
        made = image(2, 100)
        for name in ("ghcr.io/o/a:1", "ghcr.io/o/b:2"):
            self.api.add(name, made)
        path = self.export(self.client, "ghcr.io/o/a:1", "ghcr.io/o/b:2")
        with open_archive(path) as archive:
            self.assertEqual(len(archive.files), 3 + 4)
            [found] = read_bundle(archive).images
        self.assertEqual(found.names, ("ghcr.io/o/a:1", "ghcr.io/o/b:2"))

    def test_by_digest(self) -> None:
        """Such an image has a name, but no tag for docker."""
        made = image(1, 100)
        reference = f"ghcr.io/o/a@{made.digest}"
        self.api.add(reference, made)
        with open_archive(self.export(self.client, reference)) as archive:
            saved_manifest = json.loads(archive.read(archive.find(MANIFEST), MIB))
            self.assertEqual(named(read_bundle(archive), None).keys(), {reference})
        self.assertIsNone(saved_manifest[0]["RepoTags"])

    def test_wrong_content(self) -> None:
        """Then there is no archive, and the one that was there stays."""
        made = image(1, 100)
        self.api.add(NAME, made)
        path = self.export(self.client, NAME)
        before = path.read_bytes()
        self.api.damaged.add(made.blobs[1].digest)
        trees = [read(ImageTree, self.client.get("image", reference=NAME))]
        error = self.assertRaises(
            CommandFailed, export, self.client, [pack(trees[0], ())], path, self.moved.append
        )
        self.assertIn(f"{made.blobs[1].digest}: the content is other", error.message)
        self.assertEqual(path.read_bytes(), before)
        self.assertEqual(os.listdir(path.parent), [path.name])

    def test_evicted_meanwhile(self) -> None:
        made = image(1, 100)
        self.api.add(NAME, made)
        digest = made.blobs[1].digest
        self.api.script("GET", f"blobs/{digest}/content", problem(404, "there is no such blob"))
        error = self.assertRaises(CommandFailed, self.export, self.client, NAME)
        self.assertEqual(error.message, "there is no such blob")

    def test_no_room(self) -> None:
        """What the disk says is told."""
        self.api.add(NAME, image(1, 100))
        tree = read(ImageTree, self.client.get("image", reference=NAME))
        path = Path(self.mktemp(), "missing", "a.tar")
        error = self.assertRaises(
            CommandFailed, export, self.client, [pack(tree, ())], path, self.moved.append
        )
        self.assertIn(f"{path} cannot be written: No such file or directory", error.message)


class NamedTests(SynchronousTestCase):
    """read_bundle, named"""

    def bundle(self, files: Mapping[str, bytes]) -> Bundle:
        return read_bundle(Archive(io.BytesIO(tar(files))))

    def test_forms(self) -> None:
        """An archive that has both is read as the one that keeps the digests."""
        made = image(1, 100)
        self.assertEqual(str(self.bundle(layout(made)).images[0].digest), made.digest)
        self.assertNotEqual(str(self.bundle(saved(made)).images[0].digest), made.digest)
        both = {**saved(made), **layout(made)}
        self.assertEqual(str(self.bundle(both).images[0].digest), made.digest)

    def test_no_images(self) -> None:
        for files, expected in (
            ({"a": b""}, "neither an OCI layout nor made by docker save"),
            (layout(), "no images in it"),
            ({MANIFEST: b"[]"}, "no images in it"),
        ):
            error = self.assertRaises(ArchiveUnusable, self.bundle, files)
            self.assertEqual(error.message, expected)

    def test_names(self) -> None:
        bundle = self.bundle(saved(image(1, 100), "a:1", "b:2"))
        [found] = bundle.images
        self.assertEqual(named(bundle, None), {"a:1": found, "b:2": found})
        self.assertEqual(named(bundle, "ghcr.io/o/c:3"), {"ghcr.io/o/c:3": found})

    def test_no_names(self) -> None:
        bundle = self.bundle(saved(image(1, 100)))
        error = self.assertRaises(CommandFailed, named, bundle, None)
        self.assertIn(f"which image {bundle.images[0].digest} is: say it with", error.message)

    def test_one_name_for_two(self) -> None:
        bundle = self.bundle(layout(image(1, 10), image(1, 10)))
        error = self.assertRaises(CommandFailed, named, bundle, "ghcr.io/o/c:3")
        self.assertIn("the archive has 2 images", error.message)


class ImportTests(CarryCase):
    """import_"""

    def archive(self, files: Mapping[str, bytes], **options: Any) -> Path:
        return written(self.mktemp(), tar(files, **options))

    def test_layout(self) -> None:
        """All that belongs to the image is stored, then it gets its name."""
        made = index(image(2, 100), arm64())
        self.import_(self.client, self.archive(layout(made)), NAME)
        self.assertEqual(self.api.images, {NAME: (made.digest, made.manifest.media_type)})
        other = ManagementApi()
        other.add(NAME, made)
        self.assertEqual(self.api.contents, other.contents)
        self.assertEqual(self.api.written()[-1], ("POST", "image"))
        self.assertEqual(sum(self.moved), sum(map(len, self.api.contents.values())))

    def test_saved(self) -> None:
        made = image(2, 100)
        self.import_(self.client, self.archive(saved(made, "ghcr.io/o/a:1", "b:2")))
        self.assertEqual(self.api.images.keys(), {"ghcr.io/o/a:1", "b:2"})
        tree = read(ImageTree, self.api.tree("b:2"))
        assert tree.manifest.config is not None
        self.assertEqual(tree.manifest.config.digest, made.image_id)
        self.assertTrue(all(each.stored for each in tree.manifest.layers))

    def test_what_is_there_already(self) -> None:
        """It is not sent again."""
        made = image(2, 100)
        self.api.add("ghcr.io/o/other:1", made)
        self.import_(self.client, self.archive(layout(made)), NAME)
        self.assertEqual(self.api.written(), [("POST", "image")])
        self.assertEqual(sum(self.moved), sum(map(len, self.api.contents.values())))

    def test_round_trip(self) -> None:
        """Out, in at another place, and out again: the same archive to the last byte."""
        self.api.add("ghcr.io/o/a:1", index(image(2, 5000), arm64(2)))
        self.api.add("docker.io/library/b:2", image(1, 5000, oci=True))
        names = [*self.api.images]
        first = self.export(self.client, *names)
        other, client = self.server()
        self.import_(client, first)
        self.assertEqual(other.contents, self.api.contents)
        self.assertEqual(self.export(client, *names).read_bytes(), first.read_bytes())

    def test_round_trip_of_saved(self) -> None:
        """An archive of docker save gets manifests once, and they stay."""
        self.import_(self.client, self.archive(saved(image(2, 5000), NAME)))
        first = self.export(self.client, NAME)
        other, client = self.server()
        self.import_(client, first)
        self.assertEqual(other.images, self.api.images)
        self.assertEqual(self.export(client, NAME).read_bytes(), first.read_bytes())

    def test_damaged_blob(self) -> None:
        """It never arrives as a whole, and the image gets no name."""
        made = image(1, 300_000)
        name, content = blob(made.blobs[1])
        files = layout(made) | {name: content[:-1] + bytes([content[-1] ^ 1])}
        error = self.assertRaises(
            CommandFailed, self.import_, self.client, self.archive(files), NAME
        )
        self.assertIn(f"{made.blobs[1].digest}: the content is other", error.message)
        self.assertEqual(self.api.images, {})
        self.assertNotIn(made.blobs[1].digest, self.api.contents)

    def test_not_allowed(self) -> None:
        """Something small is sent first: who may not send anything learns it soon."""
        made = image(1, MIB)
        files = dict(reversed(layout(made).items()))
        small = made.blobs[0].digest, made.digest
        for digest in small:
            self.api.script("PUT", f"blobs/{digest}", problem(403, "not from there"))
        error = self.assertRaises(
            CommandFailed, self.import_, self.client, self.archive(files), NAME
        )
        self.assertEqual(error.message, "not from there")
        [(_, path)] = self.api.written()
        self.assertIn(path.removeprefix("blobs/"), small)


class MemoryTests(CarryCase):
    """However large an image is, little of it is in memory at a time."""

    def setUp(self) -> None:
        super().setUp()
        self.image = image(1, 24 * MIB)

    def measure(self) -> None:
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)

    def check(self) -> None:
        self.assertGreater(sum(self.moved), 24 * MIB)
        self.assertLess(tracemalloc.get_traced_memory()[1], 4 * MIB)

    def test_export(self) -> None:
        self.api.add(NAME, self.image)
        self.measure()
        self.export(self.client, NAME)
        self.check()

    def test_import(self) -> None:
        path = written(self.mktemp(), tar(layout(self.image)))
        self.measure()
        with open_archive(path) as archive:
            bundle = read_bundle(archive)
            names = named(bundle, NAME)
            import_(Drain(), bundle, names, self.moved.append)  # type: ignore[arg-type]
        self.check()


class Drain:
    """A client whose server keeps nothing: what it had in memory would count."""

    def has(self, path: str) -> bool:
        return False

    def upload(self, path: str, source: Any, size: int) -> None:
        while source.read(1 << 18):
            pass

    def post(self, path: str, body: Any, **query: Any) -> None:
        pass
