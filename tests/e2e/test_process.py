"""The proxy as a process: restarts, crashes, reloads, dead upstreams, bad configuration."""

from __future__ import annotations

import os
import signal
from collections import Counter

from tests.support import images
from tests.support.clients import Skopeo
from tests.support.process import Process, environment, run
from tests.support.programs import needs
from tests.support.proxy import Proxy, Tables, Value, command, toml
from tests.support.registry import ALICE, Registry, Server, TokenServer
from tests.support.stage import AUTH_HOST, OPEN_HOST, TOKEN_HOST, EndToEndTestCase


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

    def test_stopped_twice(self) -> None:
        """A second signal on the heels of the first changes nothing, and is no error."""
        proxy, _ = self.start_proxy({})
        for _ in range(5):
            os.kill(proxy.process.pid, signal.SIGTERM)
        # twistd ends by the signal that stopped it, when all is put away.
        self.assertEqual(proxy.process.wait(), -signal.SIGTERM)
        self.assertIn("Server Shut Down", proxy.process.read_log())
        self.assertNotIn("Traceback", proxy.process.read_log())

    def check_upstream_gone(
        self, registry: Registry, tokens: TokenServer | None = None, **login: Value
    ) -> None:
        """What was pulled can be pulled when *registry* and its token server are no more."""
        servers: dict[str, Server] = {"gone.example.test": registry}
        if tokens is not None:
            servers[AUTH_HOST] = tokens
        tables: dict[str, dict[str, Value]] = {}
        for host, server in servers.items():
            self.addCleanup(server.process.stop)
            tables[f'registries."{host}"'] = {
                "upstream": [server.url],
                "ca_file": str(server.keys.ca),
                "relay_private": True,
            }
        tables['registries."gone.example.test"'] |= login
        proxy, skopeo = self.start_proxy(tables)
        image = images.image()
        registry.push("public/app", "latest", image)
        reference = "gone.example.test/public/app:latest"
        skopeo.pull(reference).check()
        skopeo.clear()
        for server in servers.values():
            server.process.stop()
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
        """Public content of a registry that asks nobody to log in."""
        self.check_upstream_gone(Registry(self.new_directory(), self.stage.keys))

    def test_upstream_gone_with_tokens(self) -> None:
        """Public content of a registry that wants tokens, whose token server is gone as well."""
        directory = self.new_directory()
        tokens = TokenServer(directory, self.stage.keys, realm=f"https://{AUTH_HOST}/token")
        self.check_upstream_gone(Registry.with_tokens(directory, tokens), tokens)

    def test_upstream_gone_shared(self) -> None:
        """Content that the proxy's login can read, and everybody who may use the proxy."""
        registry = Registry.with_password(self.new_directory(), self.stage.keys)
        self.check_upstream_gone(registry, username=ALICE.user, password=ALICE.password)

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
