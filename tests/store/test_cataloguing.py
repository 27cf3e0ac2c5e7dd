from __future__ import annotations

import sqlite3
from contextlib import closing

from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import ensureDeferred
from twisted.logger import capturedLogs

from regproxy.oci.manifests import ImageIndex, ImageManifest, ManifestInvalid
from regproxy.oci.names import Digest, Tag
from regproxy.store.cataloguing import MAX_SIZE
from regproxy.store.index import Index
from tests.support import images
from tests.support.images import Content, Image
from tests.support.stored_images import (
    ACCEPT,
    APP,
    BLOBS,
    HOST,
    MANIFESTS,
    NAMED,
    OCTETS,
    OTHER,
    REPOSITORIES,
    TAGS,
    ImageCase,
)
from tests.support.workers import Later, Now, no_pause


@frozen
class Row:
    """What is said of an image."""

    repository: str
    tag: str
    digest: str
    bytes: int
    complete: bool


class CataloguingCase(ImageCase):
    def shown(self) -> set[Row]:
        """The images, once all is worked out."""
        self.catch_up()
        with closing(sqlite3.connect(self.root / "index.sqlite3")) as index:
            rows = index.execute(
                "SELECT repository, tag, digest, bytes, complete FROM image WHERE shown"
            )
            return {Row(each[0], each[1], each[2], each[3], bool(each[4])) for each in rows}

    def pinned(self) -> set[str]:
        """The digests that are."""
        self.catch_up()
        with closing(sqlite3.connect(self.root / "index.sqlite3")) as index:
            return {text for (text,) in index.execute("SELECT digest FROM content WHERE pinned")}

    def lose(self, *contents: Content) -> None:
        """It is evicted."""
        digests = [each.digest for each in contents]
        records = self.successResultOf(self.inventory.records(digests))
        for record in records:
            self.directory.path(record.digest).unlink()
        self.successResultOf(self.inventory.forget(records))


def size(*contents: Content) -> int:
    return sum(len(each.content) for each in contents)


