from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

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
from tests.support import images
from tests.support.images import Content, Image, Index
from tests.support.stored_images import (
    APP,
    HOST,
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
        self.curation.pin(HOST, APP, Tag("latest"), True)
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
