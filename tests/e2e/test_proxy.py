"""What clients meet at the proxy: its own pages, tunnels, HTTP details, locked doors."""

from __future__ import annotations

import json
from collections import Counter
from urllib.parse import urlencode

from cryptography import x509

from tests.support import images
from tests.support.clients import Skopeo
from tests.support.process import Result, environment, run
from tests.support.programs import needs, program
from tests.support.registry import ADDRESS, ALICE, SERVICE
from tests.support.stage import (
    AUTH_HOST,
    OPEN_HOST,
    PASSWORD_HOST,
    TOKEN_HOST,
    EndToEndTestCase,
)


class ProxyTestCase(EndToEndTestCase):
    """Tests with the stage's proxy."""

    def setUp(self) -> None:
        super().setUp()
        self.proxy = self.stage.proxy
        self.watch(self.proxy.process)


@needs("docker-registry", "htpasswd")
class OwnPagesTests(ProxyTestCase):
    """What the proxy's port says about itself."""

    def test_certificate(self) -> None:
        """``/ca.crt`` is the CA; its key is for the proxy's eyes only."""
        certificate = x509.load_pem_x509_certificate(self.proxy.ca_file.read_bytes())
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        self.assertTrue(constraints.value.ca)
        key = self.proxy.data / "ca" / "ca.key"
        self.assertEqual(key.stat().st_mode & 0o777, 0o600)

    def test_front_page(self) -> None:
        """``/`` tells people what they have found."""
        page = self.proxy.get("/")
        assert page is not None
        self.assertIn(b"regproxy", page)

    def test_garbage(self) -> None:
        """What is no HTTP request is refused, and the next client is served."""
        for sent in (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
            b"CONNECT\r\n\r\n",
            b"CONNECT registry.example.test HTTP/1.1\r\n\r\n",
            b"CONNECT registry.example.test:99999 HTTP/1.1\r\n\r\n",
            b"CONNECT user@registry.example.test:443 HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nX: " + b"x" * (1 << 20) + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
        ):
            with self.subTest(sent=sent[:60]):
                answer = self.proxy.exchange(sent)
                if answer is not None:
                    self.assertEqual(answer.status // 100, 4)
                self.assertEqual(self.proxy.get("/healthz"), b"ok\n")


@needs("docker-registry", "htpasswd", "curl")
class TunnelTests(ProxyTestCase):
    """CONNECT to what is not intercepted. The site is the open registry, by its address."""

    def curl(self, port: int, *options: str) -> Result:
        """GET /v2/ from the upstream on *port*, trusting the upstreams' CA."""
        return run(
            *(program("curl"), "--silent", "--show-error", "--include", "--proxy", self.proxy.url),
            *("--cacert", str(self.stage.open_registry.keys.ca), *options),
            f"https://{ADDRESS}:{port}/v2/",
            env=environment(HOME=self.new_directory()),
        )

    def test_untouched(self) -> None:
        """The site's own certificate is seen, and its own answer."""
        output = self.curl(self.stage.open_registry.port).check()
        # HTTP/2 is what the two of them speak; the proxy itself does not.
        self.assertIn("HTTP/2 200", output)
        self.assertIn("{}", output)
        self.assertNotIn("cache-status", output.lower())

    def test_not_the_proxys_certificate(self) -> None:
        """Who trusts the proxy's CA alone is warned, as without a proxy (curl's code 60)."""
        result = self.curl(self.stage.open_registry.port, "--cacert", str(self.proxy.ca_file))
        self.assertEqual(result.code, 60, str(result))

    def test_refused_port(self) -> None:
        """A port that is not allowed is refused to curl (code 56) and never dialled."""
        recording = self.stage.password_registry.record()
        result = self.curl(self.stage.password_registry.port)
        self.assertEqual(result.code, 56, str(result))
        self.assertIn("403", result.output)
        self.assertEqual(recording.traffic().requests, ())

    def test_refused_addresses(self) -> None:
        """Loopback, private and metadata addresses are refused, with the reason in the body."""
        for target in (
            "localhost:443",
            "127.0.0.1:443",
            "[::1]:443",
            "[::ffff:127.0.0.1]:443",
            "10.0.0.1:443",
            "169.254.169.254:443",
            "[64:ff9b::7f00:1]:443",
        ):
            with self.subTest(target=target):
                request = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"
                answer = self.proxy.exchange(request.encode())
                assert answer is not None
                self.assertEqual(answer.status, 403)
                self.assertTrue(answer.body)


@needs("docker-registry", "htpasswd")
class HTTPTests(ProxyTestCase):
    """Headers and ranges, as a client sees them inside its intercepted connection."""

    def blob(self) -> tuple[images.Content, str]:
        """A layer of a new image at the open registry, and its path."""
        repository = self.repository()
        layer = self.publish(OPEN_HOST, repository).blobs[1]
        return layer, f"/v2/{repository}/blobs/{layer.digest}"

    def test_blob(self) -> None:
        """A miss and a hit are the same content, and say which they are."""
        layer, path = self.blob()
        for detail in ("fwd=miss", "hit"):
            answer = self.proxy.fetch(OPEN_HOST, path)
            self.assertEqual((answer.status, answer.body == layer.content), (200, True))
            self.assertEqual(answer.headers["Content-Length"], str(len(layer.content)))
            self.assertEqual(answer.headers["Docker-Content-Digest"], layer.digest)
            self.assertEqual(answer.headers["ETag"], f'"{layer.digest}"')
            self.assertEqual(answer.headers["Accept-Ranges"], "bytes")
            self.assertIn(detail, answer.headers["Cache-Status"])

    def test_manifest(self) -> None:
        """So with a tag; HEAD has the same headers."""
        repository = self.repository()
        manifest = self.publish(OPEN_HOST, repository).manifest
        for method in ("GET", "GET", "HEAD"):
            answer = self.proxy.fetch(
                OPEN_HOST,
                f"/v2/{repository}/manifests/latest",
                method=method,
                headers={"Accept": images.DOCKER_MANIFEST},
            )
            self.assertEqual(answer.status, 200)
            self.assertEqual(answer.body, b"" if method == "HEAD" else manifest.content)
            self.assertEqual(answer.headers["Content-Type"], manifest.media_type)
            self.assertEqual(answer.headers["Content-Length"], str(len(manifest.content)))
            self.assertEqual(answer.headers["Docker-Content-Digest"], manifest.digest)
            self.assertIn("regproxy", answer.headers["Cache-Status"])

    def test_head_is_not_get(self) -> None:
        """A HEAD of something new costs a HEAD and no more."""
        repository = self.repository()
        manifest = self.publish(OPEN_HOST, repository).manifest
        recording = self.stage.open_registry.record()
        answer = self.proxy.fetch(
            OPEN_HOST,
            f"/v2/{repository}/manifests/latest",
            method="HEAD",
            headers={"Accept": images.DOCKER_MANIFEST},
        )
        self.assertEqual(answer.headers["Docker-Content-Digest"], manifest.digest)
        # containerd refuses a manifest of unknown size.
        self.assertEqual(answer.headers["Content-Length"], str(len(manifest.content)))
        self.assertEqual(recording.traffic().gets("manifests"), Counter())

    def test_range(self) -> None:
        """Parts of a blob, cold and warm."""
        layer, path = self.blob()
        size = len(layer.content)
        for wanted, start, end in (
            ("10-19", 10, 20),
            (f"{size - 5}-", size - 5, size),
            ("-7", size - 7, size),
            ("0-0", 0, 1),
        ):
            with self.subTest(range=wanted):
                headers = {"Range": f"bytes={wanted}"}
                answer = self.proxy.fetch(OPEN_HOST, path, headers=headers)
                self.assertEqual(answer.status, 206)
                self.assertEqual(answer.body, layer.content[start:end])
                content_range = f"bytes {start}-{end - 1}/{size}"
                self.assertEqual(answer.headers["Content-Range"], content_range)

    def test_range_outside(self) -> None:
        """A range behind the end is 416 with the size."""
        layer, path = self.blob()
        self.proxy.fetch(OPEN_HOST, path)
        headers = {"Range": f"bytes={len(layer.content)}-"}
        answer = self.proxy.fetch(OPEN_HOST, path, headers=headers)
        self.assertEqual(answer.status, 416)
        self.assertEqual(answer.headers["Content-Range"], f"bytes */{len(layer.content)}")

    def test_misdirected(self) -> None:
        """The Host inside must be the host of CONNECT (RFC 9110, 15.5.20)."""
        answer = self.proxy.fetch(OPEN_HOST, "/v2/", headers={"Host": TOKEN_HOST})
        self.assertEqual(answer.status, 421)

    def test_registry_errors(self) -> None:
        """The registry's 404 and its JSON pass through."""
        repository = self.repository()
        self.publish(OPEN_HOST, repository)
        answer = self.proxy.fetch(OPEN_HOST, f"/v2/{repository}/manifests/absent")
        self.assertEqual(answer.status, 404)
        self.assertIn(b"MANIFEST_UNKNOWN", answer.body)

    def test_upstream_challenge(self) -> None:
        """The challenge of the registry is the client's to answer."""
        password = self.proxy.fetch(PASSWORD_HOST, "/v2/")
        self.assertEqual(password.status, 401)
        self.assertEqual(password.headers["WWW-Authenticate"], 'Basic realm="tests"')
        token = self.proxy.fetch(TOKEN_HOST, "/v2/")
        self.assertEqual(token.status, 401)
        self.assertIn(f'realm="{self.stage.tokens.realm}"', token.headers["WWW-Authenticate"])


@needs("docker-registry", "htpasswd", "skopeo")
class PrivateContentTests(ProxyTestCase):
    """A layer of a private image is in the store. Who knows its digest does not get it."""

    def setUp(self) -> None:
        super().setUp()
        self.private = self.repository("private")
        image = self.publish(TOKEN_HOST, self.private)
        skopeo = self.stage.client(Skopeo)
        self.addCleanup(skopeo.clear)
        skopeo.pull(f"{TOKEN_HOST}/{self.private}:latest", ALICE).check()
        self.layer = image.blobs[1]

    def anonymous(self, repository: str) -> dict[str, str]:
        """The header of a client that has no login and asks to pull from *repository*."""
        query = {"scope": f"repository:{repository}:pull", "service": SERVICE}
        answer = self.proxy.fetch(AUTH_HOST, f"/token?{urlencode(query)}")
        return {"Authorization": f"Bearer {json.loads(answer.body)['token']}"}

    def status(self, host: str, repository: str, headers: dict[str, str]) -> int:
        """What asking for the layer comes to."""
        path = f"/v2/{repository}/blobs/{self.layer.digest}"
        return self.proxy.fetch(host, path, headers=headers).status

    def test_without_token(self) -> None:
        """No Authorization at all."""
        self.assertEqual(self.status(TOKEN_HOST, self.private, {}), 401)

    def test_anonymous_token(self) -> None:
        """A valid token that does not cover the repository."""
        headers = self.anonymous(self.private)
        self.assertEqual(self.status(TOKEN_HOST, self.private, headers), 401)

    def test_garbage_token(self) -> None:
        """A token that the registry never saw."""
        headers = {"Authorization": "Bearer garbage"}
        self.assertEqual(self.status(TOKEN_HOST, self.private, headers), 401)

    def test_public_repository(self) -> None:
        """A repository that the client may read, but that does not have the layer."""
        public = self.repository()
        self.publish(TOKEN_HOST, public)
        headers = self.anonymous(public)
        self.assertEqual(self.status(TOKEN_HOST, public, headers), 404)

    def test_another_registry(self) -> None:
        """A registry that does not have the layer."""
        public = self.repository()
        self.publish(OPEN_HOST, public)
        self.assertEqual(self.status(OPEN_HOST, public, {}), 404)
