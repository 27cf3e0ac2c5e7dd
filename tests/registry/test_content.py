"""Tests for :mod:`regproxy.registry.content`: pulls by digest, as a client sees them."""

from __future__ import annotations

import os
from unittest.mock import patch

from twisted.internet.defer import Deferred, ensureDeferred, fail
from twisted.python.failure import Failure

from regproxy.oci.names import Digest
from regproxy.store.disk import Workers
from regproxy.store.errors import IndexFailed
from regproxy.upstream.errors import UpstreamUnreachable
from tests.support.front import OPEN, OTHER, FrontTestCase
from tests.support.upstream import Reply
from tests.support.workers import Later

BLOB = bytes(range(256)) * 1000
DIGEST = str(Digest.of(BLOB))


class BlobTests(FrontTestCase):
    """A blob that anybody may read."""

    def setUp(self) -> None:
        super().setUp()
        self.target = self.upstream.serve_blob(OPEN, "some/app", BLOB)
        self.url = OPEN + self.target

    def slow(self, length: int = len(BLOB)) -> None:
        """The blob comes as the test says."""
        headers = {"Content-Type": "application/octet-stream"}
        self.upstream.on("GET", self.url, Reply(200, headers, None, length))

    def test_cold_then_warm(self) -> None:
        """The first client's GET goes upstream, the second one's does not."""
        for cache in "regproxy; fwd=miss; stored", "regproxy; hit":
            answer = self.get(OPEN, self.target)
            self.assertEqual((answer.status, answer.body, answer.whole), (200, BLOB, True))
            self.assertEqual(answer["Cache-Status"], cache)
            self.assertEqual(answer["Content-Length"], str(len(BLOB)))
            self.assertEqual(answer["Content-Type"], "application/octet-stream")
            self.assertEqual(answer["Docker-Content-Digest"], DIGEST)
            self.assertEqual(answer["ETag"], f'"{DIGEST}"')
            self.assertEqual(answer["Accept-Ranges"], "bytes")
            self.assertTrue(self.stored(BLOB))
        self.assertAsked(f"GET {self.url}")

    def test_age(self) -> None:
        """Of what is stored, since its bytes came; what is on its way has none."""
        self.assertIsNone(self.get(OPEN, self.target)["Age"])
        (file,) = (self.root / "blobs" / "sha256").glob("*/*")
        # The time of the disk is that of the real clock.
        self.clock.advance(file.stat().st_mtime - self.now() + 1000)
        self.assertEqual(self.get(OPEN, self.target)["Age"], "1000")

    def test_first_byte(self) -> None:
        """What has come goes out at once, and the last byte only when all are right."""
        self.slow()
        client = self.ask("GET", OPEN, self.target)
        (response,) = self.upstream.responses
        self.assertEqual(client.answer().status, 0)
        response.send(BLOB[:10])
        self.assertEqual(client.answer().body, BLOB[:10])
        response.send(BLOB[10:-1])
        answer = client.answer()
        self.assertEqual((answer.body, answer.whole), (BLOB[:-1], False))
        response.send(BLOB[-1:])
        response.end()
        self.assertEqual(client.answer().body, BLOB)

    def test_follower(self) -> None:
        """A client that comes later gets what is there, then the rest; there is one transfer."""
        self.slow()
        leader = self.ask("GET", OPEN, self.target)
        (response,) = self.upstream.responses
        response.send(BLOB[:1000])
        follower = self.ask("GET", OPEN, self.target)
        self.assertEqual(follower.answer().body, BLOB[:1000])
        self.assertIn("collapsed", follower.answer()["Cache-Status"] or "")
        response.send(BLOB[1000:])
        response.end()
        for client in leader, follower:
            self.assertEqual(client.answer().body, BLOB)
        self.assertAsked(f"GET {self.url}")

    def test_followers_before_the_answer(self) -> None:
        """Nor are there two when upstream has not said anything yet."""
        pending: Deferred[Reply] = Deferred()
        self.upstream.on("GET", self.url, pending)
        clients = [self.ask("GET", OPEN, self.target) for _ in range(3)]
        pending.callback(Reply(200, {}, BLOB))
        for client in clients:
            self.assertEqual(client.answer().body, BLOB)
        questions = self.upstream.questions()
        self.assertEqual(questions.count(f"GET {self.url}"), 1)

    def test_leader_leaves(self) -> None:
        """The transfer belongs to nobody: it goes on for the others, and for the store."""
        self.slow()
        leader = self.ask("GET", OPEN, self.target)
        (response,) = self.upstream.responses
        response.send(BLOB[:1000])
        follower = self.ask("GET", OPEN, self.target)
        leader.answer()
        leader.leave()
        response.send(BLOB[1000:])
        response.end()
        self.assertEqual(follower.answer().body, BLOB)
        self.assertTrue(self.stored(BLOB))
        self.assertAsked(f"GET {self.url}")

    def test_all_leave(self) -> None:
        """Also when nobody waits for it any more, whenever they left."""
        self.slow()
        client = self.ask("GET", OPEN, self.target)
        client.leave()
        (response,) = self.upstream.responses
        response.send(BLOB)
        response.end()
        self.assertTrue(self.stored(BLOB))
        self.assertEqual(self.get(OPEN, self.target)["Cache-Status"], "regproxy; hit")
        self.assertAsked(f"GET {self.url}")

    def test_leaves_before_the_answer(self) -> None:
        pending: Deferred[Reply] = Deferred()
        self.upstream.on("GET", self.url, pending)
        self.ask("GET", OPEN, self.target).leave()
        pending.callback(Reply(200, {}, BLOB))
        self.assertTrue(self.stored(BLOB))

    def test_leaves_before_a_refusal(self) -> None:
        """An answer that nobody waits for any more, and that is not stored, is dropped."""
        pending: Deferred[Reply] = Deferred()
        self.upstream.on("GET", self.url, pending)
        self.ask("GET", OPEN, self.target).leave()
        pending.callback(Reply(404, {}, None))
        (response,) = self.upstream.responses
        self.assertTrue(response.aborted)

    def test_mismatch(self) -> None:
        """Wrong content: the connection is cut before the end, and nothing is kept."""
        wrong = BLOB[:-1] + b"!"
        self.slow()
        client = self.ask("GET", OPEN, self.target)
        (response,) = self.upstream.responses
        response.send(wrong[:1000])
        self.assertEqual(client.answer().body, wrong[:1000])
        response.send(wrong[1000:])
        response.end()
        answer = client.answer()
        self.assertEqual((answer.status, answer.whole), (200, False))
        self.assertTrue(client.cut)
        self.assertFalse(self.stored(BLOB) or self.stored(wrong))
        self.assertEqual(os.listdir(self.root / "fills"), [])

    def test_mismatch_of_unknown_length(self) -> None:
        """With chunks the last one is missing."""
        self.slow(length=-1)
        client = self.ask("GET", OPEN, self.target)
        (response,) = self.upstream.responses
        response.send(b"wrong")
        self.assertEqual(client.answer()["Transfer-Encoding"], "chunked")
        response.end()
        self.assertFalse(client.answer().whole)
        self.assertTrue(client.cut)
        self.assertFalse(self.stored(b"wrong"))

    def test_mismatch_of_one_byte(self) -> None:
        """Where not one byte has gone out yet the client gets an error it can read."""
        target = self.upstream.serve_blob(OPEN, "some/app", b"a")
        self.upstream.on("GET", OPEN + target, Reply(200, {}, b"b"))
        answer = self.get(OPEN, target)
        self.assertEqual(answer.status, 502)
        self.assertEqual(answer.error["code"], "UNAVAILABLE")
        self.assertIsNone(answer["ETag"])
        self.assertIsNone(answer["Docker-Content-Digest"])

    def test_too_long(self) -> None:
        """More bytes than announced are no content, whatever the rest is."""
        self.slow(length=10)
        client = self.ask("GET", OPEN, self.target)
        (response,) = self.upstream.responses
        response.send(BLOB[:5])
        self.assertEqual(client.answer().body, BLOB[:5])
        response.send(BLOB[5:])
        self.assertTrue(response.aborted)
        self.assertFalse(client.answer().whole)
        self.assertTrue(client.cut)

    def test_broken_off(self) -> None:
        """It goes on where it broke off, and the client sees nothing of that."""
        self.slow()
        client = self.ask("GET", OPEN, self.target)
        self.upstream.responses[0].send(BLOB[:1000])
        size = len(BLOB)
        rest = Reply(206, {"Content-Range": f"bytes 1000-{size - 1}/{size}"}, BLOB[1000:])
        self.upstream.on("GET", self.url, rest)
        self.upstream.responses[0].break_off()
        self.clock.advance(1)
        answer = client.answer()
        self.assertEqual((answer.body, answer.whole), (BLOB, True))
        self.assertEqual(self.upstream.asked[-1].headers.getRawHeaders(b"range"), [b"bytes=1000-"])

    def test_broken_off_for_good(self) -> None:
        """Nobody takes the part for the whole, and the next client goes on from it."""
        self.slow()
        client = self.ask("GET", OPEN, self.target)
        self.upstream.responses[0].send(BLOB[:1000])
        self.upstream.on("GET", self.url, UpstreamUnreachable("gone"))
        self.upstream.responses[0].break_off()
        self.clock.pump([10] * 10)
        self.assertFalse(client.answer().whole)
        self.assertTrue(client.cut)
        self.assertFalse(self.stored(BLOB))
        size = len(BLOB)
        rest = Reply(206, {"Content-Range": f"bytes 1000-{size - 1}/{size}"}, BLOB[1000:])
        self.upstream.on("GET", self.url, rest)
        answer = self.get(OPEN, self.target)
        self.assertEqual((answer.body, answer.whole), (BLOB, True))

    def test_not_quite_content(self) -> None:
        """What may look like content and was not checked is none."""
        headers = {"Content-Range": f"bytes 0-{len(BLOB) - 1}/{len(BLOB)}"}
        for code in 203, 204, 206:
            self.upstream.on("GET", self.url, Reply(code, headers, BLOB if code != 204 else b""))
            answer = self.get(OPEN, self.target)
            self.assertEqual((answer.status, answer.error["code"]), (502, "UNAVAILABLE"))

    def test_no_ranges(self) -> None:
        """A registry that refuses to go on is asked for everything."""
        self.slow()
        client = self.ask("GET", OPEN, self.target)
        self.upstream.responses[0].send(BLOB[:1000])
        self.upstream.on("GET", self.url, UpstreamUnreachable("gone"))
        self.upstream.responses[0].break_off()
        self.clock.pump([10] * 10)
        client.leave()
        for code in 400, 416, 501:
            self.upstream.on("GET", self.url, Reply(code), Reply(404))
            self.assertEqual(self.get(OPEN, self.target).status, 404)
        self.upstream.on("GET", self.url, Reply(416), Reply(200, {}, BLOB))
        answer = self.get(OPEN, self.target)
        self.assertEqual((answer.body, answer.whole), (BLOB, True))

    def test_unknown_length(self) -> None:
        """Content without a length is served in chunks."""
        self.upstream.on("GET", self.url, Reply(200, {}, BLOB, -1))
        answer = self.get(OPEN, self.target)
        self.assertEqual((answer.body, answer.whole), (BLOB, True))
        self.assertEqual(self.get(OPEN, self.target)["Content-Length"], str(len(BLOB)))

    def test_empty(self) -> None:
        """No bytes are content too."""
        target = self.upstream.serve_blob(OPEN, "some/app", b"")
        for _ in range(2):
            answer = self.get(OPEN, target)
            self.assertEqual((answer.status, answer["Content-Length"]), (200, "0"))
        self.assertAsked(f"GET {OPEN}{target}")

    def test_sha512(self) -> None:
        """The other algorithm of the specification."""
        digest = Digest.of(BLOB, "sha512")
        target = f"/v2/some/app/blobs/{digest}"
        self.upstream.on("GET", OPEN + target, Reply(200, {}, BLOB))
        for _ in range(2):
            self.assertEqual(self.get(OPEN, target).body, BLOB)
        self.assertAsked(f"GET {OPEN}{target}")

    def test_head_of_cold(self) -> None:
        """A HEAD is a HEAD upstream too, and tells the length."""
        answer = self.head(OPEN, self.target)
        self.assertEqual((answer.status, answer["Content-Length"]), (200, str(len(BLOB))))
        self.assertEqual(answer["Docker-Content-Digest"], DIGEST)
        self.assertEqual(answer["Cache-Status"], "regproxy; fwd=miss")
        self.assertAsked(f"HEAD {self.url}")
        self.assertFalse(self.stored(BLOB))

    def test_head_of_warm(self) -> None:
        self.get(OPEN, self.target)
        self.assertAsked(f"GET {self.url}")
        answer = self.head(OPEN, self.target)
        self.assertEqual((answer.status, answer["Content-Length"]), (200, str(len(BLOB))))
        self.assertAsked()

    def test_unreachable(self) -> None:
        """All who wait at that registry are told."""
        pending: Deferred[Reply] = Deferred()
        self.upstream.on("GET", self.url, pending)
        self.upstream.on("HEAD", self.url, UpstreamUnreachable("no route"))
        client = self.ask("GET", OPEN, self.target)
        pending.errback(Failure(UpstreamUnreachable("no route")))
        answer = client.answer()
        self.assertEqual(answer.status, 502)
        self.assertEqual(answer["Proxy-Status"], "regproxy; error=destination_unavailable")
        self.assertEqual(answer.error["message"], "no route")

    def test_another_registry_is_unreachable(self) -> None:
        """Who has followed a request to another registry goes and asks its own."""
        pending: Deferred[Reply] = Deferred()
        self.upstream.on("GET", self.url, pending)
        self.upstream.serve_blob(OTHER, "mine", BLOB)
        self.ask("GET", OPEN, self.target)
        follower = self.ask("GET", OTHER, f"/v2/mine/blobs/{DIGEST}")
        pending.errback(Failure(UpstreamUnreachable("no route")))
        self.assertEqual(follower.answer().body, BLOB)

    def test_asked_for_content_only(self) -> None:
        """Of a client's fields only those go up that may change the content."""
        self.get(OPEN, self.target, Accept="*/*", User_Agent="pull/1", Range="bytes=0-", X_Y="1")
        (asked,) = self.upstream.asked
        self.assertEqual(asked.headers.getRawHeaders("accept"), ["*/*"])
        self.assertEqual(asked.headers.getRawHeaders("user-agent"), ["pull/1"])
        self.assertFalse(asked.headers.hasHeader("range") or asked.headers.hasHeader("x-y"))

    def test_index_fails(self) -> None:
        """Content goes on when the index takes nothing: only shortcuts are lost."""
        with patch.object(self.index, "put_membership", lambda *_: fail(IndexFailed("full"))):
            self.assertEqual(self.get(OPEN, self.target).body, BLOB)
            self.assertEqual(self.get(OPEN, self.target).body, BLOB)
        self.assertAsked(f"GET {self.url}", f"HEAD {self.url}")

    def test_disk_fails(self) -> None:
        """When the store takes nothing the content passes uncached."""
        fills = self.root / "fills"
        fills.rmdir()
        answer = self.get(OPEN, self.target)
        self.assertEqual((answer.body, answer.whole), (BLOB, True))
        self.assertEqual(answer["Cache-Status"], "regproxy; fwd=miss; detail=disk-error")
        fills.mkdir()
        self.assertEqual(self.get(OPEN, self.target)["Cache-Status"], "regproxy; fwd=miss; stored")


