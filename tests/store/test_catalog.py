from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from regproxy.oci.names import Digest, Host, Reference, Repository, Tag
from regproxy.store import catalog as catalog_module
from regproxy.store.catalog import (
    BlobRecord,
    ImageRecord,
    Key,
    Order,
    PartRecord,
    RepositoryRecord,
)
from regproxy.store.removal import Removal
from tests.support import images
from tests.support.images import Content, Image, Index
from tests.support.stored_images import (
    ACCEPT,
    APP,
    HOST,
    IMAGES,
    INDICES,
    OTHER,
    ImageCase,
)

FAR = Host("a.example.test", 5000)


class ListTests(ImageCase):
    """Nothing is shown twice, and nothing left out, whatever the page."""

    def setUp(self) -> None:
        super().setUp()
        self.pulled: dict[str, Image | Index] = {}
        for number, name in enumerate(("a/one", "a/two", "b/one")):
            for tag in ("1.0", "1.1", "Latest")[: number + 1]:
                self.time += 10.0
                image = images.image(1, 10 * len(self.pulled))
                self.pull(image, tag, Repository(name))
                self.pulled[f"{HOST}/{name}:{tag}"] = image
        self.catch_up()

    def walk(self, order: Order, limit: int, **filters: object) -> list[str]:
        found: list[str] = []
        after: Key | None = None
        while True:
            page, after = self.finish(
                self.catalog.images(order, after, limit, **filters)  # type: ignore[arg-type]
            )
            self.assertLessEqual(len(page), limit)
            found += map(self.reference, page)
            if after is None:
                return found
            self.assertEqual(len(page), limit)

    def reference(self, image: ImageRecord) -> str:
        tail = f"@{image.digest}" if image.tag is None else f":{image.tag}"
        return f"{image.host}/{image.repository}{tail}"

    def check(self, expected: list[str], order: Order, **filters: object) -> None:
        for scan in 1, 2, 1000:
            self.patch(catalog_module, "SCAN", scan)
            for limit in 1, 2, 5, 6, 100:
                self.assertEqual(self.walk(order, limit, **filters), expected)

    def test_orders(self) -> None:
        names = sorted(self.pulled)
        self.check(names, Order.REFERENCE)
        self.check(list(reversed(self.pulled)), Order.LAST_USED)
        self.check(list(reversed(self.pulled)), Order.BYTES)

    def test_same_size_and_time(self) -> None:
        with closing(sqlite3.connect(self.root / "index.sqlite3")) as index, index:
            index.execute("UPDATE image SET bytes = 7, last_used = 7")
        for order in Order.BYTES, Order.LAST_USED:
            self.check(sorted(self.pulled, reverse=True), order)

    def test_filters(self) -> None:
        one = [name for name in sorted(self.pulled) if "b/one" in name]
        for order in Order:
            expected = one if order is Order.REFERENCE else one[::-1]
            self.check(expected, order, host=HOST, repository=Repository("b/one"))
            self.check([], order, host=FAR)
            self.check([], order, host=HOST, repository=Repository("b/on"))
        self.check(sorted(self.pulled), Order.REFERENCE, host=HOST)

    def test_search(self) -> None:
        """In the whole reference, whatever its case."""
        latest = f"{HOST}/b/one:Latest"
        for order in Order:
            self.check([latest], order, search="ONE:laTEST")
            self.check([], order, search="nowhere")
        self.check([latest], Order.REFERENCE, search="b/one:l", host=HOST)

    def test_tagged(self) -> None:
        self.index.drop_tag(HOST, Repository("b/one"), Tag("Latest"))
        self.catch_up()
        self.assertEqual(len(self.walk(Order.REFERENCE, 4)), 6)
        names = [name for name in sorted(self.pulled) if not name.endswith("Latest")]
        self.check(names, Order.REFERENCE, tagged=True)

    def test_no_room(self) -> None:
        """A page of nothing says so, and does not go on for ever."""
        page = self.finish(self.catalog.images(Order.REFERENCE, None, 0))
        self.assertEqual(page, ([], None))