class ImageTests(CataloguingCase):
    def test_pulled(self) -> None:
        image = images.image(2, 10)
        self.pull(image)
        everything = size(image.manifest, *image.blobs)
        self.assertEqual(self.shown(), {Row(str(APP), "latest", image.digest, everything, True)})

    def test_as_it_comes(self) -> None:
        """Tag first, then the manifest, then one blob after the other; and as it goes."""
        image = images.image(2, 10)
        self.tag(image.manifest, "latest")
        self.assertEqual(self.shown(), set())
        here: list[Content] = []
        for content in (image.manifest, *image.blobs):
            self.keep(content, media_type=None if content is image.manifest else OCTETS)
            here.append(content)
            complete = len(here) == 4
            expected = Row(str(APP), "latest", image.digest, size(*here), complete)
            self.assertEqual(self.shown(), {expected})
        self.lose(image.blobs[1])
        (row,) = self.shown()
        self.assertFalse(row.complete)
        self.lose(image.manifest)
        self.assertEqual(self.shown(), set())

    def test_by_digest_only(self) -> None:
        image = images.image(1, 10)
        self.keep_image(image)
        (row,) = self.shown()
        self.assertEqual((row.tag, row.digest), ("", image.digest))
        # It has a tag now, and is named by that.
        self.tag(image.manifest, "1.0")
        (row,) = self.shown()
        self.assertEqual(row.tag, "1.0")
        # The tag goes elsewhere.
        newer = images.image(1, 10)
        self.pull(newer, "1.0")
        self.assertEqual(
            {(row.tag, row.digest) for row in self.shown()},
            {("", image.digest), ("1.0", newer.digest)},
        )

    def test_index(self) -> None:
        """It is complete with one platform; what it names is no image of its own."""
        one, other = images.image(1, 10), images.image(1, 10, platform=("linux", "arm64"))
        index = images.index(one, other)
        self.keep_image(one)
        self.keep(index.manifest)
        self.tag(index.manifest, "latest")
        everything = size(index.manifest, one.manifest, *one.blobs)
        expected = Row(str(APP), "latest", index.digest, everything, True)
        self.assertEqual(self.shown(), {expected})
        # Another client begins with the other one.
        self.keep(other.manifest)
        (row,) = self.shown()
        self.assertFalse(row.complete)
        self.lose(one.manifest, other.manifest)
        (row,) = self.shown()
        self.assertEqual((row.bytes, row.complete), (size(index.manifest), False))

    def test_index_that_comes_later(self) -> None:
        """Until then its image is one by its digest."""
        image = images.image(1, 10)
        self.keep_image(image)
        self.assertEqual({row.digest for row in self.shown()}, {image.digest})
        index = images.index(image)
        self.keep(index.manifest)
        self.assertEqual({row.digest for row in self.shown()}, {index.digest})
        # In another repository it is one all the same.
        self.keep_image(image, OTHER)
        self.assertIn((str(OTHER), image.digest), {(r.repository, r.digest) for r in self.shown()})
        # The index goes.
        self.lose(index.manifest)
        self.assertIn((str(APP), image.digest), {(r.repository, r.digest) for r in self.shown()})

    def test_one_tag_for_each_kind_of_client(self) -> None:
        """Some registries give old clients another manifest."""
        image = images.image(1, 10)
        index = images.index(image)
        self.pull(index)
        self.tag(image.manifest, "latest", accept="c/d")
        self.assertEqual({row.digest for row in self.shown()}, {image.digest, index.digest})
        # Of two Accepts with the same manifest one goes elsewhere.
        self.tag(index.manifest, "latest", accept="e/f")
        self.tag(image.manifest, "latest", accept=ACCEPT)
        self.assertEqual({row.digest for row in self.shown()}, {image.digest, index.digest})
        self.tag(image.manifest, "latest", accept="e/f")
        rows = {(row.tag, row.digest) for row in self.shown()}
        self.assertEqual(rows, {("latest", image.digest), ("", index.digest)})

    def test_last_use(self) -> None:
        image = images.image(1, 10)
        self.pull(image)
        self.catch_up()
        self.use(Digest.parse(image.digest), 5000.0)
        with closing(sqlite3.connect(self.root / "index.sqlite3")) as index:
            self.assertEqual(
                index.execute("SELECT last_used FROM image WHERE shown").fetchall(), [(5000.0,)]
            )

    def test_renewed(self) -> None:
        """What each pull writes leaves nothing to be worked out."""
        index = images.index(images.image(1, 10))
        self.pull(index)
        self.catch_up()
        self.pull(index)
        self.assertFalse(self.finish(self.cataloguing.step()))

    def test_media_type_with_parameters(self) -> None:
        image = images.image(1, 10)
        self.keep(image.manifest, media_type=f"{images.OCI_MANIFEST.upper()} ; charset=utf-8")
        self.assertEqual({row.digest for row in self.shown()}, {image.digest})

    def test_no_manifest(self) -> None:
        """A tag may point to anything."""
        for content in b"", b"something", b"{}", b'{"layers": [' + b" " * MAX_SIZE + b"]}":
            self.keep(Content("text/plain", content))
            self.tag(Content("text/plain", content), "latest")
            (row,) = self.shown()
            self.assertEqual((row.bytes, row.complete), (len(content), False))
            self.lose(Content("text/plain", content))

    def test_damaged(self) -> None:
        """What its file says counts for nothing then."""
        image = images.image(1, 10)
        self.pull(image)
        path = self.directory.path(Digest.parse(image.digest))
        content = path.read_bytes()
        path.write_bytes(content.replace(b'"layers": [', b'"layers_:[ '))
        (row,) = self.shown()
        self.assertEqual((row.bytes, row.complete), (len(content), False))

    def test_cannot_be_read(self) -> None:
        """The others are known all the same, and the log says which it is."""
        image, other = images.image(1, 10), images.image(1, 10)
        self.pull(image, "one")
        self.pull(other, "other")
        path = self.directory.path(Digest.parse(image.digest))
        path.unlink()
        path.mkdir()
        with capturedLogs() as events:
            rows = self.shown()
        self.assertEqual({(r.tag, r.complete) for r in rows}, {("one", False), ("other", True)})
        (event,) = events
        self.assertEqual((event["digest"], event["reason"]), (image.digest, "Is a directory"))

    def test_gone_meanwhile(self) -> None:
        """Between the noting and the reading, and between the reading and the recording."""
        image = images.image(1, 10)
        for steps in 1, 2:
            self.pull(image)
            workers = Later()
            index = Index(self.root / "index.sqlite3", workers)
            index.open()
            self.addCleanup(index.close)
            stepping = ensureDeferred(index.cataloguing(self.directory, workers).step())
            for _ in range(steps):
                workers.step()
            self.lose(image.manifest)
            workers.all()
            self.successResultOf(stepping)
            self.assertEqual(self.shown(), set())

    def test_comes_meanwhile(self) -> None:
        """Its tag was there first: it is read all the same, and what it names is known."""
        image = images.image(1, 10)
        other = images.image(1, 10)
        self.pull(other, "other")
        for steps in 1, 2:
            self.tag(image.manifest, "latest")
            workers = Later()
            index = Index(self.root / "index.sqlite3", workers)
            index.open()
            self.addCleanup(index.close)
            stepping = ensureDeferred(index.cataloguing(self.directory, workers).step())
            for _ in range(steps):
                workers.step()
            self.keep_image(image)
            workers.all()
            self.assertTrue(self.successResultOf(stepping))
            (row,) = (row for row in self.shown() if row.tag == "latest")
            self.assertTrue(row.complete)
            self.lose(image.manifest)

    def test_foreign_layer(self) -> None:
        """It is fetched from elsewhere, and not missed here."""
        image = images.image(2, 10)
        text = image.manifest.content.decode()
        descriptor = image.blobs[2].descriptor
        assert f'"{descriptor["digest"]}"' in text
        kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
        before, _, after = text.rpartition(f'"{descriptor["mediaType"]}"')
        content = f'{before}"{kind}", "urls": ["https://example.com/"]{after}'.encode()
        changed = Image(Content(images.DOCKER_MANIFEST, content), image.blobs[:2])
        self.pull(changed)
        (row,) = self.shown()
        self.assertTrue(row.complete)

    def test_manifest(self) -> None:
        image = images.image(1, 10)
        index = images.index(image)
        self.pull(index)
        of = lambda digest: ensureDeferred(self.cataloguing.manifest(Digest.parse(digest)))  # noqa: E731
        self.assertIsInstance(self.successResultOf(of(image.digest)), ImageManifest)
        self.assertIsInstance(self.successResultOf(of(index.digest)), ImageIndex)
        self.failureResultOf(of(image.blobs[1].digest), ManifestInvalid)
        self.assertIs(self.successResultOf(of(images.digest(b"absent"))), None)


