"""A proxy that its clients reach by TLS: HTTPS_PROXY=https://..."""

from __future__ import annotations

import hashlib
import socket
import ssl
from collections import Counter
from pathlib import Path

from tests.support import images
from tests.support.clients import Skopeo
from tests.support.process import Result, environment, free_port, run
from tests.support.programs import needs, program
from tests.support.proxy import Proxy
from tests.support.registry import ADDRESS
from tests.support.stage import OPEN_HOST, TOKEN_HOST, EndToEndTestCase

NAME = "proxy.example.test"


@needs("docker-registry", "htpasswd", "curl", "skopeo")
class SecureProxyTests(EndToEndTestCase):
    """With a certificate of its own CA, and with one that it was given."""

    def setUp(self) -> None:
        super().setUp()
        self.directory = self.new_directory()
        keys = self.stage.keys
        self.given_port = free_port()
        given = f"ssl:{self.given_port}:interface={ADDRESS}"
        given += f":privateKey={keys.key}:certKey={keys.certificate}"
        tables = self.stage.registries() | {
            "proxy": {"listen": [given], "tls_names": [NAME, ADDRESS]},
            "relay": {"allow": [f"{ADDRESS}:{self.stage.open_registry.port}"]},
        }
        self.proxy = Proxy(self.directory, tables)
        self.addCleanup(self.proxy.process.stop)
        self.watch(self.proxy.process)
        #: By port, whom its clients have to trust.
        self.doors = {self.proxy.port: self.proxy.ca_file, self.given_port: keys.ca}

    def curl(self, port: int, url: str, *options: str, ca_file: Path | None = None) -> Result:
        """GET *url* through the proxy, with as much trust as is needed."""
        return run(
            *(program("curl"), "--silent", "--show-error"),
            *("--proxy", f"https://{ADDRESS}:{port}", "--proxy-cacert", str(self.doors[port])),
            *("--cacert", str(ca_file or self.proxy.ca_file), *options, url),
            env=environment(HOME=self.directory),
        )

    def test_intercepted(self) -> None:
        """TLS within TLS: a layer comes out whole, cold and warm, quick and slow."""
        repository = self.repository()
        image = self.publish(OPEN_HOST, repository, images.image(size=8 << 20))
        layer = image.blobs[1]
        url = f"https://{OPEN_HOST}/v2/{repository}/blobs/{layer.digest}"
        output = self.directory / "layer"
        for port in self.doors:
            for options in (
                [],
                ["--limit-rate", "16M"],
                ["--proxy-tls13-ciphers", "TLS_AES_256_GCM_SHA384"],
            ):
                self.curl(port, url, "--output", str(output), *options).check()
                found = hashlib.sha256(output.read_bytes()).hexdigest()
                self.assertEqual(f"sha256:{found}", layer.digest)

    def test_tunnelled(self) -> None:
        """The site's own certificate is seen."""
        server = self.stage.open_registry
        for port in self.doors:
            result = self.curl(port, f"{server.url}/v2/", ca_file=server.keys.ca)
            self.assertEqual(result.check(), "{}")

    def test_refused(self) -> None:
        """The reason arrives: curl's code 56 is for a proxy that says no."""
        for port in self.doors:
            result = self.curl(port, "https://10.255.255.1/")
            self.assertEqual(result.code, 56, str(result))
            self.assertIn("403", result.output)

    def test_own_pages(self) -> None:
        for port, ca_file in self.doors.items():
            command = program("curl"), "--silent", "--cacert", str(ca_file)
            page = run(*command, f"https://{ADDRESS}:{port}/healthz", env=environment())
            self.assertEqual(page.check(), "ok\n")

    def test_names(self) -> None:
        """Each of the proxy's names is in its certificate."""
        context = ssl.create_default_context(cafile=str(self.proxy.ca_file))
        with (
            socket.create_connection((ADDRESS, self.proxy.port)) as connection,
            context.wrap_socket(connection, server_hostname=NAME) as secure,
        ):
            names = secure.getpeercert()
        assert names is not None
        self.assertEqual(names["subjectAltName"], (("DNS", NAME), ("IP Address", ADDRESS)))

    def test_client(self) -> None:
        """skopeo, as a Go program, takes https:// in HTTPS_PROXY as well."""
        url = f"https://{ADDRESS}:{self.proxy.port}"
        skopeo = Skopeo(self.directory / "skopeo", url, self.proxy.ca_file)
        repository = self.repository()
        image = self.publish(TOKEN_HOST, repository)
        reference = f"{TOKEN_HOST}/{repository}:latest"
        for round_name in ("cold", "warm"):
            recording = self.stage.token_registry.record()
            skopeo.pull(reference).check()
            self.assertEqual(skopeo.image_id(reference), image.image_id)
            skopeo.clear()
            blobs = Counter(blob.digest for blob in image.blobs)
            traffic = recording.traffic()
            expected = blobs if round_name == "cold" else Counter()
            self.assertEqual(traffic.gets("blobs"), expected, f"{round_name}\n{traffic}")
