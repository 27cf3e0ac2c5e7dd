"""The proxy as a process: its own pages, tunnels, HTTP details, restarts, dead upstreams."""

from __future__ import annotations

from collections import Counter

from cryptography import x509

from tests.support import images
from tests.support.clients import Skopeo
from tests.support.process import Process, Result, environment, run
from tests.support.programs import needs, program
from tests.support.proxy import Proxy, Tables, Value, command, toml
from tests.support.registry import ADDRESS, ALICE, Registry
from tests.support.stage import OPEN_HOST, PASSWORD_HOST, TOKEN_HOST, EndToEndTestCase


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
                try:
                    answer = self.proxy.exchange(sent)
                except ConnectionResetError:
                    answer = b""
                self.assertRegex(answer, rb"\A(HTTP/1\.1 4|\Z)")
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
        self.assertIn("HTTP/1.1 200 OK", output)
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
                head, _, body = self.proxy.exchange(request.encode()).partition(b"\r\n\r\n")
                self.assertRegex(head, rb"\AHTTP/1\.1 403 ")
                self.assertTrue(body)


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
class LifeTests(EndToEndTestCase):
    """Proxies of their own, that end before the test does."""

    def start_proxy(self, tables: Tables) -> tuple[Proxy, Skopeo]:
        """A new proxy and a client of it."""
        proxy = Proxy(self.new_directory(), tables)
        # The process of that time, which may be another one.
        self.addCleanup(lambda: proxy.process.stop())
        self.watch(proxy.process)
        return proxy, Skopeo(self.new_directory() / "skopeo", proxy.url, proxy.ca_file)

    def check_new_process(self, *, crash: bool) -> None:
        """What one process stored, the next one serves, under the same CA."""
        repository = self.repository()
        image = self.publish(TOKEN_HOST, repository)
        proxy, skopeo = self.start_proxy(self.stage.registries())
        reference = f"{TOKEN_HOST}/{repository}:latest"
        skopeo.pull(reference).check()
        if crash:
            proxy.process.kill()
        else:
            proxy.process.stop()
        authority = proxy.ca_file.read_bytes()
        proxy.start()
        self.assertEqual(proxy.ca_file.read_bytes(), authority)
        skopeo.clear()
        recording = self.stage.token_registry.record()
        skopeo.pull(reference).check()
        self.assertEqual(skopeo.image_id(reference), image.image_id)
        traffic = recording.traffic()
        self.assertEqual(traffic.gets("blobs"), Counter(), f"in\n{traffic}")
        self.assertEqual(traffic.gets("manifests"), Counter(), f"in\n{traffic}")

    def test_restart(self) -> None:
        """After an orderly end."""
        self.check_new_process(crash=False)

    def test_crash(self) -> None:
        """After SIGKILL."""
        self.check_new_process(crash=True)

    def check_upstream_gone(self, login: dict[str, Value]) -> None:
        """What was pulled can be pulled when the registry is no more."""
        directory = self.new_directory()
        keys = self.stage.open_registry.keys
        registry = Registry.with_password(directory, keys) if login else Registry(directory, keys)
        self.addCleanup(registry.process.stop)
        section: dict[str, Value] = {
            "upstream": [registry.url],
            "ca_file": str(keys.ca),
            "relay_private": True,
        }
        proxy, skopeo = self.start_proxy({'registries."gone.example.test"': section | login})
        image = images.image()
        registry.push("public/app", "latest", image)
        reference = "gone.example.test/public/app:latest"
        skopeo.pull(reference).check()
        skopeo.clear()
        registry.process.stop()
        skopeo.pull(reference).check()
        self.assertEqual(skopeo.image_id(reference), image.image_id)
        answer = proxy.fetch(
            "gone.example.test",
            "/v2/public/app/manifests/latest",
            headers={"Accept": images.DOCKER_MANIFEST},
        )
        self.assertEqual(answer.body, image.manifest.content)
        self.assertRegex(answer.headers["Warning"], r"\A299 ")
        absent = proxy.fetch("gone.example.test", "/v2/public/app/manifests/absent")
        self.assertGreaterEqual(absent.status, 500)
        self.assertIn(b'"errors"', absent.body)
        self.assertIn("regproxy", absent.headers["Proxy-Status"])

    def test_upstream_gone(self) -> None:
        """Public content."""
        self.check_upstream_gone({})

    def test_upstream_gone_shared(self) -> None:
        """Content that the proxy's login can read, and everybody who may use the proxy."""
        login: dict[str, Value] = {"auth": "inject", "username": ALICE.user}
        self.check_upstream_gone(login | {"password": ALICE.password})

    def test_push_denied(self) -> None:
        """``push = "deny"`` is 405 with a registry's JSON, and nothing goes upstream."""
        tables = self.stage.registries()
        tables[f'registries."{OPEN_HOST}"']["push"] = "deny"
        proxy, _ = self.start_proxy(tables)
        recording = self.stage.open_registry.record()
        target = f"/v2/{self.repository()}/blobs/uploads/"
        answer = proxy.fetch(OPEN_HOST, target, method="POST", headers={"Content-Length": "0"})
        self.assertEqual(answer.status, 405)
        self.assertIn(b"UNSUPPORTED", answer.body)
        self.assertEqual(recording.traffic().requests, ())

    def test_reload(self) -> None:
        """SIGHUP brings a new configuration into force; a bad one changes nothing."""
        tables = self.stage.registries()
        proxy, _ = self.start_proxy(tables)
        target = f"/v2/{self.repository()}/blobs/uploads/"

        def status() -> int:
            return proxy.fetch(OPEN_HOST, target, method="POST").status

        self.assertEqual(status(), 202)
        tables[f'registries."{OPEN_HOST}"']["push"] = "deny"
        proxy.configure(tables)
        proxy.process.hang_up()
        proxy.process.wait_until(lambda: status() == 405)
        proxy.configure(tables | {"nonsense": {}})
        proxy.process.hang_up()
        proxy.process.wait_until(lambda: "nonsense" in proxy.process.read_log())
        self.assertEqual(status(), 405)

    def test_secrets_stay_out_of_the_log(self) -> None:
        """Neither passwords nor tokens are logged, whoever sends them."""
        proxy, skopeo = self.start_proxy(self.stage.registries())
        for host in self.stage.upstreams:
            server = self.stage.upstreams[host]
            if isinstance(server, Registry):
                repository = self.repository("private")
                self.publish(host, repository)
                skopeo.pull(f"{host}/{repository}:latest", ALICE).check()
        log = proxy.process.read_log()
        for secret in (ALICE.password, ALICE.basic.removeprefix("Basic "), "eyJ", "account=alice"):
            self.assertNotIn(secret, log)