class PinTests(CataloguingCase):
    def pin(self, *references: str, pinned: bool = True) -> None:  # type: ignore[override]
        for text in references:
            reference = Digest.parse(text) if ":" in text else Tag(text)
            self.curation.pin(HOST, APP, reference, pinned)

    def all_of(self, image: Image) -> set[str]:
        return {image.digest, *(blob.digest for blob in image.blobs)}

    def test_tree(self) -> None:
        one, other = images.image(1, 10), images.image(1, 10)
        self.pull(one, "one")
        self.pull(other, "other")
        self.pin("one")
        self.assertEqual(self.pinned(), self.all_of(one))
        self.pin("one", pinned=False)
        self.assertEqual(self.pinned(), set())

    def test_fetched_later(self) -> None:
        one, other = images.image(1, 10), images.image(1, 10)
        index = images.index(one, other)
        self.keep_image(one)
        self.keep(index.manifest)
        self.tag(index.manifest, "latest")
        self.pin("latest")
        self.assertEqual(self.pinned(), {index.digest} | self.all_of(one))
        self.keep_image(other)
        self.assertEqual(self.pinned(), {index.digest} | self.all_of(one) | self.all_of(other))

    def test_follows_its_tag(self) -> None:
        old, new = images.image(1, 10), images.image(1, 10)
        self.pull(old)
        self.pin("latest")
        self.pull(new)
        self.assertEqual(self.pinned(), self.all_of(new))

    def test_stays_with_its_digest(self) -> None:
        old, new = images.image(1, 10), images.image(1, 10)
        self.pull(old)
        self.pin(old.digest)
        self.pull(new)
        self.assertEqual(self.pinned(), self.all_of(old))

    def test_shared(self) -> None:
        """What two pinned images have stays pinned with one of them."""
        one = images.image(2, 10)
        other = Image(images.manifest(images.DOCKER_MANIFEST, list(one.blobs[:2])), one.blobs[:2])
        self.pull(one, "one")
        self.pull(other, "other")
        self.pin("one", "other")
        self.pin("one", pinned=False)
        self.assertEqual(self.pinned(), self.all_of(other))

    def test_comes_back(self) -> None:
        """A manifest is found damaged, and fetched anew."""
        image = images.image(1, 10)
        self.pull(image)
        self.pin("latest")
        self.catch_up()
        self.lose(image.manifest)
        self.assertEqual(self.pinned(), set())
        self.pull(image)
        self.assertEqual(self.pinned(), self.all_of(image))


