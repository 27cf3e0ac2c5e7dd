from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred

from regproxy.management import images as images_module
from regproxy.management.adoption import Unadoptable
from regproxy.management.image_tree import MAX_NODES
from regproxy.management.images import Images, UnknownImage
from regproxy.management.jobs import Jobs
from regproxy.management.paging import BadCursor
from regproxy.management.values import (
    ImageValue,
    JobKind,
    JobState,
    Page,
    Purged,
    RepositoryValue,
    Unit,
)
from regproxy.oci.errors import BadRequest
from regproxy.oci.media_types import DEFAULT_ACCEPT, OCI_INDEX, normalise_accept
from regproxy.oci.names import Digest, Host, Repository, Tag
from regproxy.registry.prefetch import Prefetch
from regproxy.store.cataloguing import BATCH
from regproxy.store.index import TagKey
from regproxy.store.removal import Removal
from tests.support import images as make
from tests.support.images import Content, Image, Index
from tests.support.prefetching import FakePrefetch
from tests.support.stored_images import APP, HOST, OTHER, ImageCase
from tests.support.workers import Later

HUB = Host("registry-1.docker.io")


class ImagesCase(ImageCase):
    def setUp(self) -> None:
        super().setUp()
        self.jobs = Jobs(lambda: self.time)
        removal = Removal(self.directory, self.inventory, self.workers)
        self.part = Images(self.index, self.cataloguing, removal, self.jobs, lambda: self.time)
        self.prefetch = FakePrefetch()
        # Nothing is asked of a configuration but this.
        self.served = {HOST, HUB}
        self.part.follow(cast(Any, self), cast(Prefetch, self.prefetch))

    def intercepts(self, host: Host) -> bool:
        """As a configuration."""
        return host in self.served

    def fails(self, work: Any, error: type[Exception]) -> str:
        """The text of the error."""
        return str(self.failureResultOf(ensureDeferred(work), error).value)

    def references(self, page: Page[ImageValue]) -> list[str]:
        return [each.reference for each in page.items]


def reference(tag: str, repository: Repository = APP) -> str:
    return f"{HOST}/{repository}:{tag}"


def utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