class ConfigurationTests(EndToEndTestCase):
    """A proxy that must not start."""

    def setUp(self) -> None:
        """No stage is needed."""

    def check_refused(self, tables: Tables, *expected: str) -> None:
        """The start ends with an error that has all of *expected* in it."""
        directory = self.new_directory()
        file = directory / "regproxy.toml"
        file.write_text(toml(directory / "data", tables))
        result = run(*command(file), env=environment())
        self.assertNotEqual(result.code, 0, str(result))
        for text in (str(file), *expected):
            self.assertIn(text, result.output)
        self.assertNotIn("Traceback", result.output)

    def test_unknown_key(self) -> None:
        """A misspelt key is named."""
        self.check_refused({"proxy": {"lisen": []}}, "proxy", "lisen")

    def test_bad_value(self) -> None:
        """A wrong value is named, and what is allowed."""
        section: dict[str, Value] = {"push": "sometimes"}
        self.check_refused(
            {'registries."registry.example.test"': section}, "push", "sometimes", "deny"
        )

    def test_check(self) -> None:
        """``--check`` prints what is in force, without secrets, and starts nothing."""
        directory = self.new_directory()
        file = directory / "regproxy.toml"
        login: dict[str, Value] = {"username": "alice", "password": "hidden"}
        file.write_text(toml(directory / "data", {'registries."registry.example.test"': login}))
        output = run(*command(file), "--check", env=environment()).check()
        self.assertIn("registry.example.test", output)
        self.assertIn("alice", output)
        self.assertNotIn("hidden", output)
        self.assertFalse((directory / "data").exists())

    def test_port_in_use(self) -> None:
        """A port that cannot be had stops the start."""
        directory = self.new_directory()
        proxy = Proxy(directory, {})
        self.addCleanup(proxy.process.stop)
        second = Process("second", command(proxy.config), log=directory / "2", env=environment())
        self.addCleanup(second.stop)
        self.assertNotEqual(second.wait(), 0, second.tail())