class SlowDiskTests(FrontTestCase):
    """Content that is whole some time before it is durable."""

    def disk_workers(self) -> Workers:
        self.disk = Later()
        return self.disk

    def test_whole(self) -> None:
        """It is a hit as soon as somebody may have all of it: upstream has nothing to add."""
        target = self.upstream.serve_blob(OPEN, "some/app", BLOB)
        first = self.ask("GET", OPEN, target)
        while not first.answer().whole:
            self.assertTrue(self.disk.step())
        self.assertFalse(self.stored(BLOB))
        second = self.ask("GET", OPEN, target).answer()
        self.assertEqual((second.body, second.whole), (BLOB, True))
        self.assertEqual((second["Cache-Status"], second["Age"]), ("regproxy; hit", "0"))
        self.assertAsked(f"GET {OPEN}{target}")
        self.disk.all()
        self.assertTrue(self.stored(BLOB))


class ManifestTests(FrontTestCase):
    """Manifests by digest are content like every other, but for what they may be."""

    CONTENT = b'{"schemaVersion": 2}'

    def test_type(self) -> None:
        """The media type is upstream's, exactly, also from the store."""
        self.upstream.serve_manifest(OPEN, "app", "x", self.CONTENT, "application/x.y+json; a=b")
        target = f"/v2/app/manifests/{Digest.of(self.CONTENT)}"
        for _ in range(2):
            answer = self.get(OPEN, target)
            self.assertEqual(answer["Content-Type"], "application/x.y+json; a=b")
            self.assertEqual(answer.body, self.CONTENT)
        self.assertAsked(f"GET {OPEN}{target}")

    def test_too_large(self) -> None:
        """One that is larger than any manifest is passed on."""
        content = bytes(self.config.limits.manifest_size + 1)
        self.upstream.serve_manifest(OPEN, "app", "x", content)
        answer = self.get(OPEN, f"/v2/app/manifests/{Digest.of(content)}")
        self.assertEqual(answer.body, content)
        self.assertIn("manifest-too-large", answer["Cache-Status"] or "")
        self.assertFalse(self.stored(content))


class BroughtByTests(FrontTestCase):
    def test_address(self) -> None:
        """It is kept for whom content was first stored."""
        target = self.upstream.serve_blob(OPEN, "some/app", b"content")
        self.get(OPEN, target)
        found = ensureDeferred(self.index.catalog.blob(Digest.of(b"content")))
        record = self.successResultOf(found)
        assert record is not None
        self.assertEqual(record.brought_by, "192.0.2.1")