class ListTests(ImagesCase):
    def test_value(self) -> None:
        image = make.image(1, 10)
        self.pull(image)
        page = self.finish(self.part.images(limit=5))
        size = sum(len(each.content) for each in (image.manifest, *image.blobs))
        value = ImageValue(
            reference=f"{HOST}/{APP}:latest",
            registry=str(HOST),
            repository=str(APP),
            tag="latest",
            digest=image.digest,
            media_type=image.manifest.media_type,
            bytes=size,
            complete=True,
            pinned=False,
            last_used=utc(1000.0),
            checked_at=utc(1000.0),
            stored_at=utc(1000.0),
            brought_by=None,
        )
        self.assertEqual(page, Page((value,)))
        self.assertEqual(self.finish(self.part.image(f"{HOST}/{APP}")), value)

    def test_without_a_tag(self) -> None:
        image = make.image(1, 10)
        self.keep_image(image)
        (value,) = self.finish(self.part.images(limit=5)).items
        self.assertEqual(value.reference, f"{HOST}/{APP}@{image.digest}")
        self.assertEqual((value.tag, value.checked_at), (None, value.stored_at))

    def test_pages(self) -> None:
        """In every order, to the end and no further."""
        for number in range(7):
            self.time += 10.0
            self.pull(make.image(1, 10 * number), f"1.{number}")
        for sort, backwards in (("reference", False), ("last_used", True), ("bytes", True)):
            found: list[str] = []
            cursor: str | None = None
            for _ in range(3):
                page = self.finish(self.part.images(sort=sort, limit=3, cursor=cursor))
                found += self.references(page)
                cursor = page.next
            self.assertIs(cursor, None)
            expected = [reference(f"1.{number}") for number in range(7)]
            self.assertEqual(found, expected[::-1] if backwards else expected)

    def test_cursor_of_another_list(self) -> None:
        for number in range(3):
            self.pull(make.image(1, 10), f"{number}")
        cursor = self.finish(self.part.images(sort="bytes", limit=1)).next
        for sort in "reference", "last_used":
            self.fails(self.part.images(sort=sort, limit=1, cursor=cursor), BadCursor)
        self.fails(self.part.repositories(limit=1, cursor=cursor), BadCursor)

    def test_filters(self) -> None:
        self.pull(make.image(1, 10), "1")
        self.pull(make.image(1, 10), "2", OTHER)
        one, two = reference("1"), reference("2", OTHER)
        cases: list[tuple[dict[str, Any], list[str]]] = [
            ({}, [one, two]),
            ({"registry": str(HOST)}, [one, two]),
            ({"registry": "REGISTRY.example.test:443"}, [one, two]),
            ({"registry": "a.b"}, []),
            ({"registry": str(HOST), "repository": str(OTHER)}, [two]),
            ({"registry": str(HOST), "repository": f"{HOST}/{OTHER}"}, [two]),
            ({"repository": f"{HOST}/{OTHER}"}, [two]),
            ({"repository": str(OTHER)}, []),
            ({"q": "APP:"}, [one]),
        ]
        for filters, expected in cases:
            page = self.finish(self.part.images(sort="reference", limit=5, **filters))
            self.assertEqual(self.references(page), expected, filters)
        for registry, repository in (("a b", None), (None, "A"), ("a", "A")):
            work = self.part.images(registry=registry, repository=repository, limit=5)
            self.fails(work, BadRequest)

    def test_docker_hub(self) -> None:
        """It is called as people call it."""
        image = make.image(1, 10)
        self.keep_image(image, Repository("library/debian"))
        digest = Digest.parse(image.digest)
        library = Repository("library/debian")
        self.index.put_membership(HUB, library, digest, image.manifest.media_type)
        self.tag(image.manifest, "12", library, host=HUB)
        cases: list[dict[str, Any]] = [
            {"registry": "docker.io"},
            {"repository": "debian"},
            {"q": "docker.io/lib"},
        ]
        for filters in cases:
            page = self.finish(self.part.images(limit=5, **filters))
            self.assertEqual(self.references(page), ["docker.io/library/debian:12"])
        self.assertEqual(self.finish(self.part.image("debian:12")).registry, str(HUB))

    def test_tags(self) -> None:
        for tag in "2", "1":
            self.pull(make.image(1, 10), tag)
        self.keep_image(make.image(1, 10))
        page = self.finish(self.part.tags(f"{HOST}/{APP}", limit=1))
        self.assertEqual(self.references(page), [reference("1")])
        page = self.finish(self.part.tags(f"{HOST}/{APP}", limit=5, cursor=page.next))
        self.assertEqual((self.references(page), page.next), ([reference("2")], None))

    def test_repositories(self) -> None:
        one = make.image(1, 10)
        self.pull(one, "1")
        self.pull(make.image(1, 10), "1", OTHER)
        page = self.finish(self.part.repositories(limit=1))
        size = sum(len(each.content) for each in (one.manifest, *one.blobs))
        value = RepositoryValue(str(HOST), str(APP), 1, size, utc(1000.0))
        self.assertEqual(page.items, (value,))
        page = self.finish(self.part.repositories(limit=1, cursor=page.next))
        self.assertEqual(
            ([each.repository for each in page.items], page.next), ([str(OTHER)], None)
        )
        page = self.finish(self.part.repositories(registry=str(HOST), q="OTHER", limit=5))
        self.assertEqual([each.repository for each in page.items], [str(OTHER)])

    def test_backlog(self) -> None:
        """Nobody waits until everything has been read that is new."""
        for number in range(700):
            image = make.manifest(make.OCI_MANIFEST, [Content("a/b", b"%d" % number)])
            self.keep(image)
            self.tag(image, f"{number}")
        page = self.finish(self.part.images(limit=1000))
        self.assertTrue(100 < len(page.items) < 700, len(page.items))
        self.catch_up()
        self.assertEqual(len(self.finish(self.part.images(limit=1000)).items), 700)


