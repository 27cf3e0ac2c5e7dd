"""What holds for every client that pulls through the proxy. Each client's module inherits it."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

from tests.support import images
from tests.support.access_log import Traffic
from tests.support.clients import Client, Skopeo
from tests.support.images import Image
from tests.support.process import Result
from tests.support.registry import ALICE, WRONG, Login
from tests.support.stage import (
    INJECT_PASSWORD_HOST,
    INJECT_TOKEN_HOST,
    OPEN_HOST,
    PASSWORD_HOST,
    TOKEN_HOST,
    EndToEndTestCase,
)


class PullTests(EndToEndTestCase):
    """Pulls by the client of class ``kind``."""

    kind: ClassVar[type[Client]]

    def setUp(self) -> None:
        super().setUp()
        self.client = self.stage.client(self.kind)
        for process in (self.stage.proxy.process, *self.client.processes):
            self.watch(process)
        self.addCleanup(self.client.clear)

    def pull(self, host: str, name: str, login: Login | None = None) -> tuple[str, Traffic]:
        """Pull *name* and forget it: its image ID, and what the upstream was asked for."""
        reference = f"{host}/{name}"
        recording = self.stage.upstreams[host].record()
        self.client.pull(reference, login).check()
        image_id = self.client.image_id(reference)
        self.client.clear()
        return image_id, recording.traffic()

    def assert_cold(self, image: Image, traffic: Traffic) -> None:
        """Each blob and the manifest came from upstream, once."""
        blobs = Counter(blob.digest for blob in image.blobs)
        self.assertEqual(traffic.gets("blobs"), blobs, f"blobs in\n{traffic}")
        self.assertEqual(traffic.gets("manifests").total(), 1, f"manifests in\n{traffic}")

    def assert_warm(self, traffic: Traffic) -> None:
        """Nothing was fetched from upstream; questions with HEAD are free."""
        self.assertEqual(traffic.gets("blobs"), Counter(), f"blobs in\n{traffic}")
        self.assertEqual(traffic.gets("manifests"), Counter(), f"manifests in\n{traffic}")

    def assert_refused(self, result: Result, pattern: str) -> None:
        """The client failed and said something like *pattern*."""
        self.assertNotEqual(result.code, 0, str(result))
        self.assertRegex(result.output.lower(), pattern)

    def check_pulled_twice(
        self, host: str, name: str, image: Image, login: Login | None = None
    ) -> None:
        """Cold, then warm: the same image."""
        image_id, cold = self.pull(host, name, login)
        self.assertEqual(image_id, image.image_id)
        self.assert_cold(image, cold)
        image_id, warm = self.pull(host, name, login)
        self.assertEqual(image_id, image.image_id)
        self.assert_warm(warm)

    def test_by_tag(self) -> None:
        """The second pull of a tag costs the upstream nothing."""
        repository = self.repository()
        image = self.publish(TOKEN_HOST, repository, images.image(layers=5))
        self.check_pulled_twice(TOKEN_HOST, f"{repository}:latest", image)

    def test_by_digest(self) -> None:
        """So does the second pull by digest."""
        repository = self.repository()
        image = self.publish(TOKEN_HOST, repository)
        self.check_pulled_twice(TOKEN_HOST, f"{repository}@{image.digest}", image)

    def test_digest_of_a_pulled_tag(self) -> None:
        """What was pulled by tag is there by digest."""
        repository = self.repository()
        image = self.publish(TOKEN_HOST, repository)
        self.pull(TOKEN_HOST, f"{repository}:latest")
        image_id, traffic = self.pull(TOKEN_HOST, f"{repository}@{image.digest}")
        self.assertEqual(image_id, image.image_id)
        self.assert_warm(traffic)

    def test_oci_image(self) -> None:
        """An image with the OCI's media types, from a registry on another port."""
        repository = self.repository()
        image = self.publish(OPEN_HOST, repository, images.image(oci=True))
        self.check_pulled_twice(OPEN_HOST, f"{repository}:latest", image)

    def test_platform_of_an_index(self) -> None:
        """Of an index the client gets its own platform, and only that is fetched."""
        repository = self.repository()
        mine, other = images.image(), images.image(platform=("linux", "arm64"))
        self.stage.token_registry.push(repository, "latest", images.index(mine, other, oci=False))
        image_id, cold = self.pull(TOKEN_HOST, f"{repository}:latest")
        self.assertEqual(image_id, mine.image_id)
        self.assertEqual(cold.gets("blobs"), Counter(blob.digest for blob in mine.blobs))
        image_id, warm = self.pull(TOKEN_HOST, f"{repository}:latest")
        self.assertEqual(image_id, mine.image_id)
        self.assert_warm(warm)

    def test_tag_that_moved(self) -> None:
        """A tag is asked for each time: a push is seen by the next pull."""
        repository = self.repository()
        self.publish(TOKEN_HOST, repository)
        self.pull(TOKEN_HOST, f"{repository}:latest")
        new = self.publish(TOKEN_HOST, repository)
        image_id, traffic = self.pull(TOKEN_HOST, f"{repository}:latest")
        self.assertEqual(image_id, new.image_id)
        self.assert_cold(new, traffic)

    def test_same_name_at_two_registries(self) -> None:
        """Each registry gives its own image, cold and warm."""
        repository = self.repository()
        hosts = TOKEN_HOST, OPEN_HOST
        expected = {host: self.publish(host, repository).image_id for host in hosts}
        for _ in ("cold", "warm"):
            pulled = {host: self.pull(host, f"{repository}:latest")[0] for host in hosts}
            self.assertEqual(pulled, expected)

    def test_pulled_by_another_client(self) -> None:
        """Clients of different kinds share one store."""
        repository = self.repository()
        image = self.publish(TOKEN_HOST, repository)
        reference = f"{TOKEN_HOST}/{repository}:latest"
        self.stage.client(Skopeo).pull(reference).check()
        image_id, traffic = self.pull(TOKEN_HOST, f"{repository}:latest")
        self.assertEqual(image_id, image.image_id)
        self.assertEqual(traffic.gets("blobs"), Counter(), f"blobs in\n{traffic}")

    def test_layers_of_another_repository(self) -> None:
        """What a layer came in for does not matter: it is not fetched again."""
        image = images.image()
        for expected in ("cold", "warm"):
            repository = self.repository()
            self.publish(TOKEN_HOST, repository, image)
            _, traffic = self.pull(TOKEN_HOST, f"{repository}:latest")
            self.assertEqual(bool(traffic.gets("blobs")), expected == "cold", f"in\n{traffic}")

    def test_missing_tag(self) -> None:
        """The registry's own error reaches the user."""
        repository = self.repository()
        self.publish(TOKEN_HOST, repository)
        result = self.client.pull(f"{TOKEN_HOST}/{repository}:absent")
        self.assert_refused(result, self.client.not_found)

    def test_private_with_password(self) -> None:
        """Private content is for those whom the registry lets in (Basic)."""
        self.check_private(PASSWORD_HOST)

    def test_private_with_token(self) -> None:
        """Private content is for those whom the registry lets in (Bearer)."""
        self.check_private(TOKEN_HOST)

    def check_private(self, host: str) -> None:
        """Wrong and right passwords and none, in the orders in which one could spoil another."""
        repository = self.repository("private")
        image = self.publish(host, repository)
        name = f"{repository}:latest"
        reference = f"{host}/{name}"
        self.assert_refused(self.client.pull(reference, WRONG), self.client.unauthorized)
        self.check_pulled_twice(host, name, image, ALICE)
        self.assert_refused(self.client.pull(reference), self.client.unauthorized)
        self.assert_refused(self.client.pull(reference, WRONG), self.client.unauthorized)
        by_digest = f"{host}/{repository}@{image.digest}"
        self.assert_refused(self.client.pull(by_digest), self.client.unauthorized)
        image_id, traffic = self.pull(host, name, ALICE)
        self.assertEqual(image_id, image.image_id)
        self.assert_warm(traffic)

    def test_injected_password(self) -> None:
        """Where the proxy logs in, an anonymous client pulls private content (Basic)."""
        repository = self.repository("private")
        image = self.publish(INJECT_PASSWORD_HOST, repository)
        self.check_pulled_twice(INJECT_PASSWORD_HOST, f"{repository}:latest", image)

    def test_injected_token(self) -> None:
        """Where the proxy logs in, an anonymous client pulls private content (Bearer)."""
        repository = self.repository("private")
        image = self.publish(INJECT_TOKEN_HOST, repository)
        self.check_pulled_twice(INJECT_TOKEN_HOST, f"{repository}:latest", image)
