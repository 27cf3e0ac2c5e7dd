"""Tests for :mod:`regproxy.registry.prefetch`: images that no client has asked for."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred

from regproxy.config.model import Config
from regproxy.interfaces import ANYBODY
from regproxy.oci.manifests import Platform
from regproxy.oci.media_types import OCI_INDEX
from regproxy.oci.names import Digest
from regproxy.oci.references import ImageName
from regproxy.registry.guests import Guests
from regproxy.registry.prefetch import CONCURRENCY, Prefetch, Unfetched
from regproxy.registry.service import RegistryService
from regproxy.registry.tokens import Answerer
from regproxy.store.fill import Fill
from regproxy.upstream.errors import UpstreamUnreachable
from tests.support import images
from tests.support.front import OPEN, TEAM, FrontTestCase
from tests.support.images import Content, Image, Index
from tests.support.upstream import FakeResponse, Reply

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
BLOB = {"Content-Type": "application/octet-stream"}


class Meter:
    """Adds up."""

    def __init__(self) -> None:
        self.expected = self.here = 0

    def expect(self, size: int) -> None:
        self.expected += size

    def advance(self, size: int) -> None:
        self.here += size


def sizes(*contents: Content) -> int:
    return sum(len(each.content) for each in contents)


class PrefetchTestCase(FrontTestCase):
    def before(self, service: RegistryService, config: Config) -> Answerer:
        self.prefetch = Prefetch(Guests(service), config, self.store)
        return service

    def setUp(self) -> None:
        super().setUp()
        self.meter = Meter()

    def serve(self, image: Image | Index, host: str = OPEN, tag: str = "latest") -> None:
        """Have an image at the registry, and all that it names."""
        if isinstance(image, Index):
            for each in image.images:
                self.serve(each, host, tag)
        else:
            for blob in image.blobs:
                self.upstream.serve_blob(host, "some/app", blob.content)
        content, media_type = image.manifest.content, image.manifest.media_type
        self.upstream.serve_manifest(host, "some/app", tag, content, media_type)

    def fetch(
        self,
        reference: str = "latest",
        host: str = OPEN,
        platforms: Sequence[Platform] | None = None,
    ) -> Deferred[None]:
        mark = "@" if ":" in reference else ":"
        name = ImageName.parse(f"{host}/some/app{mark}{reference}")
        return ensureDeferred(self.prefetch.fetch(name, platforms, self.meter))

    def reason(self, fetching: Deferred[None]) -> str:
        """Why it came to nothing."""
        return str(self.failureResultOf(fetching, Unfetched).value)

    def check_here(self, *contents: Content) -> None:
        """This is in the store, and nothing else."""
        files = [path.name for path in (self.root / "blobs").rglob("*") if path.is_file()]
        self.assertEqual(sorted(files), sorted(Digest.parse(c.digest).hex for c in contents))

    def url(self, content: Content, kind: str = "blobs") -> str:
        return f"{OPEN}/v2/some/app/{kind}/{content.digest}"


class FetchTests(PrefetchTestCase):
    def test_image(self) -> None:
        image = images.image(2, 100)
        self.serve(image)
        self.successResultOf(self.fetch())
        self.check_here(image.manifest, *image.blobs)
        everything = sizes(image.manifest, *image.blobs)
        self.assertEqual((self.meter.expected, self.meter.here), (everything, everything))

    def test_a_client_finds_it(self) -> None:
        """Which sends another Accept: it costs the registry a HEAD."""
        image = images.image(1, 100)
        self.serve(image)
        self.successResultOf(self.fetch())
        self.upstream.questions()
        tag = "/v2/some/app/manifests/latest"
        answer = self.get(OPEN, tag, Accept=f"{image.manifest.media_type}, application/json")
        self.assertEqual(answer.body, image.manifest.content)
        for blob in image.blobs:
            self.assertEqual(self.get(OPEN, f"/v2/some/app/blobs/{blob.digest}").body, blob.content)
        self.assertAsked(f"HEAD {OPEN}{tag}")

    def test_again(self) -> None:
        """What is here is not fetched again; a tag is asked for."""
        image = images.image(1, 100)
        self.serve(image)
        for _ in range(2):
            self.meter = Meter()
            self.successResultOf(self.fetch())
            self.assertEqual(self.meter.here, sizes(image.manifest, *image.blobs))
        gets = [question for question in self.upstream.questions() if question.startswith("GET")]
        self.assertEqual(len(gets), 3)

    def test_by_digest(self) -> None:
        image = images.image(1, 100)
        self.serve(image)
        self.successResultOf(self.fetch(image.digest))
        self.check_here(image.manifest, *image.blobs)

    def test_as_anybody(self) -> None:
        image = images.image(1, 100)
        self.serve(image)
        self.successResultOf(self.fetch())
        self.assertEqual({asked.authorization for asked in self.upstream.asked}, {ANYBODY})

    def test_with_the_login_of_the_proxy(self) -> None:
        image = images.image(1, 100)
        self.serve(image, TEAM)
        self.successResultOf(self.fetch(host=TEAM))
        self.assertTrue(all(asked.inject for asked in self.upstream.asked))
        self.assertEqual({asked.authorization for asked in self.upstream.asked}, {None})

    def test_nobody_brought_it(self) -> None:
        image = images.image(1, 100)
        self.serve(image)
        self.successResultOf(self.fetch())
        record = self.successResultOf(
            ensureDeferred(self.index.catalog.blob(Digest.parse(image.digest)))
        )
        assert record is not None
        self.assertIs(record.brought_by, None)

    def test_the_same_layer_twice(self) -> None:
        image = images.image(1, 100)
        config, layer = image.blobs
        manifest = images.manifest(images.OCI_MANIFEST, [config, layer, layer])
        self.serve(Image(manifest, image.blobs))
        self.successResultOf(self.fetch())
        self.assertEqual(self.meter.here, sizes(manifest, *image.blobs))

    def test_foreign_layer(self) -> None:
        """It is not the registry's to give."""
        image = images.image(1, 100)
        text = image.manifest.content.decode()
        before, _, after = text.rpartition(f'"{image.blobs[1].media_type}"')
        kind = '"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "urls": ["https://x"]'
        manifest = Content(images.DOCKER_MANIFEST, f"{before}{kind}{after}".encode())
        self.serve(Image(manifest, image.blobs[:1]))
        self.successResultOf(self.fetch())
        self.check_here(manifest, image.blobs[0])