class WhateverHappensTests(CataloguingCase):
    """What is worked out step by step is what follows from all that is there."""

    @settings(max_examples=100)
    @given(
        st.sets(st.integers(0, 8)),
        st.lists(
            st.tuples(
                st.sampled_from(["keep", "lose", "tag", "drop", "pin", "unpin", "learn", "step"]),
                st.integers(0, 8),
                st.integers(0, 1),
                st.integers(0, 1),
            ),
            min_size=5,
        ),
    )
    def test_follows(self, here: set[int], changes: list[tuple[str, int, int, int]]) -> None:
        """Whatever is here in the beginning, and is known of one of two repositories."""
        self.reset()
        stored: dict[str, Content] = {}
        known: set[tuple[str, str]] = set()
        tags: dict[tuple[str, str], str] = {}
        pins: set[tuple[str, str]] = set()
        for which in here:
            content = (MANIFESTS + BLOBS)[which]
            self.keep(content)
            stored[content.digest] = content
            known.add((str(APP), content.digest))
        self.catch_up()
        for change, which, where, tag_number in changes:
            content = (MANIFESTS + BLOBS)[which]
            repository, tag = REPOSITORIES[where], TAGS[tag_number]
            key = str(repository), tag
            match change:
                case "keep":
                    self.put(content.content)
                    stored[content.digest] = content
                case "lose":
                    self.lose(content)
                    stored.pop(content.digest, None)
                case "learn":
                    self.index.put_membership(
                        HOST, repository, Digest.parse(content.digest), content.media_type
                    )
                    known.add((str(repository), content.digest))
                case "tag":
                    manifest = MANIFESTS[which % len(MANIFESTS)]
                    self.tag(manifest, tag, repository)
                    tags[key] = manifest.digest
                case "drop":
                    self.index.drop_tag(HOST, repository, Tag(tag))
                    tags.pop(key, None)
                case "pin":
                    if self.successResultOf(self.curation.pin(HOST, repository, Tag(tag), True)):
                        pins.add(key)
                case "unpin":
                    self.curation.pin(HOST, repository, Tag(tag), False)
                    pins.discard(key)
                case _:
                    self.finish(self.cataloguing.step())
        self.check(stored, known, tags, pins)

    def reset(self) -> None:
        with closing(sqlite3.connect(self.root / "index.sqlite3")) as index, index:
            for table in "tag", "membership", "content", "pin", "part", "image", "pending":
                index.execute(f"DELETE FROM {table}")

    def check(
        self,
        stored: dict[str, Content],
        known: set[tuple[str, str]],
        tags: dict[tuple[str, str], str],
        pins: set[tuple[str, str]],
    ) -> None:
        manifests = {each.digest for each in MANIFESTS}
        # A manifest is read when it is known to be one.
        readable = {digest for _, digest in known} | set(tags.values())

        def parts(digest: str) -> list[str]:
            named = digest in stored and digest in manifests & readable
            return [each.digest for each in NAMED[digest]] if named else []

        def tree(digest: str) -> set[str]:
            return {digest}.union(*(tree(part) for part in parts(digest)))

        expected = set()
        names = [(repository, tag, digest) for (repository, tag), digest in tags.items()]
        for repository, digest in known:
            tagged = (repository, digest) in {(r, d) for r, _, d in names}
            above = any(
                digest in parts(manifest)
                for manifest in manifests
                if (repository, manifest) in known
                or (repository, manifest) in {(r, d) for r, _, d in names}
            )
            if digest in manifests and not tagged and not above:
                names.append((repository, "", digest))
        for repository, tag, digest in names:
            if digest in stored:
                everything = tree(digest)
                blobs = everything - manifests
                bytes_ = size(*(stored[each] for each in everything if each in stored))
                complete = bool(blobs) and blobs <= set(stored)
                expected.add(Row(repository, tag, digest, bytes_, complete))
        self.assertEqual(self.shown(), expected)
        pinned = set().union(*(tree(tags[key]) for key in pins if key in tags))
        self.assertEqual(self.pinned(), pinned & set(stored))


class LaterTests(ImageCase):
    def test_not_in_the_reactor_thread(self) -> None:
        """Neither the index nor the disk is waited for there."""
        self.pull(images.image(1, 10))
        workers = Later()
        index = Index(self.root / "index.sqlite3", Now())
        index.open()
        self.addCleanup(index.close)
        stepping = ensureDeferred(index.cataloguing(self.directory, workers).step())
        self.assertNoResult(stepping)
        self.assertEqual(len(workers), 1)
        workers.all()
        self.assertTrue(self.successResultOf(stepping))
        self.assertFalse(self.successResultOf(ensureDeferred(self.one_more())))

    async def one_more(self) -> bool:
        await self.cataloguing.run(no_pause)
        return await self.cataloguing.step()
