from __future__ import annotations

import json
import sqlite3
from contextlib import closing

from hypothesis import given, settings
from hypothesis import strategies as st

from regproxy.oci.names import Digest, Reference, Repository, Tag
from regproxy.store.catalog import ImageRecord, Order
from regproxy.store.index import TagKey
from regproxy.store.removal import Removal
from tests.support import images
from tests.support.images import Content, Image, Index
from tests.support.stored_images import ACCEPT, APP, HOST, IMAGES, INDICES, OTHER, ImageCase


class ReleaseCase(ImageCase):
    def purge(self, reference: str, repository: Repository = APP) -> set[str] | None:
        """What of the store went with an image."""
        self.catch_up()
        parsed: Reference = Digest.parse(reference) if ":" in reference else Tag(reference)
        before = self.files()
        records = self.successResultOf(self.curation.release(HOST, repository, parsed))
        if records is None:
            return None
        removal = Removal(self.directory, self.inventory, self.workers)
        self.assertEqual(self.finish(removal.remove(records)), records)
        self.catch_up()
        self.assertEqual(self.files(), self.rows())
        return {str(digest) for digest in before - self.files()}

    def members(self, repository: Repository) -> set[str]:
        """What is known in a repository."""
        with closing(sqlite3.connect(self.root / "index.sqlite3")) as index:
            rows = index.execute(
                "SELECT digest FROM membership WHERE repository = ?", (str(repository),)
            )
            return {digest for (digest,) in rows}

    def pinned(self) -> set[str]:
        with closing(sqlite3.connect(self.root / "index.sqlite3")) as index:
            return {text for (text,) in index.execute("SELECT digest FROM content WHERE pinned")}

    def left(self, table: str) -> int:
        with closing(sqlite3.connect(self.root / "index.sqlite3")) as index:
            (count,) = index.execute(f"SELECT count(*) FROM {table}").fetchone()
            return int(count)


def digests(*contents: Content) -> set[str]:
    return {each.digest for each in contents}


class ReleaseTests(ReleaseCase):
    def test_all_of_it(self) -> None:
        image = images.image(2, 10)
        index = images.index(image)
        self.pull(index)
        self.tag(index.manifest, "latest", accept="c/d")
        self.curation.pin(HOST, APP, Tag("latest"), True)
        gone = self.purge("latest")
        self.assertEqual(gone, digests(index.manifest, image.manifest, *image.blobs))
        for table in "tag", "membership", "image", "part", "pin", "pending", "content":
            self.assertEqual(self.left(table), 0, table)

    def test_unknown(self) -> None:
        self.pull(images.image(1, 10))
        self.assertIs(self.purge("other"), None)
        self.assertIs(self.purge("latest", OTHER), None)
        self.assertIs(self.purge(images.digest(b"absent")), None)
        self.assertEqual(len(self.files()), 3)

    def test_another_tag(self) -> None:
        """What has another name is still known by that."""
        image = images.image(1, 10)
        self.pull(image, "one")
        self.tag(image.manifest, "two")
        self.assertEqual(self.purge("one"), set())
        self.assertEqual(self.members(APP), digests(image.manifest, *image.blobs))
        self.assertEqual(self.left("tag"), 1)

    def test_another_repository(self) -> None:
        """It stays there, and is not known here any more."""
        image = images.image(1, 10)
        self.pull(image)
        self.pull(image, repository=OTHER)
        self.assertEqual(self.purge("latest"), set())
        self.assertEqual(self.members(APP), set())
        self.assertEqual(self.members(OTHER), digests(image.manifest, *image.blobs))

    def test_shared_layers(self) -> None:
        one = images.image(2, 10)
        other = Image(images.manifest(images.OCI_MANIFEST, list(one.blobs[:2])), one.blobs[:2])
        self.pull(one, "one")
        self.pull(other, "other")
        self.assertEqual(self.purge("one"), digests(one.manifest, one.blobs[2]))
        self.assertEqual(self.members(APP), digests(other.manifest, *other.blobs))

    def test_shared_layers_of_one_that_is_pinned(self) -> None:
        """They can be evicted again, and so can what a kill leaves behind of the rest."""
        one = images.image(2, 10)
        other = Image(images.manifest(images.OCI_MANIFEST, list(one.blobs[:2])), one.blobs[:2])
        self.pull(one, "one")
        self.pull(other, "other")
        self.curation.pin(HOST, APP, Tag("one"), True)
        self.catch_up()
        self.assertEqual(self.pinned(), digests(one.manifest, *one.blobs))
        self.successResultOf(self.curation.release(HOST, APP, Tag("one")))
        self.catch_up()
        self.assertEqual(self.pinned(), set())

    def test_digest_with_tags(self) -> None:
        """The tags that point to it would point to nothing."""
        image = images.image(1, 10)
        self.pull(image, "one")
        self.tag(image.manifest, "two")
        self.curation.pin(HOST, APP, Tag("two"), True)
        gone = self.purge(image.digest)
        self.assertEqual(gone, digests(image.manifest, *image.blobs))
        self.assertEqual((self.left("tag"), self.left("pin")), (0, 0))

    def test_part_of_an_index(self) -> None:
        """An index keeps what it names."""
        image = images.image(1, 10)
        self.pull(images.index(image))
        self.assertEqual(self.purge(image.digest), set())

    def test_not_here(self) -> None:
        """A tag of which nothing is stored is forgotten all the same."""
        self.tag(images.image(1, 10).manifest, "latest")
        self.assertEqual(self.purge("latest"), set())
        self.assertEqual(self.left("tag"), 0)

    def test_deep(self) -> None:
        """Indices of indices, as deep as somebody cares to make them."""
        index = images.index(images.image(1, 10))
        self.pull(index)
        for _ in range(1200):
            text = json.dumps({"manifests": [index.manifest.descriptor]})
            index = Index(Content(images.OCI_INDEX, text.encode()), ())
            self.keep(index.manifest)
        self.tag(index.manifest, "deep")
        self.index.drop_tag(HOST, APP, Tag("latest"))
        gone = self.purge("deep")
        assert gone is not None
        self.assertEqual(len(gone), 1200 + 4)