class PlatformTests(PrefetchTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.amd64 = images.image(1, 100)
        self.arm64 = images.image(1, 100, platform=("linux", "arm64"))
        self.both = images.index(self.amd64, self.arm64)
        self.serve(self.both)

    def test_all(self) -> None:
        self.successResultOf(self.fetch())
        contents = [self.both.manifest]
        for image in self.amd64, self.arm64:
            contents += [image.manifest, *image.blobs]
        self.check_here(*contents)
        self.assertEqual(self.meter.here, sizes(*contents))

    def test_one(self) -> None:
        self.successResultOf(self.fetch(platforms=[ARM64]))
        self.check_here(self.both.manifest, self.arm64.manifest, *self.arm64.blobs)
        self.assertEqual(self.meter.expected, self.meter.here)

    def test_one_that_it_has_not(self) -> None:
        """Neither is the other one fetched: whoever asked will ask otherwise."""
        wanted = [AMD64, Platform("linux", "s390x")]
        self.assertEqual(
            self.reason(self.fetch(platforms=wanted)),
            "manifest latest: it has nothing for linux/s390x, but for linux/amd64, linux/arm64",
        )
        self.check_here(self.both.manifest)

    def test_no_index(self) -> None:
        self.serve(self.arm64, tag="arm64")
        self.successResultOf(self.fetch("arm64", platforms=[AMD64]))
        self.check_here(self.arm64.manifest, *self.arm64.blobs)

    def test_no_platforms(self) -> None:
        """An index that does not say what is for what is fetched whole."""
        text = self.both.manifest.content.decode().replace('"platform"', '"annotations"')
        self.serve(Index(Content(OCI_INDEX, text.encode()), self.both.images))
        self.successResultOf(self.fetch(platforms=[AMD64]))
        self.assertTrue(self.stored(self.arm64.manifest.content))

    def test_deep(self) -> None:
        """An index of an index is one thing, and five of them another."""
        index = self.both
        for number in range(4):
            entry = images.index(Image(index.manifest, ()))
            self.serve(Index(entry.manifest, ()), tag=f"deep-{number}")
            index = entry
        self.successResultOf(self.fetch("deep-2"))
        self.assertTrue(self.stored(self.arm64.manifest.content))
        self.assertIn("too much below it", self.reason(self.fetch("deep-3")))

    def test_shared_layers(self) -> None:
        """They count once."""
        config = Content("a/b", b"another configuration")
        layer = self.amd64.blobs[1]
        manifest = images.manifest(images.DOCKER_MANIFEST, [config, layer])
        other = Image(manifest, (config, layer), ("linux", "arm"))
        both = images.index(self.amd64, other)
        self.serve(both)
        self.successResultOf(self.fetch())
        contents = [both.manifest, self.amd64.manifest, manifest, *self.amd64.blobs, config]
        self.check_here(*contents)
        self.assertEqual((self.meter.expected, self.meter.here), (sizes(*contents),) * 2)

    def test_without_end(self) -> None:
        """Few indices that name each other have a tree of many thousands."""
        level = [Image(self.both.manifest, (), ("linux", f"{number}")) for number in range(2)]
        for _ in range(3):
            made = [
                images.index(*(Image(each.manifest, (), ("a", f"{n}-{m}")) for m in range(9)))
                for n, each in enumerate(level)
            ]
            for each in made:
                self.serve(Index(each.manifest, ()))
            level = [Image(each.manifest, ()) for each in made]
        self.upstream.questions()
        self.successResultOf(self.fetch(made[0].digest))
        self.assertLess(len(self.upstream.questions()), 20)


class FailureTests(PrefetchTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.image = images.image(3, 100)
        self.serve(self.image)

    def test_no_registry_of_this_proxy(self) -> None:
        reason = self.reason(self.fetch(host="elsewhere.example.org"))
        self.assertIn("elsewhere.example.org is not a registry of this proxy", reason)

    def test_no_such_tag(self) -> None:
        self.upstream.on("GET", f"{OPEN}/v2/some/app/manifests/absent", Reply(404))
        self.assertEqual(self.reason(self.fetch("absent")), f"manifest absent: {OPEN} answered 404")

    def test_refused(self) -> None:
        self.upstream.on("GET", f"{OPEN}/v2/some/app/manifests/latest", Reply(401))
        self.assertEqual(self.reason(self.fetch()), f"manifest latest: {OPEN} answered 401")

    def test_unreachable(self) -> None:
        self.upstream.on("GET", f"{OPEN}/v2/some/app/manifests/latest", UpstreamUnreachable("gone"))
        self.assertEqual(self.reason(self.fetch()), "manifest latest: gone")

    def test_unreachable_though_it_is_here(self) -> None:
        """What the tag points to by now is not known."""
        self.successResultOf(self.fetch())
        for method in "GET", "HEAD":
            url = f"{OPEN}/v2/some/app/manifests/latest"
            self.upstream.on(method, url, UpstreamUnreachable("gone"))
        self.assertEqual(
            self.reason(self.fetch()), "manifest latest: stored answer, upstream failed: gone"
        )

    def test_refused_though_it_is_here(self) -> None:
        """Of a repository that is somebody's own."""
        self.get(OPEN, "/v2/some/app/manifests/latest", "Bearer alice")
        for method in "GET", "HEAD":
            self.upstream.on(method, f"{OPEN}/v2/some/app/manifests/latest", Reply(401))
        self.assertIn("answered 401", self.reason(self.fetch()))

    def test_no_manifest(self) -> None:
        content = b'{"something": "else"}'
        self.upstream.serve_manifest(OPEN, "some/app", "latest", content)
        reason = self.reason(self.fetch())
        self.assertTrue(reason.startswith("manifest latest: not a manifest of an image"), reason)

    def test_large_manifest(self) -> None:
        content = b" " * (self.config.limits.manifest_size + 1)
        digest = str(Digest.of(content))
        headers = {"Content-Type": OCI_INDEX, "Docker-Content-Digest": digest}
        url = f"{OPEN}/v2/some/app/manifests/latest"
        self.upstream.on("GET", url, Reply(200, headers, content, length=-1))
        self.assertIn("too large", self.reason(self.fetch()))

    def test_one_blob(self) -> None:
        """The others come all the same."""
        bad = self.image.blobs[1]
        self.upstream.on("GET", self.url(bad), Reply(404))
        self.assertEqual(self.reason(self.fetch()), f"blob {bad.digest}: {OPEN} answered 404")
        others = [blob for blob in self.image.blobs if blob is not bad]
        self.check_here(self.image.manifest, *others)

    def test_wrong_blob(self) -> None:
        bad = self.image.blobs[1]
        self.upstream.on("GET", self.url(bad), Reply(200, BLOB, bytes(len(bad.content))))
        reason = self.reason(self.fetch())
        self.assertIn(f"blob {bad.digest}: content is sha256:", reason)
        self.assertFalse(self.stored(bad.content))

    def test_disk_full(self) -> None:
        async def full(*_: object) -> Fill:
            raise OSError(errno.ENOSPC, "no space left on device")

        self.patch(self.store, "begin", full)
        self.assertEqual(self.reason(self.fetch()), "manifest latest: it is not stored: disk-error")

    def test_not_durable(self) -> None:
        """All bytes came and were right, and then the disk did not take them."""

        def refuse(*_: object) -> None:
            raise OSError(errno.EIO, "input/output error")

        self.patch(type(self.store._directory), "commit", refuse)
        self.assertEqual(self.reason(self.fetch()), "manifest latest: the disk did not take it")


class MeanwhileTests(PrefetchTestCase):
    """Blobs that arrive slowly."""

    def setUp(self) -> None:
        super().setUp()
        self.image = images.image(CONCURRENCY + 2, 100)
        self.serve(self.image)
        for blob in self.image.blobs:
            reply = Reply(200, BLOB, None, length=len(blob.content))
            self.upstream.on("GET", self.url(blob), reply)

    def transfers(self) -> dict[str, FakeResponse]:
        """The answers whose bodies are to come, by the digest that was asked for."""
        asked = [each.url.rpartition("/")[2] for each in self.upstream.asked]
        found = zip(asked, self.upstream.responses, strict=True)
        return {digest: response for digest, response in found if not response.ended}

    def content(self, digest: str) -> bytes:
        (content,) = (blob.content for blob in self.image.blobs if blob.digest == digest)
        return content

    def finish_transfers(self) -> None:
        while transfers := self.transfers():
            for digest, response in transfers.items():
                response.send(self.content(digest))
                response.end()

    def test_progress(self) -> None:
        fetching = self.fetch()
        (digest, response), *_ = self.transfers().items()
        before = self.meter.here
        response.send(self.content(digest)[:10])
        self.assertEqual(self.meter.here, before + 10)
        self.assertEqual(self.meter.expected, sizes(self.image.manifest, *self.image.blobs))
        response.send(self.content(digest)[10:])
        response.end()
        self.finish_transfers()
        self.successResultOf(fetching)
        self.assertEqual(self.meter.here, self.meter.expected)

    def test_some_at_a_time(self) -> None:
        """Of all images together."""
        fetching, other = self.fetch(), self.fetch(self.image.digest)
        self.assertEqual(len(self.transfers()), CONCURRENCY)
        digest, response = next(iter(self.transfers().items()))
        response.send(self.content(digest))
        response.end()
        self.assertEqual(len(self.transfers()), CONCURRENCY)
        self.finish_transfers()
        self.successResultOf(fetching)
        self.successResultOf(other)

    def test_a_client_joins(self) -> None:
        fetching = self.fetch()
        digest, response = next(iter(self.transfers().items()))
        client = self.ask("GET", OPEN, f"/v2/some/app/blobs/{digest}")
        response.send(self.content(digest))
        response.end()
        self.assertEqual(client.answer().body, self.content(digest))
        self.finish_transfers()
        self.successResultOf(fetching)

    def test_cancelled(self) -> None:
        """Nothing more is begun; what has begun comes to its end."""
        fetching = self.fetch()
        begun = list(self.transfers())
        fetching.cancel()
        self.failureResultOf(fetching, CancelledError)
        self.finish_transfers()
        self.check_here(
            self.image.manifest, *(blob for blob in self.image.blobs if blob.digest in begun)
        )

    def test_cancelled_after_a_failure(self) -> None:
        """It counts as cancelled."""
        self.upstream.on("GET", self.url(self.image.blobs[0]), Reply(404))
        fetching = self.fetch()
        fetching.cancel()
        self.failureResultOf(fetching, CancelledError)
        self.finish_transfers()

    def test_slots_are_given_back(self) -> None:
        for _ in range(2 * CONCURRENCY):
            fetching = self.fetch()
            fetching.cancel()
            self.failureResultOf(fetching, CancelledError)
        fetching = self.fetch()
        self.finish_transfers()
        self.successResultOf(fetching)
