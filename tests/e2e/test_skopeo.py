"""Pulls, copies and pushes by skopeo."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from tests.e2e import pulls
from tests.support import images
from tests.support.clients import Skopeo
from tests.support.images import Content
from tests.support.process import Result
from tests.support.programs import needs
from tests.support.registry import ALICE
from tests.support.stage import OPEN_HOST, PASSWORD_HOST, TOKEN_HOST

_CLIENTS = 6


@needs("docker-registry", "htpasswd", *Skopeo.programs)
class SkopeoTests(pulls.PullTests):
    """skopeo copying to directories."""

    kind = Skopeo

    def setUp(self) -> None:
        super().setUp()
        self.skopeo = self.stage.client(Skopeo)

    def assert_copied(self, reference: str, *contents: Content) -> None:
        """The copy of *reference* has the *contents*, byte for byte."""
        found = {
            images.digest(file.read_bytes()) for file in self.skopeo.copied(reference).iterdir()
        }
        self.assertLessEqual({content.digest for content in contents}, found)

    def test_all_platforms(self) -> None:
        """An index is copied whole, with its images."""
        repository = self.repository()
        two = [images.image(oci=True, platform=("linux", name)) for name in ("amd64", "arm64")]
        index = images.index(*two)
        self.stage.token_registry.push(repository, "latest", index)
        reference = f"{TOKEN_HOST}/{repository}:latest"
        blobs = [blob for image in two for blob in image.blobs]
        for round_name in ("cold", "warm"):
            recording = self.stage.token_registry.record()
            self.skopeo.pull(reference, None, "--all").check()
            self.assert_copied(reference, index.manifest, *(each.manifest for each in two), *blobs)
            self.skopeo.clear()
            traffic = recording.traffic()
            if round_name == "cold":
                expected = Counter(blob.digest for blob in blobs)
                self.assertEqual(traffic.gets("blobs"), expected, f"in\n{traffic}")
            else:
                self.assert_warm(traffic)

    def test_helm_chart(self) -> None:
        """An artifact that is no image keeps its media types, cold and warm."""
        repository = self.repository()
        chart = self.publish(TOKEN_HOST, repository, images.helm_chart(), tag="0.1.0")
        reference = f"{TOKEN_HOST}/{repository}:0.1.0"
        for _ in ("cold", "warm"):
            self.skopeo.pull(reference).check()
            self.assert_copied(reference, chart.manifest, *chart.blobs)
            self.skopeo.clear()
            inspected = self.skopeo.skopeo("inspect", "--raw", f"docker://{reference}").check()
            self.assertEqual(json.loads(inspected)["config"]["mediaType"], images.HELM_CONFIG)
            self.assertEqual(json.loads(inspected)["layers"][0]["mediaType"], images.HELM_CHART)

    def test_many_at_once(self) -> None:
        """However many clients pull a new image, each blob is fetched once."""
        repository = self.repository()
        image = self.publish(TOKEN_HOST, repository, images.image(layers=4, size=4 << 20))
        reference = f"docker://{TOKEN_HOST}/{repository}:latest"
        recording = self.stage.token_registry.record()

        def copy(number: int) -> Result:
            target = f"dir:{self.skopeo.copied(f'{number}')}"
            return self.skopeo.skopeo("copy", "--src-no-creds", reference, target)

        with ThreadPoolExecutor(_CLIENTS) as pool:
            for result in pool.map(copy, range(_CLIENTS)):
                result.check()
        for number in range(_CLIENTS):
            self.assert_copied(f"{number}", image.manifest, *image.blobs)
        traffic = recording.traffic()
        expected = Counter(blob.digest for blob in image.blobs)
        self.assertEqual(traffic.gets("blobs"), expected, f"in\n{traffic}")

    def test_push(self) -> None:
        """A push goes through to the registry, and can be pulled at once."""
        self.check_push(OPEN_HOST)

    def test_push_with_password(self) -> None:
        """So does one that logs in."""
        self.check_push(PASSWORD_HOST)

    def check_push(self, host: str) -> None:
        """Copy an image under a tag that was pulled, and so is stored, with another content."""
        login = ALICE if host == PASSWORD_HOST else None
        source, target = self.repository(), self.repository()
        image = self.publish(OPEN_HOST, source)
        self.publish(host, target)
        self.pull(host, f"{target}:latest", login)
        self.skopeo.pull(f"{OPEN_HOST}/{source}:latest").check()
        self.skopeo.push(f"{OPEN_HOST}/{source}:latest", f"{host}/{target}:latest", login).check()
        self.skopeo.clear()
        image_id, _ = self.pull(host, f"{target}:latest", login)
        self.assertEqual(image_id, image.image_id)

    def test_list_tags(self) -> None:
        """Lists are passed through, and are never old."""
        repository = self.repository()
        name = f"docker://{TOKEN_HOST}/{repository}"
        expected = set()
        for tag in ("first", "second"):
            self.publish(TOKEN_HOST, repository, tag=tag)
            expected.add(tag)
            listed = json.loads(self.skopeo.skopeo("list-tags", "--no-creds", name).check())
            self.assertEqual(set(listed["Tags"]), expected)