class TreeTests(ImagesCase):
    def test_index(self) -> None:
        one = make.image(2, 10)
        other = make.image(1, 10, platform=("linux", "arm64"))
        index = make.index(one, other)
        self.keep_image(one, blobs=one.blobs[:2])
        self.keep(index.manifest)
        self.tag(index.manifest, "latest")
        tree = self.finish(self.part.tree(reference("latest")))
        self.assertEqual(tree.image, self.finish(self.part.image(reference("latest"))))
        root = tree.manifest
        self.assertEqual((root.digest, root.stored, root.config), (index.digest, True, None))
        first, second = root.children
        self.assertEqual(
            [(node.digest, node.stored, node.platform) for node in root.children],
            [(one.digest, True, "linux/amd64"), (other.digest, False, "linux/arm64")],
        )
        assert first.config is not None
        self.assertEqual(first.config.digest, one.blobs[0].digest)
        self.assertEqual(
            [(layer.digest, layer.stored, layer.shared_by) for layer in first.layers],
            [(one.blobs[1].digest, True, 1), (one.blobs[2].digest, False, 1)],
        )
        self.assertEqual((second.layers, second.bytes), ((), len(other.manifest.content)))

    def test_no_manifest(self) -> None:
        self.keep(Content("text/plain", b"something"))
        self.tag(Content("text/plain", b"something"), "latest")
        tree = self.finish(self.part.tree(reference("latest")))
        self.assertEqual((tree.manifest.bytes, tree.manifest.layers), (9, ()))

    def test_unknown(self) -> None:
        text = self.fails(self.part.tree("debian:12"), UnknownImage)
        self.assertEqual(text, "there is no image docker.io/library/debian:12 here")
        self.fails(self.part.tree("Debian"), BadRequest)

    def test_deep(self) -> None:
        """Of indices of indices the first levels are shown."""
        index = make.index(make.image(1, 10))
        self.pull(index)
        for _ in range(20):
            index = make.index(Image(index.manifest, ()))
            self.keep(index.manifest)
        self.tag(index.manifest, "deep")
        node = self.finish(self.part.tree(reference("deep"))).manifest
        depth = 0
        while node.children:
            (node,) = node.children
            depth += 1
        self.assertEqual(depth, 8)

    def test_without_end(self) -> None:
        """Some tens of indices that name each other have a tree that no memory holds."""
        level = [Image(make.index(make.image(1, 10)).manifest, ())]
        for _ in range(7):
            made = [
                make.index(*(Image(each.manifest, (), ("a", f"{n}")) for each in level))
                for n in range(12)
            ]
            for index in made:
                self.keep(index.manifest)
            level = [Image(index.manifest, ()) for index in made]
        self.tag(made[0].manifest, "wide")
        to_do = [self.finish(self.part.tree(reference("wide"))).manifest]
        count = 0
        while to_do:
            count += 1
            to_do += to_do.pop().children
        self.assertTrue(1000 < count <= MAX_NODES + 1, count)

    def test_much_to_do(self) -> None:
        """What has just been adopted is not unknown because other images have to be read, too."""
        self.patch(images_module, "_STEPS", 1)
        content = max((make.image(1, 10) for _ in range(50)), key=lambda each: each.digest)
        for _ in range(BATCH * 2):
            self.pull(make.image(1, 10), repository=OTHER)
        for each in (content.manifest, *content.blobs):
            self.put(each.content)
        adopting = self.part.adopt(reference("new"), content.digest, content.manifest.media_type)
        self.assertEqual(self.finish(adopting).digest, content.digest)
        self.fails(self.part.image(reference("absent")), UnknownImage)


class PinTests(ImagesCase):
    def test_pin(self) -> None:
        image = make.image(1, 10)
        self.pull(image)
        self.finish(self.part.pin(reference("latest"), True))
        self.assertTrue(self.finish(self.part.image(reference("latest"))).pinned)
        self.assertEqual(self.successResultOf(self.inventory.oldest(None, 10)), [])
        self.finish(self.part.pin(reference("latest"), False))
        self.assertFalse(self.finish(self.part.image(reference("latest"))).pinned)
        self.assertEqual(len(self.successResultOf(self.inventory.oldest(None, 10))), 3)

    def test_unknown(self) -> None:
        for pinned in True, False:
            self.fails(self.part.pin(reference("latest"), pinned), UnknownImage)
        # Its tag is known, and nothing of it is here.
        self.tag(make.image(1, 10).manifest, "latest")
        self.fails(self.part.pin(reference("latest"), True), UnknownImage)

    def test_unpin_what_has_left(self) -> None:
        self.pull(make.image(1, 10))
        self.finish(self.part.pin(reference("latest"), True))
        self.index.drop_tag(HOST, APP, Tag("latest"))
        self.finish(self.part.pin(reference("latest"), False))
        self.fails(self.part.pin(reference("latest"), False), UnknownImage)

    def test_not_forgotten(self) -> None:
        """Neither is what is known of it, however long nobody asks for it."""
        self.pull(make.image(1, 10))
        self.finish(self.part.pin(reference("latest"), True))
        self.time += 1e9
        for table in "tag", "membership":
            _, count = self.successResultOf(
                self.inventory.forget_useless(table, None, self.time, self.time, 100)
            )
            self.assertEqual(count, 0)


