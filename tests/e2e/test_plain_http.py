"""A registry without TLS, through the proxy that HTTP_PROXY names."""

from __future__ import annotations

from collections import Counter
from typing import Final

from tests.support import images
from tests.support.clients import Client, Containerd, Skopeo
from tests.support.process import Result
from tests.support.programs import needs, needs_root
from tests.support.proxy import Proxy, Value
from tests.support.registry import PlainRegistry
from tests.support.stage import EndToEndTestCase

HOST: Final = "plain.example.test:5000"


class PlainHTTPTests(EndToEndTestCase):
    """Clients that know no other proxy, and cannot resolve the name themselves."""

    def setUp(self) -> None:
        super().setUp()
        self.registry = PlainRegistry(self.new_directory(), self.stage.keys)
        self.addCleanup(self.registry.process.stop)
        section: dict[str, Value] = {
            "upstream": [self.registry.url],
            "plain_http": True,
            "relay_private": True,
        }
        self.proxy = Proxy(self.new_directory(), {f'registries."{HOST}"': section})
        self.addCleanup(self.proxy.process.stop)
        for process in self.registry.process, self.proxy.process:
            self.watch(process)

    def make(self, kind: type[Client]) -> Client:
        client = kind(self.new_directory(), self.proxy.url, self.proxy.ca_file)
        self.addCleanup(client.close)
        client.env["HTTP_PROXY"] = client.env.pop("HTTPS_PROXY")
        return client

    def check(self, client: Client, repository: str, image: images.Image, result: Result) -> None:
        """What was pulled is the image, and it came by requests in absolute form."""
        result.check()
        log = self.proxy.process.read_log()
        self.assertIn('"way": "proxy"', log)
        self.assertNotIn('"way": "connect"', log)
        self.assertEqual(client.image_id(f"{HOST}/{repository}:latest"), image.image_id)
        client.clear()

    @needs("docker-registry", *Skopeo.programs)
    def test_skopeo(self) -> None:
        """A pull, one from the cache, and a push."""
        client = self.make(Skopeo)
        assert isinstance(client, Skopeo)
        repository = self.repository()
        image = images.image()
        self.registry.push(repository, "latest", image)
        reference = f"{HOST}/{repository}:latest"
        for expected in (Counter(blob.digest for blob in image.blobs), Counter[str]()):
            recording = self.registry.record()
            result = client.pull(reference, None, "--src-tls-verify=false")
            self.check(client, repository, image, result)
            self.assertEqual(recording.traffic().gets("blobs"), expected)
        copied = f"docker://{HOST}/{self.repository()}:latest"
        source = f"docker://{reference}"
        insecure = "--src-tls-verify=false", "--dest-tls-verify=false"
        client.skopeo("copy", *insecure, source, copied).check()
        digest = client.skopeo("inspect", "--tls-verify=false", "--format={{.Digest}}", copied)
        self.assertEqual(digest.check().strip(), image.digest)

    @needs_root
    @needs("docker-registry", *Containerd.programs)
    def test_containerd(self) -> None:
        client = self.make(Containerd)
        assert isinstance(client, Containerd)
        repository = self.repository()
        image = images.image()
        self.registry.push(repository, "latest", image)
        reference = f"{HOST}/{repository}:latest"
        result = client.ctr("images", "pull", "--plain-http", reference)
        self.check(client, repository, image, result)

    def test_others(self) -> None:
        """Nothing else is relayed."""
        refused = b"GET http://example.org/ HTTP/1.1\r\nHost: example.org\r\n\r\n"
        answer = self.proxy.exchange(refused)
        assert answer is not None
        self.assertEqual(answer.status, 403)