class RecordTests(ImageCase):
    def image(self, reference: str = "latest", repository: Repository = APP) -> ImageRecord | None:
        self.catch_up()
        parsed: Reference = Digest.parse(reference) if ":" in reference else Tag(reference)
        return self.successResultOf(self.catalog.image(HOST, repository, parsed))

    def test_image(self) -> None:
        image = images.image(1, 10)
        self.pull(image)
        self.time += 5.0
        self.tag(image.manifest, "latest", accept="c/d")
        self.catalog.pin(HOST, APP, Tag("latest"), True)
        self.assertEqual(
            self.image(),
            ImageRecord(
                HOST,
                APP,
                Tag("latest"),
                Digest.parse(image.digest),
                images.DOCKER_MANIFEST,
                sum(len(each.content) for each in (image.manifest, *image.blobs)),
                complete=True,
                pinned=True,
                last_used=1000.0,
                checked_at=1005.0,
                stored_at=1000.0,
                brought_by=None,
            ),
        )

    def test_by_digest(self) -> None:
        """Also of what is no image of its own."""
        image = images.image(1, 10)
        self.pull(images.index(image))
        found = self.image(image.digest)
        assert found is not None
        self.assertEqual((found.tag, found.checked_at), (None, None))
        self.assertEqual(found.media_type, images.DOCKER_MANIFEST)
        self.assertTrue(found.complete)

    def test_unknown(self) -> None:
        image = images.image(1, 10)
        self.tag(image.manifest, "latest")
        for reference in "latest", "other", image.digest:
            self.assertIs(self.image(reference), None)
        self.pull(image)
        self.assertIs(self.image("latest", OTHER), None)

    def test_two_kinds_of_clients(self) -> None:
        """What was seen last."""
        image, other = images.image(1, 10), images.image(1, 10)
        self.pull(image)
        self.time += 5.0
        self.keep_image(other)
        self.tag(other.manifest, "latest", accept="c/d")
        found = self.image()
        assert found is not None
        self.assertEqual(str(found.digest), other.digest)

    def test_brought_by(self) -> None:
        image = images.image(1, 10)
        for content in (image.manifest, *image.blobs):
            digest = Digest.parse(content.digest)
            self.finish(self.store.put(digest, content.content, "192.0.2.7"))
            self.index.put_membership(HOST, APP, digest, content.media_type)
        # Another client has nothing to do with it.
        self.finish(self.store.put(Digest.parse(image.digest), image.manifest.content, "192.0.2.8"))
        self.tag(image.manifest, "latest")
        found = self.image()
        assert found is not None
        self.assertEqual(found.brought_by, "192.0.2.7")

    def test_parts(self) -> None:
        one = images.image(2, 10)
        other = Image(images.manifest(images.OCI_MANIFEST, list(one.blobs[:2])), one.blobs[:2])
        self.pull(one, "one")
        self.pull(other, "other")
        self.catch_up()
        contents = [one.blobs[1], one.blobs[2], Content("", b"absent")]
        digests = [Digest.parse(each.digest) for each in contents]
        self.assertEqual(
            self.successResultOf(self.catalog.parts(digests)),
            {
                digests[0]: PartRecord(len(contents[0].content), 2),
                digests[1]: PartRecord(len(contents[1].content), 1),
                digests[2]: PartRecord(None, 0),
            },
        )

    def test_repositories(self) -> None:
        image = images.image(1, 10)
        other = images.image(1, 20)
        self.pull(image, "one")
        self.pull(image, "two")
        self.time = 2000.0
        self.keep_image(other, OTHER)
        self.keep(image.blobs[0], OTHER)
        # Nothing of it is here.
        self.tag(images.image(1, 10).manifest, "latest", Repository("nothing/here"))
        self.catch_up()
        sizes = [
            sum(len(content.content) for content in (each.manifest, *each.blobs))
            for each in (image, other)
        ]
        shared = len(image.blobs[0].content)
        expected = [
            RepositoryRecord(HOST, APP, 2, sizes[0], 1000.0),
            RepositoryRecord(HOST, OTHER, 0, sizes[1] + shared, 2000.0),
        ]
        for limit in 1, 2, 3:
            found: list[RepositoryRecord] = []
            after: Key | None = None
            while True:
                page, after = self.finish(self.catalog.repositories(after, limit))
                found += page
                if after is None:
                    break
            self.assertEqual(found, expected)
        cases: list[tuple[dict[str, Any], list[RepositoryRecord]]] = [
            ({"host": HOST}, expected),
            ({"host": FAR}, []),
            ({"search": "OTH"}, expected[1:]),
            ({"search": "test/some", "host": HOST}, expected),
        ]
        for filters, some in cases:
            for scan in 1, 1000:
                self.patch(catalog_module, "SCAN", scan)
                page, _ = self.finish(self.catalog.repositories(None, 5, **filters))
                self.assertEqual(page, some)

    def test_blobs(self) -> None:
        contents = sorted(self.put(b"%d" % number) for number in range(5))
        self.pin(contents[2])
        expected = [
            BlobRecord(record, record.digest == contents[2], None) for record in self.records()
        ]
        self.assertEqual([each.content.digest for each in expected], contents)
        for limit in 1, 2, 5, 6:
            found: list[BlobRecord] = []
            after: Key | None = None
            while True:
                page, after = self.finish(self.catalog.blobs(after, limit))
                found += page
                if after is None:
                    break
            self.assertEqual(found, expected)
        self.assertEqual(self.finish(self.catalog.blob(contents[2])), expected[2])
        self.assertIs(self.finish(self.catalog.blob(Digest.of(b"absent"))), None)


class ReleaseCase(ImageCase):
    def purge(self, reference: str, repository: Repository = APP) -> set[str] | None:
        """What of the store went with an image."""
        self.catch_up()
        parsed: Reference = Digest.parse(reference) if ":" in reference else Tag(reference)
        before = self.files()
        records = self.successResultOf(self.catalog.release(HOST, repository, parsed))
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
        self.catalog.pin(HOST, APP, Tag("latest"), True)
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

    def test_digest_with_tags(self) -> None:
        """The tags that point to it would point to nothing."""
        image = images.image(1, 10)
        self.pull(image, "one")
        self.tag(image.manifest, "two")
        self.catalog.pin(HOST, APP, Tag("two"), True)
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

    def test_adopted(self) -> None:
        image = images.image(1, 10)
        content = {Digest.parse(each.digest): each.media_type for each in image.blobs}
        manifest = Digest.parse(image.digest)
        content[manifest] = image.manifest.media_type
        for each in (image.manifest, *image.blobs):
            self.put(each.content)
        self.successResultOf(
            self.catalog.adopt(HOST, APP, content, (Tag("1.0"), ACCEPT, manifest), 5.0)
        )
        self.assertEqual(self.index.adopted_at(HOST, APP, manifest), 5.0)
        self.assertEqual(self.members(APP), digests(image.manifest, *image.blobs))
        # What upstream says of it later does not change that.
        self.keep(image.manifest)
        self.assertEqual(self.index.adopted_at(HOST, APP, manifest), 5.0)
        self.assertEqual(self.purge("1.0"), digests(image.manifest, *image.blobs))
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