class PurgeTests(ImagesCase):
    def test_one(self) -> None:
        image = make.image(1, 10)
        self.pull(image)
        size = sum(len(each.content) for each in (image.manifest, *image.blobs))
        self.assertEqual(self.finish(self.part.purge(reference("latest"))), Purged(1, 3, size))
        self.assertEqual(self.files(), set())
        self.fails(self.part.purge(reference("latest")), UnknownImage)

    def test_while_it_is_served(self) -> None:
        image = make.image(1, 10)
        self.pull(image)
        blob = self.open(Digest.parse(image.blobs[1].digest))
        self.finish(self.part.purge(reference("latest")))
        assert blob.size is not None
        content = self.successResultOf(blob.read(0, blob.size))
        self.assertEqual(content, image.blobs[1].content)
        blob.close()
        self.assertEqual(self.files(), set())

    def test_before_it_was_read(self) -> None:
        """What another image that has just come needs is not taken for unneeded."""
        one = make.image(2, 10)
        other = Image(make.manifest(make.OCI_MANIFEST, list(one.blobs[:2])), one.blobs[:2])
        self.pull(one, "one")
        self.catch_up()
        self.pull(other, "other")
        self.finish(self.part.purge(reference("one")))
        kept = {Digest.parse(each.digest) for each in (other.manifest, *other.blobs)}
        self.assertEqual(self.files(), kept)

    def purge(self, **which: Any) -> set[str]:
        """What is left."""
        self.finish(self.part.purge_many(**which))
        return {each.rpartition(":")[2] for each in self.left()}

    def left(self) -> list[str]:
        return self.references(self.finish(self.part.images(sort="reference", limit=100)))

    def test_many(self) -> None:
        for number in range(4):
            self.time += 100.0
            self.pull(make.image(1, 10), f"{number}", OTHER if number == 3 else APP)
        self.finish(self.part.pin(reference("0"), True))
        # At 1100, 1200, 1300 and 1400.
        self.assertEqual(self.purge(registry="a.b"), {"0", "1", "2", "3"})
        self.assertEqual(self.purge(unused_for=300.0), {"0", "1", "2", "3"})
        self.assertEqual(self.purge(unused_for=199.0), {"0", "2", "3"})
        self.assertEqual(self.purge(names=[reference("2")], unused_for=101.0), {"0", "2", "3"})
        self.assertEqual(self.purge(names=[reference("2"), reference("0")]), {"0", "3"})
        self.assertEqual(self.purge(repository=f"{HOST}/{OTHER}"), {"0"})
        self.assertEqual(self.purge(registry=str(HOST)), {"0"})
        self.assertEqual(len(self.files()), 3)

    def test_names_one_that_is_not_here(self) -> None:
        self.pull(make.image(1, 10))
        names = [reference("latest"), reference("absent")]
        self.fails(self.part.purge_many(names), UnknownImage)
        self.assertEqual(self.left(), [reference("latest")])

    def test_goes_with_another(self) -> None:
        """What is gone when its turn comes keeps nobody from purging the rest."""
        image = make.image(1, 10)
        everything: list[dict[str, Any]] = [
            {"registry": str(HOST)},
            # Twice, and by both of its names.
            {"names": [reference("one"), reference("one"), reference("two")]},
            {"names": [f"{HOST}/{APP}@{image.digest}", reference("one"), reference("two")]},
        ]
        for which in everything:
            self.pull(image, "one")
            # Another kind of client has got another manifest for the same tag.
            other = make.image(1, 10)
            self.keep_image(other)
            self.tag(other.manifest, "one", accept="c/d")
            self.pull(make.image(1, 10), "two")
            self.finish(self.part.purge_many(**which))
            self.assertNotIn(reference("two"), self.left(), which)

    def test_nobody_waits(self) -> None:
        """What has been begun is done, though the client has left."""
        self.pull(make.image(1, 10))
        self.catch_up()
        workers = Later()
        removal = Removal(self.directory, self.inventory, workers)
        part = Images(self.index, self.cataloguing, removal, self.jobs, lambda: self.time)
        purging = ensureDeferred(part.purge(reference("latest")))
        self.assertEqual(len(workers), 1)
        purging.cancel()
        self.failureResultOf(purging, CancelledError)
        workers.all()
        self.assertEqual((self.files(), self.rows()), (set(), set()))

    def test_counts(self) -> None:
        one = make.image(2, 10)
        self.pull(one, "one")
        self.pull(one, "two")
        purged = self.finish(self.part.purge_many(registry=str(HOST)))
        size = sum(len(each.content) for each in (one.manifest, *one.blobs))
        self.assertEqual(purged, Purged(2, 4, size))


