"""Whose login is used: a Docker config's, a helper's, the client's own, or one by token."""

from __future__ import annotations

import json
import shlex
from typing import Final

from tests.support import images
from tests.support.clients import Client, Containerd, Docker, Podman, Skopeo
from tests.support.programs import needs, needs_root
from tests.support.proxy import Proxy, Value
from tests.support.registry import ALICE, WRONG
from tests.support.stage import (
    AUTH_HOST,
    INJECT_PASSWORD_HOST,
    PASSWORD_HOST,
    TOKEN_HOST,
    EndToEndTestCase,
)

#: What only clients that log in themselves use.
BASIC_HOST: Final = "basic.example.test"


class ProxyWithHelpers(Proxy):
    """A proxy whose PATH begins with a directory of its own."""

    def arguments(self) -> list[str]:
        return ["env", f"PATH={self.directory / 'bin'}:/usr/bin:/bin", *super().arguments()]


@needs("docker-registry", "htpasswd", "skopeo")
class CredentialsTests(EndToEndTestCase):
    """A proxy with a Docker config in place of user names.

    It logs in at PASSWORD_HOST with what stands in the file, and at INJECT_PASSWORD_HOST
    with a helper's answer. At TOKEN_HOST and BASIC_HOST clients log in first.
    """

    def setUp(self) -> None:
        super().setUp()
        self.directory = self.new_directory()
        self.logins = self.directory / "config.json"
        self.asked = self.directory / "asked"
        self.write_logins(ALICE.basic.removeprefix("Basic "))
        self.write_helper()
        self.start_proxy()

    def write_logins(self, auth: str) -> None:
        """Write the proxy's ``config.json``."""
        config = {
            "auths": {f"https://{PASSWORD_HOST}/v2/": {"auth": auth}},
            "credHelpers": {
                host: "test" for host in (INJECT_PASSWORD_HOST, TOKEN_HOST, BASIC_HOST)
            },
        }
        self.logins.write_text(json.dumps(config))

    def write_helper(self) -> None:
        """Make a helper that notes what it was asked."""
        answer = json.dumps({"Username": ALICE.user, "Secret": ALICE.password})
        program = self.directory / "bin" / "docker-credential-test"
        program.parent.mkdir()
        program.write_text(
            "#!/bin/sh\n"
            f'echo "$1 $(cat)" >> {shlex.quote(str(self.asked))}\n'
            f"echo {shlex.quote(answer)}\n"
        )
        program.chmod(0o755)

    def start_proxy(self) -> None:
        upstreams = {
            PASSWORD_HOST: self.stage.password_registry,
            INJECT_PASSWORD_HOST: self.stage.password_registry,
            TOKEN_HOST: self.stage.token_registry,
            BASIC_HOST: self.stage.password_registry,
            AUTH_HOST: self.stage.tokens,
        }
        tables: dict[str, dict[str, Value]] = {
            "credentials": {"docker_config": str(self.logins)},
        }
        for host, server in upstreams.items():
            tables[f'registries."{host}"'] = {
                "upstream": [server.url],
                "ca_file": str(server.keys.ca),
                "relay_private": True,
            }
        for host in (TOKEN_HOST, BASIC_HOST):
            tables[f'registries."{host}"']["auth"] = "client-first"
        self.proxy = ProxyWithHelpers(self.directory, tables)
        self.addCleanup(lambda: self.proxy.process.stop())
        self.watch(self.proxy.process)

    def client(self, kind: type[Client]) -> Client:
        """A client of the proxy."""
        name = kind.__name__.lower()
        client = kind(self.directory / name, self.proxy.url, self.proxy.ca_file)
        self.addCleanup(client.close)
        for process in client.processes:
            self.watch(process)
        return client

    def check_no_secret_logged(self) -> None:
        log = self.proxy.process.read_log()
        # Tokens begin with the brace of a JSON object: the registry's, and the proxy's own.
        for secret in (ALICE.password, ALICE.basic.removeprefix("Basic "), "eyJ"):
            self.assertNotIn(secret, log)

    # The proxy's login

    def test_docker_config(self) -> None:
        """The login in the file counts as a user name does: anonymous clients pull."""
        self.check_anonymous_pull(PASSWORD_HOST)
        self.assertFalse(self.asked.exists())

    def test_helper(self) -> None:
        """A helper is asked for the host as the file has it, and once for a pull."""
        self.check_anonymous_pull(INJECT_PASSWORD_HOST)
        self.assertEqual(self.asked.read_text(), f"get {INJECT_PASSWORD_HOST}\n")

    def check_anonymous_pull(self, host: str) -> None:
        repository = self.repository("private")
        image = images.image()
        self.stage.password_registry.push(repository, "latest", image)
        skopeo = self.client(Skopeo)
        reference = f"{host}/{repository}:latest"
        for _ in ("cold", "warm"):
            skopeo.pull(reference).check()
            self.assertEqual(skopeo.image_id(reference), image.image_id)
            skopeo.clear()
        self.check_no_secret_logged()

    def test_rotated(self) -> None:
        """A file that changes counts without a restart."""
        repository = self.repository("private")
        self.stage.password_registry.push(repository, "latest", images.image())
        target = f"/v2/{repository}/manifests/latest"
        right, wrong = (login.basic.removeprefix("Basic ") for login in (ALICE, WRONG))
        headers = {"Accept": images.DOCKER_MANIFEST}
        for auth, status in ((right, 200), (wrong, 502), (right, 200)):
            self.write_logins(auth)
            answer = self.proxy.fetch(PASSWORD_HOST, target, headers=headers)
            self.assertEqual(answer.status, status, answer.body)

    def test_helper_fails(self) -> None:
        """The client is told which helper, and not what it said."""
        self.proxy.directory.joinpath("bin/docker-credential-test").write_text(
            f"#!/bin/sh\necho {shlex.quote(ALICE.password)}; exit 1\n"
        )
        answer = self.proxy.fetch(INJECT_PASSWORD_HOST, "/v2/private/x/manifests/latest")
        self.assertEqual(answer.status, 502)
        self.assertIn(b"docker-credential-test, asked for inject.example.test", answer.body)
        self.assertNotIn(ALICE.password.encode(), answer.body)

    # Clients first

    def check_client_first(self, kind: type[Client]) -> None:
        """Without a login the client pulls by the proxy's; with one by its own."""
        repository = self.repository("private")
        image = self.publish(TOKEN_HOST, repository)
        reference = f"{TOKEN_HOST}/{repository}:latest"
        client = self.client(kind)
        for login in (None, None, ALICE):
            client.pull(reference, login).check()
            self.assertEqual(client.image_id(reference), image.image_id)
            client.clear()
        refused = client.pull(reference, WRONG)
        self.assertNotEqual(refused.code, 0)
        self.assertRegex(refused.output.lower(), client.unauthorized)
        self.check_no_secret_logged()

    def test_client_first_skopeo(self) -> None:
        self.check_client_first(Skopeo)

    @needs_root
    @needs(*Docker.programs)
    def test_client_first_docker(self) -> None:
        self.check_client_first(Docker)

    @needs_root
    @needs(*Podman.programs)
    def test_client_first_podman(self) -> None:
        self.check_client_first(Podman)

    @needs_root
    @needs(*Containerd.programs)
    def test_client_first_containerd(self) -> None:
        self.check_client_first(Containerd)

    def fetch_token(self, *repositories: str) -> str:
        """The Authorization that an anonymous client gets."""
        self.assertEqual(self.proxy.fetch(TOKEN_HOST, "/v2/").status, 401)
        scopes = "".join(f"&scope=repository:{name}:pull,push" for name in repositories)
        service = self.stage.tokens.settings.service.replace(" ", "%20")
        answer = self.proxy.fetch(AUTH_HOST, f"/token?service={service}{scopes}")
        return f"Bearer {json.loads(answer.body)['token']}"

    def test_token(self) -> None:
        """It is not the upstream's, good for one repository, and for reading only."""
        repository, other = self.repository("private"), self.repository("private")
        image = images.image()
        for name in (repository, other):
            self.publish(TOKEN_HOST, name, image)
        recording = self.stage.tokens.record()
        token = self.fetch_token(repository)
        self.assertEqual(recording.traffic().requests, ())
        # It is no JSON web token of the token server's.
        self.assertTrue(token.startswith("Bearer regproxy."))

        def status(name: str, authorization: str | None, method: str = "GET") -> int:
            headers = {} if authorization is None else {"Authorization": authorization}
            target = f"/v2/{name}/manifests/{image.digest}"
            headers["Accept"] = images.DOCKER_MANIFEST
            answer = self.proxy.fetch(TOKEN_HOST, target, method=method, headers=headers)
            if answer.status == 401:
                self.assertIn(f"https://{AUTH_HOST}/token", answer.headers["WWW-Authenticate"])
            return answer.status

        self.assertEqual(status(repository, token), 200)
        self.assertEqual(status(repository, None), 401)
        self.assertEqual(status(repository, token[:-1]), 401)
        self.assertEqual(status(other, token), 401)
        self.assertEqual(status(repository, token, "DELETE"), 401)
        self.proxy.process.stop()
        self.proxy.start()
        self.assertEqual(status(repository, token), 200)

    def test_push(self) -> None:
        """A push needs a login of the client's own."""
        repository = self.repository("private")
        source = self.repository("private")
        image = self.publish(TOKEN_HOST, source)
        skopeo = self.client(Skopeo)
        assert isinstance(skopeo, Skopeo)
        skopeo.pull(f"{TOKEN_HOST}/{source}:latest").check()
        copied = f"dir:{skopeo.copied(f'{TOKEN_HOST}/{source}:latest')}"
        target = f"docker://{TOKEN_HOST}/{repository}:latest"
        refused = skopeo.skopeo("copy", "--dest-no-creds", copied, target)
        self.assertNotEqual(refused.code, 0)
        self.assertRegex(refused.output.lower(), skopeo.unauthorized)
        login = ("--dest-username", ALICE.user, "--dest-password", ALICE.password)
        skopeo.skopeo("copy", *login, copied, target).check()
        skopeo.clear()
        reference = f"{TOKEN_HOST}/{repository}:latest"
        skopeo.pull(reference).check()
        self.assertEqual(skopeo.image_id(reference), image.image_id)

    def test_without_token_service(self) -> None:
        """A registry that asks for Basic has no tokens: clients need a login."""
        repository = self.repository("private")
        image = images.image()
        self.stage.password_registry.push(repository, "latest", image)
        reference = f"{BASIC_HOST}/{repository}:latest"
        skopeo = self.client(Skopeo)
        refused = skopeo.pull(reference)
        self.assertNotEqual(refused.code, 0)
        self.assertRegex(refused.output.lower(), skopeo.unauthorized)
        skopeo.pull(reference, ALICE).check()
        self.assertEqual(skopeo.image_id(reference), image.image_id)
