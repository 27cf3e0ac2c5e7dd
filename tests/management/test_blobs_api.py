"""Tests for :mod:`regproxy.management.blobs_api`."""

from __future__ import annotations

import errno

from regproxy.oci.names import Digest
from regproxy.store.errors import FillFailed
from regproxy.store.fill import Fill
from tests.support.api import ApiCase
from tests.support.sites import responses

CONTENT = bytes(range(256)) * 100


class BlobsApiTests(ApiCase):
    def test_list_and_one(self) -> None:
        digests = sorted(str(self.put(b"%d" % number)) for number in range(3))
        first = self.ask("GET", "/blobs?limit=2").json
        self.assertEqual([each["digest"] for each in first["items"]], digests[:2])
        (last,) = self.ask("GET", f"/blobs?cursor={first['next']}").json["items"]
        self.assertEqual(self.ask("GET", f"/blobs/{digests[2]}").json, last)
        self.assertEqual(last["verified_at"], "1970-01-01T00:16:40Z")

    def test_unknown(self) -> None:
        path = f"/blobs/{Digest.of(b'absent')}"
        for method, target in ("GET", path), ("GET", f"{path}/content"), ("DELETE", path):
            answer = self.ask(method, target)
            self.assertEqual(answer.status, 404)
            self.assertIn("is not stored here", answer.json["detail"])
        self.assertEqual(self.ask("GET", "/blobs/sha256:ab").status, 400)

    def test_content(self) -> None:
        """As bytes, for a program to keep and not for a browser to show."""
        digest = self.put(CONTENT)
        answer = self.ask("GET", f"/blobs/{digest}/content")
        self.assertEqual((answer.status, answer.body), (200, CONTENT))
        self.assertEqual(answer.headers["content-type"], "application/octet-stream")
        self.assertEqual(
            answer.headers["content-disposition"], f'attachment; filename="{digest.hex}"'
        )
        answer = self.ask("HEAD", f"/blobs/{digest}/content")
        self.assertEqual((answer.status, answer.body), (200, b""))
        self.assertEqual(answer.headers["content-length"], str(len(CONTENT)))

    def test_damaged_content(self) -> None:
        """It is cut off, so that nobody takes it for whole."""
        digest = self.put(CONTENT)
        self.directory.path(digest).write_bytes(bytes(len(CONTENT)))
        stream = self.send("GET", f"/blobs/{digest}/content")
        head, _, body = stream.take().partition(b"\r\n\r\n")
        self.assertIn(b"200", head)
        self.assertLess(len(body), len(CONTENT))
        self.assertTrue(stream.aborted)

    def test_upload(self) -> None:
        digest = Digest.of(CONTENT)
        answer = self.ask("PUT", f"/blobs/{digest}", body=CONTENT)
        self.assertEqual((answer.status, answer.body), (204, b""))
        self.assertEqual(self.files(), {digest})
        # Once more, which costs nothing.
        answer = self.ask("PUT", f"/blobs/{digest}", body=CONTENT)
        self.assertEqual(answer.status, 204)

    def test_upload_of_nothing(self) -> None:
        self.assertEqual(self.ask("PUT", f"/blobs/{Digest.of(b'')}").status, 204)
        self.assertEqual(self.files(), {Digest.of(b"")})

    def test_upload_does_not_go_on(self) -> None:
        """Who reads the content meanwhile is told why it does not come."""
        digest = Digest.of(CONTENT)
        stream = self.send("PUT", f"/blobs/{digest}", {"Content-Length": str(len(CONTENT))})
        fill = self.store.filling(digest)
        assert fill is not None
        ended = fill.when_ended()
        self.clock.advance(self.house.limits.stall)
        (answer,) = responses(stream.take())
        told = self.failureResultOf(ended, FillFailed)
        self.assertEqual(str(told.value), "the request's body did not come in time")
        self.assertEqual(answer.status, 408)

    def test_upload_of_something_else(self) -> None:
        answer = self.ask("PUT", f"/blobs/{Digest.of(CONTENT)}", body=CONTENT + b"x")
        self.assertEqual(answer.status, 422)
        self.assertIn("was asked for", answer.json["detail"])
        self.assertEqual(self.files(), set())

    def test_wrong_media_type(self) -> None:
        fields = {"Content-Type": "application/json"}
        answer = self.ask("PUT", f"/blobs/{Digest.of(CONTENT)}", fields, CONTENT)
        self.assertEqual(answer.status, 415)

    def test_client_leaves(self) -> None:
        """What has come by then is kept nowhere."""
        fields = {"Content-Length": str(len(CONTENT))}
        stream = self.send("PUT", f"/blobs/{Digest.of(CONTENT)}", fields, CONTENT[:100])
        self.assertIsNot(self.store.filling(Digest.of(CONTENT)), None)
        stream.finish()
        self.assertIs(self.store.filling(Digest.of(CONTENT)), None)
        self.assertEqual(list(self.directory.fills.iterdir()), [])

    def test_no_room(self) -> None:
        async def full(*_: object) -> Fill:
            raise OSError(errno.ENOSPC, "no space left on device")

        self.patch(self.store, "begin", full)
        answer = self.ask("PUT", f"/blobs/{Digest.of(CONTENT)}", body=CONTENT)
        self.assertEqual(answer.status, 507)

    def test_remove(self) -> None:
        digest = self.put(CONTENT)
        self.pin(digest)
        self.assertEqual(self.ask("DELETE", f"/blobs/{digest}").status, 409)
        other = self.put(b"other")
        self.assertEqual(self.ask("DELETE", f"/blobs/{other}").status, 204)
        self.assertEqual(self.files(), {digest})
