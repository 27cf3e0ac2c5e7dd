"""Tests for :mod:`regproxy.management.images_api`."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from regproxy.oci.names import Digest, Tag
from tests.support import images as make
from tests.support.api import NEIGHBOUR, ApiCase
from tests.support.stored_images import APP, HOST, ImageCase

LATEST = f"{HOST}/{APP}:latest"


class ImagesApiCase(ApiCase, ImageCase):
    def get(self, path: str, **query: object) -> Any:
        answer = self.ask("GET", self.path(path, query))
        self.assertEqual(answer.status, 200, answer.body)
        return answer.json

    def path(self, path: str, query: dict[str, object]) -> str:
        given = {key: value for key, value in query.items() if value is not None}
        return f"{path}?{urlencode(given)}" if given else path

    def refused(self, method: str, path: str, body: object = None, **query: object) -> str:
        """Status and text of an error."""
        target = self.path(path, query)
        answer = self.ask(method, target)
        if body is not None:
            answer = self.ask_json(method, target, body)
        self.assertEqual(answer.headers["content-type"], "application/problem+json")
        return f"{answer.status} {answer.json['detail']}"


class ListTests(ImagesApiCase):
    def test_ten_thousand_images(self) -> None:
        """They come in parts, and each of them once."""
        expected = self.pretend(10_000)
        found: list[str] = []
        cursor = None
        parts = 0
        while True:
            part = self.get("/images", sort="reference", limit=1000, cursor=cursor)
            found += [each["reference"] for each in part["items"]]
            cursor = part["next"]
            parts += 1
            if cursor is None:
                break
        self.assertEqual((parts, found), (10, expected))
        self.assertEqual(len(self.get("/images")["items"]), 100)

    def test_ten_thousand_images_by_size_and_use(self) -> None:
        expected = self.pretend(10_000)
        for sort in "bytes", "last_used":
            first = self.get("/images", sort=sort, limit=3)
            self.assertEqual([each["bytes"] for each in first["items"]], [9999, 9998, 9997])
            second = self.get("/images", sort=sort, limit=2, cursor=first["next"])
            self.assertEqual([each["bytes"] for each in second["items"]], [9996, 9995])
        (one,) = self.get("/images", q="1.01234")["items"]
        self.assertEqual(one["reference"], expected[34 * 100 + 12])
        part = self.get("/images", registry=str(HOST), repository="team-07/app", limit=1000)
        self.assertEqual((len(part["items"]), part["next"]), (100, None))
        self.assertEqual(len(self.get("/repositories", limit=1000)["items"]), 100)
        tags = self.get("/tags", repository=f"{HOST}/team-07/app")["items"]
        self.assertEqual([each["tag"] for each in tags][:2], ["1.00007", "1.00107"])

    def test_unknown_parameters(self) -> None:
        self.assertIn("400", self.refused("GET", "/images", sort="colour"))
        self.assertIn("400", self.refused("GET", "/images", limit=1001))
        self.assertIn("400", self.refused("GET", "/images", cursor="x"))
        self.assertIn("400", self.refused("GET", "/tags"))
        self.assertIn("422 invalid host", self.refused("GET", "/images", registry="a b"))


class OneTests(ImagesApiCase):
    def test_tree(self) -> None:
        image = make.image(1, 10)
        self.pull(make.index(image))
        tree = self.get("/image", reference=LATEST)
        self.assertEqual(tree["image"]["reference"], LATEST)
        (child,) = tree["manifest"]["children"]
        self.assertEqual((child["digest"], child["platform"]), (image.digest, "linux/amd64"))
        self.assertEqual(child["layers"][0]["digest"], image.blobs[1].digest)

    def test_unknown(self) -> None:
        text = f"404 there is no image {LATEST} here"
        for method, path in (
            ("GET", "/image"),
            ("DELETE", "/image"),
            ("PUT", "/image/pin"),
            ("DELETE", "/image/pin"),
        ):
            self.assertEqual(self.refused(method, path, reference=LATEST), text)
            self.assertIn("422 invalid image 'A'", self.refused(method, path, reference="A"))
        self.assertEqual(self.refused("POST", "/purge", {"images": [LATEST]}), text)

    def test_purge(self) -> None:
        self.pull(make.image(1, 10))
        answer = self.ask("DELETE", self.path("/image", {"reference": LATEST}))
        self.assertEqual((answer.status, answer.json["blobs"]), (200, 3))
        self.assertEqual(self.files(), set())

    def test_pin(self) -> None:
        self.pull(make.image(1, 10))
        for method, pinned in (("PUT", True), ("DELETE", False)):
            answer = self.ask(method, self.path("/image/pin", {"reference": LATEST}))
            self.assertEqual((answer.status, answer.body), (204, b""))
            self.assertIs(self.get("/image", reference=LATEST)["image"]["pinned"], pinned)

    def test_adopt(self) -> None:
        image = make.image(1, 10)
        for content in (image.manifest, *image.blobs):
            self.put(content.content)
        name = "ghcr.io/o/app:1.0"
        body = {"digest": image.digest, "media_type": image.manifest.media_type}
        answer = self.ask_json("POST", self.path("/image", {"reference": name}), body)
        self.assertEqual((answer.status, answer.json["reference"]), (200, name))
        self.assertEqual(self.get("/image", reference=name)["image"], answer.json)
        body["media_type"] = "text/html"
        self.assertIn(
            "409 sha256:", self.refused("POST", "/image", body, reference="ghcr.io/o/app:1.1")
        )
        body["digest"] = "sha256:ab"
        self.assertIn("400", self.refused("POST", "/image", body, reference=name))


class ManyTests(ImagesApiCase):
    def test_purge(self) -> None:
        for tag in "1", "2", "3":
            self.pull(make.image(1, 10), tag)
        self.successResultOf(self.curation.pin(HOST, APP, Tag("2"), True))
        self.time += 100.0
        answer = self.ask_json("POST", "/purge", {"unused_for": 100, "registry": str(HOST)})
        self.assertEqual(answer.json["images"], 0)
        answer = self.ask_json("POST", "/purge", {"unused_for": 99, "registry": str(HOST)})
        self.assertEqual((answer.status, answer.json["images"]), (200, 2))
        (left,) = self.get("/images")["items"]
        self.assertEqual(left["tag"], "2")

    def test_purge_of_everything(self) -> None:
        """That is not asked for by saying nothing."""
        self.pull(make.image(1, 10))
        self.assertIn("422 say which", self.refused("POST", "/purge", {}))
        self.assertIn("400", self.refused("POST", "/purge", {"images": []}))
        self.assertEqual(len(self.files()), 3)

    def test_warm(self) -> None:
        body = {"images": ["debian:12"], "platforms": ["linux/arm64"]}
        answer = self.ask_json("POST", "/warm", body)
        self.assertEqual((answer.status, answer.json["state"]), (202, "running"))
        job = self.get(f"/jobs/{answer.json['id']}")
        self.assertEqual([each["reference"] for each in job["images"]], ["debian:12"])
        answer = self.ask("DELETE", f"/jobs/{job['id']}")
        self.assertEqual(answer.json["images"][0]["state"], "cancelled")

    def test_refused(self) -> None:
        for body, text in (
            ({"images": ["A"]}, "422 invalid image 'A'"),
            ({"images": ["a"], "platforms": ["linux"]}, "422 invalid platform 'linux'"),
            ({"images": []}, "400"),
            ({"image": ["a"]}, "400"),
        ):
            self.assertIn(text, self.refused("POST", "/warm", body))

    def test_changes(self) -> None:
        """Who may only look changes nothing."""
        image = make.image(1, 10)
        self.pull(image)
        target = self.path("/image", {"reference": LATEST})
        for method, path in (
            ("DELETE", target),
            ("PUT", target.replace("image", "image/pin", 1)),
            ("DELETE", f"/blobs/{image.digest}"),
            ("GET", f"/blobs/{image.digest}/content"),
            ("PUT", f"/blobs/{Digest.of(b'x')}"),
            ("POST", "/warm"),
            ("POST", "/purge"),
            ("POST", target),
        ):
            answer = self.ask(method, path, client=NEIGHBOUR)
            self.assertEqual(answer.status, 403, (method, path))
        self.assertEqual(len(self.files()), 3)
        self.assertEqual(self.ask("GET", target, client=NEIGHBOUR).status, 200)
