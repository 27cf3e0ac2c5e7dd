"""What holds for every client that pulls by the mirror. Each client's class inherits it.

The clients know no proxy. They could reach the registries themselves, and do when the mirror
is gone: see ``tests.support.internet``, which tells where they went.
"""

from __future__ import annotations

from collections import Counter
from typing import ClassVar, Final

from tests.support.access_log import Traffic
from tests.support.clients import Client, Podman, Skopeo
from tests.support.images import Image
from tests.support.registry import ALICE, Login, Registry
from tests.support.stage import (
    HUB_HOST,
    INJECT_TOKEN_HOST,
    OPEN_HOST,
    TOKEN_HOST,
    EndToEndTestCase,
)

# How the registry of OPEN_HOST is written where a name must not have a colon.
OPEN_IN_PATHS: Final = OPEN_HOST.replace(":", "_")


class MirrorTestCase(EndToEndTestCase):
    """A mirror, and a client that pulls by it.

    Attributes:
        visited: where the client went without the mirror, the last time.
    """

    def setUp(self) -> None:
        super().setUp()
        self.mirror = self.stage.mirror
        self.visited: list[str] = []
        self.watch(self.mirror.process)

    def pull(
        self, client: Client, host: str, reference: str, login: Login | None = None
    ) -> tuple[str, Traffic]:
        """Pull *reference*, and forget it: its image ID, and what *host* was asked for."""
        recording = self.stage.upstreams[host].record()
        self.stage.internet.visited.clear()
        client.pull(reference, login).check()
        self.visited = sorted(set(self.stage.internet.visited))
        image_id = client.image_id(reference)
        client.clear()
        return image_id, recording.traffic()

    def check_mirrored(
        self,
        client: Client,
        host: str,
        reference: str,
        image: Image,
        login: Login | None = None,
        visited: tuple[str, ...] = (),
    ) -> None:
        """*image* comes by the mirror, cold and warm, and only *visited* is visited besides."""
        for expected in (Counter(blob.digest for blob in image.blobs), Counter[str]()):
            image_id, traffic = self.pull(client, host, reference, login)
            self.assertEqual(image_id, image.image_id)
            self.assertEqual(traffic.gets("blobs"), expected, f"in\n{traffic}")
            self.assertEqual(self.visited, list(visited))

    def check_falls_back(self, client: Client, host: str, reference: str, image: Image) -> None:
        """*image* comes without the mirror, straight from the registry."""
        self.mirror.process.stop()
        try:
            image_id, _ = self.pull(client, host, reference)
        finally:
            self.mirror.start()
        self.assertEqual(image_id, image.image_id)
        self.assertIn(host if ":" in host else f"{host}:443", self.visited)


class MirrorTests(MirrorTestCase):
    """What holds for every client."""

    kind: ClassVar[type[Client]]
    #: How the client writes the registry of HUB_HOST.
    hub = "docker.io"

    def setUp(self) -> None:
        super().setUp()
        self.client = self.make_client()
        for process in self.client.processes:
            self.watch(process)
        self.addCleanup(self.client.clear)

    def make_client(self) -> Client:
        """A client that has the mirror for all registries that it may have it for."""
        return self.stage.straight_client(self.kind)

    def test_docker_hub(self) -> None:
        """Public images, without a login and without another way out."""
        repository = self.repository()
        image = self.publish(HUB_HOST, repository)
        self.check_mirrored(self.client, HUB_HOST, f"{self.hub}/{repository}:latest", image)

    def test_falls_back(self) -> None:
        """The registry itself is asked while the mirror is gone."""
        repository = self.repository()
        image = self.publish(HUB_HOST, repository)
        self.check_falls_back(self.client, HUB_HOST, f"{self.hub}/{repository}:latest", image)

    def test_missing(self) -> None:
        """What neither has is missing."""
        result = self.client.pull(f"{self.hub}/{self.repository()}:absent")
        self.assertNotEqual(result.code, 0, str(result))
        self.assertRegex(result.output.lower(), self.client.not_found + "|access denied|denied")


class PrefixTests(MirrorTests):
    """Clients that have a mirror for every registry."""

    def test_other_registries(self) -> None:
        """By one mirror, each with its own tag: one with tokens, one with a port, and one
        whose private images the proxy has a login for."""
        name = self.repository().partition("/")[2]
        for host, kind in (
            (TOKEN_HOST, "public"),
            (OPEN_HOST, "public"),
            (INJECT_TOKEN_HOST, "private"),
        ):
            image = self.publish(host, f"{kind}/{name}")
            self.check_mirrored(self.client, host, f"{host}/{kind}/{name}:latest", image)


def digest_at(registry: Registry, repository: str) -> str | None:
    """What *registry* itself says that the tag ``latest`` points to."""
    connection = registry.connect()
    media_type = "application/vnd.docker.distribution.manifest.v2+json"
    connection.request("HEAD", f"/v2/{repository}/manifests/latest", headers={"Accept": media_type})
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.getheader("Docker-Content-Digest")


def registries_conf(mirror: str, *hosts: str) -> str:
    """What podman and skopeo are told (containers-registries.conf(5))."""
    return "unqualified-search-registries = []\n" + "".join(
        f'[[registry]]\nlocation = "{host}"\n'
        f'[[registry.mirror]]\nlocation = "{mirror}/{host.replace(":", "_")}"\ninsecure = true\n'
        for host in hosts
    )


class ContainersTests(PrefixTests):
    """Clients of registries.conf, which put the registry into the path."""

    kind: ClassVar[type[Podman | Skopeo]]

    def make_client(self) -> Client:
        client = self.stage.straight_client(self.kind)
        hosts = "docker.io", TOKEN_HOST, OPEN_HOST, INJECT_TOKEN_HOST
        client.registries_conf.write_text(registries_conf(self.mirror.authority, *hosts))
        return client

    def test_own_login(self) -> None:
        """A private image comes from the registry itself: only there the login is sent."""
        repository = self.repository("private")
        image = self.publish(TOKEN_HOST, repository)
        reference = f"{TOKEN_HOST}/{repository}:latest"
        image_id, _ = self.pull(self.client, TOKEN_HOST, reference, ALICE)
        self.assertEqual(image_id, image.image_id)
        self.assertIn(f"{TOKEN_HOST}:443", self.visited)