class AdoptTests(ReleaseCase):
    def setUp(self) -> None:
        super().setUp()
        self.new = images.image(1, 10)
        for each in (self.new.manifest, *self.new.blobs):
            self.put(each.content)

    def adopt(self, tag: str | None = "1.0") -> None:
        manifest = Digest.parse(self.new.digest)
        content = {Digest.parse(each.digest): each.media_type for each in self.new.blobs}
        content[manifest] = self.new.manifest.media_type
        tagged = None if tag is None else (Tag(tag), ACCEPT, manifest)
        self.successResultOf(self.curation.adopt(HOST, APP, content, tagged, self.time))

    def points_to(self, accept: str) -> str | None:
        entry = self.index.tag(TagKey(HOST, APP, Tag("1.0"), accept))
        return None if entry is None else str(entry.digest)

    def test_in_the_place_of_what_upstream_said(self) -> None:
        """To whomever: nobody goes on with an older image."""
        old = images.image(1, 10)
        self.pull(old, "1.0")
        self.tag(old.manifest, "1.0", accept="c/d")
        self.adopt()
        self.assertEqual(self.points_to(ACCEPT), self.new.digest)
        self.assertIs(self.points_to("c/d"), None)
        (found,) = self.index.variants(HOST, APP, Tag("1.0"))
        self.assertEqual(str(found.digest), self.new.digest)
        self.catch_up()
        record = self.successResultOf(self.catalog.image(HOST, APP, Tag("1.0")))
        assert record is not None
        self.assertEqual(str(record.digest), self.new.digest)

    def test_without_a_tag(self) -> None:
        self.adopt(None)
        self.assertEqual(self.left("tag"), 0)
        self.assertEqual(self.members(APP), digests(self.new.manifest, *self.new.blobs))

    def test_stays(self) -> None:
        """What upstream says of it later does not change that; to purge it does."""
        self.adopt()
        manifest = Digest.parse(self.new.digest)
        adopted_at = self.time
        self.time += 10.0
        self.keep(self.new.manifest)
        self.assertEqual(self.index.adopted_at(HOST, APP, manifest), adopted_at)
        self.assertEqual(self.purge("1.0"), digests(self.new.manifest, *self.new.blobs))
        self.assertIs(self.index.adopted_at(HOST, APP, manifest), None)
        self.assertEqual(self.left("adopted"), 0)


class WhateverIsReleasedTests(ReleaseCase):
    """The other images do not notice, and nothing is left that has no image."""

    @settings(max_examples=60)
    @given(
        st.lists(
            st.tuples(st.sampled_from([*IMAGES, *INDICES]), st.booleans(), st.integers(0, 2)),
            min_size=1,
            max_size=8,
        ),
        st.data(),
    )
    def test_the_others(
        self, pulls: list[tuple[Image | Index, bool, int]], data: st.DataObject
    ) -> None:
        with closing(sqlite3.connect(self.root / "index.sqlite3")) as index, index:
            for table in "tag", "membership", "content", "part", "image", "pending":
                index.execute(f"DELETE FROM {table}")
        for digest in self.files():
            self.directory.path(digest).unlink()
        for what, elsewhere, number in pulls:
            self.pull(what, f"tag{number}", OTHER if elsewhere else APP)
        self.catch_up()
        while images := self.images():
            victim = data.draw(st.sampled_from(images))
            reference = str(victim.tag or victim.digest)
            self.assertIsNot(self.purge(reference, victim.repository), None)
            names = victim.host, victim.repository
            kept = [
                each
                for each in images
                if (each.host, each.repository) != names
                or each.tag != victim.tag
                or (victim.tag is None and each.digest != victim.digest)
            ]
            # An older digest that only a tag hid from view may show now.
            self.assertEqual([each for each in self.images() if each in kept], kept)
        self.assertEqual(self.files(), set())
        self.assertEqual(self.members(APP) | self.members(OTHER), set())

    def images(self) -> list[ImageRecord]:
        found, _ = self.finish(self.catalog.images(Order.REFERENCE, None, 1000))
        return found