class WarmTests(ImagesCase):
    def test_job(self) -> None:
        job = self.part.warm(["debian:12"], ["linux/amd64"])
        self.assertEqual(
            (job.kind, job.state, job.unit), (JobKind.WARM, JobState.RUNNING, Unit.BYTES)
        )
        fetched = self.prefetch.begun["docker.io/library/debian:12"]
        self.assertEqual(fetched.platforms, ["linux/amd64"])
        fetched.meter.expect(10)
        (image,) = self.jobs.get(job.id).images
        self.assertEqual((image.reference, image.total), ("debian:12", 10))
        fetched.done.callback(None)
        self.assertIs(self.jobs.get(job.id).state, JobState.DONE)

    def test_cancel(self) -> None:
        job = self.part.warm(["debian:12"])
        self.assertIs(self.prefetch.begun["docker.io/library/debian:12"].platforms, None)
        self.jobs.cancel(job.id)
        self.assertIs(self.jobs.get(job.id).state, JobState.CANCELLED)

    def test_refused(self) -> None:
        """Before anything is begun."""
        for images, platforms in ((["debian:12", "A"], None), (["debian:12"], ["linux"])):
            self.assertRaises(BadRequest, self.part.warm, images, platforms)
        self.assertEqual(self.prefetch.begun, {})


class AdoptTests(ImagesCase):
    """The rest is tested with :mod:`regproxy.management.adoption`."""

    def bring(self, image: Image | Index) -> None:
        """Put content there, in no repository."""
        for each in image.images if isinstance(image, Index) else ():
            self.bring(each)
        for content in (image.manifest, *(image.blobs if isinstance(image, Image) else ())):
            self.put(content.content)

    def adopt(self, image: Image | Index, name: str = reference("1.0")) -> Deferred[ImageValue]:
        return ensureDeferred(self.part.adopt(name, image.digest, image.manifest.media_type))

    def test_tag(self) -> None:
        image = make.image(1, 10)
        index = make.index(image)
        self.bring(index)
        value = self.successResultOf(self.adopt(index))
        self.assertEqual((value.reference, value.media_type), (reference("1.0"), OCI_INDEX))
        self.assertTrue(value.complete)
        self.assertEqual(value, self.finish(self.part.image(reference("1.0"))))
        # As clients look for it.
        entry = self.index.tag(
            TagKey(HOST, APP, Tag("1.0"), normalise_accept([DEFAULT_ACCEPT.encode()]))
        )
        assert entry is not None
        self.assertEqual((str(entry.digest), entry.checked_at), (index.digest, self.time))
        for content in (index.manifest, image.manifest, *image.blobs):
            digest = Digest.parse(content.digest)
            self.assertIsNot(self.index.membership(HOST, APP, digest), None)
            self.assertEqual(self.index.adopted_at(HOST, APP, digest), self.time)

    def test_digest(self) -> None:
        image = make.image(1, 10)
        self.bring(image)
        name = f"{HOST}/{APP}@{image.digest}"
        self.assertEqual(self.successResultOf(self.adopt(image, name)).reference, name)
        other = f"{HOST}/{APP}@{make.digest(b'other')}"
        failure = self.failureResultOf(self.adopt(image, other), Unadoptable)
        self.assertIn("another digest", str(failure.value))

    def test_again(self) -> None:
        """With a later image, and to renew it."""
        one, other = make.image(1, 10), make.image(1, 10)
        for image in one, other, other:
            self.bring(image)
            self.time += 10.0
            value = self.successResultOf(self.adopt(image))
            self.assertEqual((value.digest, value.checked_at), (image.digest, utc(self.time)))

    def test_no_registry_of_this_proxy(self) -> None:
        image = make.image(1, 10)
        self.bring(image)
        self.served.clear()
        failure = self.failureResultOf(self.adopt(image), Unadoptable)
        self.assertIn(f"{HOST} is not a registry of this proxy", str(failure.value))

    def test_purged(self) -> None:
        image = make.image(1, 10)
        self.bring(image)
        self.successResultOf(self.adopt(image))
        self.finish(self.part.purge(reference("1.0")))
        self.assertEqual(self.files(), set())
