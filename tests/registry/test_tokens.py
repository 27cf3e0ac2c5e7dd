"""Tests for :mod:`regproxy.registry.tokens`: clients first, and the proxy for the others."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Final

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.model import Auth, Config, RegistrySection
from regproxy.interfaces import OWN_LOGIN
from regproxy.oci.errors import Unavailable
from regproxy.oci.names import DOCKER_HUB, Digest, Host
from regproxy.policy.tokens import KEY_SIZE, LIFETIME
from regproxy.registry.service import RegistryService
from regproxy.registry.tokens import ClientFirst, TokenKey
from tests.support.front import CONFIG, OPEN, Answer, FrontTestCase
from tests.support.upstream import Reply

FIRST: Final = "registry.first.test"
SECOND: Final = "second.first.test"
REALM: Final = "auth.first.test"
CHALLENGE: Final = f'Bearer realm="https://{REALM}/token",service="tests"'
REFUSED: Final = Reply(401, {"WWW-Authenticate": CHALLENGE}, b"{}")
BLOB: Final = b"content"
ALICE: Final = "Bearer alice"

_SECTION: Final = RegistrySection(auth=Auth.CLIENT_FIRST, username="team", password="secret")


class ClientFirstCase(FrontTestCase):
    """Registries whose clients log in first."""

    config = evolve(
        CONFIG,
        registries={
            **CONFIG.registries,
            **{Host(name): _SECTION for name in (FIRST, SECOND, DOCKER_HUB)},
            Host(REALM): RegistrySection(),
        },
    )

    def before(self, service: RegistryService, config: Config) -> ClientFirst:
        return ClientFirst(service, config, TokenKey(self.root / "tokens.key"), self.now)

    def challenge(self, host: str = FIRST, line: str = CHALLENGE) -> None:
        """A client pings, and is asked for a login."""
        self.upstream.on("GET", f"{host}/v2/", Reply(401, {"WWW-Authenticate": line}, b"{}"))
        answer = self.get(host, "/v2/")
        self.assertEqual((answer.status, answer["WWW-Authenticate"]), (401, line))
        self.upstream.asked.clear()

    def request_token(self, *repositories: str, service: str = "tests") -> Answer:
        scopes = "".join(f"&scope=repository:{name}:pull,push" for name in repositories)
        return self.get(REALM, f"/token?service={service}{scopes}")

    def token(self, *repositories: str) -> str:
        """The Authorization with a token for *repositories* at FIRST."""
        self.challenge()
        return f"Bearer {json.loads(self.request_token(*repositories).body)['token']}"

    def authorizations(self) -> list[bytes | None]:
        """Of what upstream was asked since the last time."""
        found = [asked.authorization for asked in self.upstream.asked]
        self.upstream.asked.clear()
        return found


class TokenTests(ClientFirstCase):
    """Where tokens come from."""

    def test_answer(self) -> None:
        """It is made here: upstream is not asked."""
        self.challenge()
        answer = self.request_token("app")
        self.assertEqual((answer.status, answer["Content-Type"]), (200, "application/json"))
        self.assertEqual(answer["Cache-Control"], "no-store")
        content = json.loads(answer.body)
        self.assertEqual(content["token"], content["access_token"])
        self.assertEqual(content["expires_in"], LIFETIME)
        self.assertAsked()
        record = self.log.records[-1]
        self.assertEqual((record.cache, record.reason), ("none", "a token of this proxy's own"))

    def test_docker_hub(self) -> None:
        """Its token service is known before a challenge came by."""
        target = "/token?service=registry.docker.io&scope=repository:library/app:pull"
        token = json.loads(self.get("auth.docker.io", target).body)["token"]
        self.upstream.serve_blob(DOCKER_HUB, "library/app", BLOB)
        answer = self.get(
            "docker.io", f"/v2/library/app/blobs/{Digest.of(BLOB)}", f"Bearer {token}"
        )
        self.assertEqual((answer.status, answer.body), (200, BLOB))
        self.assertEqual(self.authorizations(), [OWN_LOGIN])

    def test_with_login(self) -> None:
        """A client's own login goes to the token service, whose answer it gets."""
        self.challenge()
        target = "/token?service=tests&account=alice"
        self.upstream.on("GET", REALM + target, Reply(200, {}, b'{"token": "alice"}'))
        answer = self.get(REALM, target, "Basic YTpi")
        self.assertEqual(answer.body, b'{"token": "alice"}')
        self.assertEqual(self.authorizations(), [b"Basic YTpi"])
        self.upstream.on("POST", f"{REALM}/token", Reply(200, {}, b'{"token": "alice"}'))
        answer = self.ask("POST", REALM, "/token", body=b"grant_type=password").answer()
        self.assertEqual(answer.body, b'{"token": "alice"}')

    def test_not_this_realm(self) -> None:
        """Other services, paths and hosts are not answered for."""
        self.challenge()
        for host, target in (
            (REALM, "/token?service=other"),
            (REALM, "/token"),
            (REALM, "/other?service=tests"),
            (OPEN, "/token?service=tests"),
        ):
            self.upstream.on("GET", host + target, Reply(404))
            self.assertEqual(self.get(host, target).status, 404)

    def test_learned_from_refusals(self) -> None:
        """Also where the proxy itself puts the refusal into words."""
        target = self.upstream.serve_blob(FIRST, "app", BLOB)
        self.assertEqual(self.get(FIRST, target, ALICE).status, 200)
        self.upstream.on("HEAD", FIRST + target, REFUSED)
        self.assertEqual(self.get(FIRST, target).status, 401)
        self.assertEqual(self.request_token("app").status, 200)

    def test_other_registries(self) -> None:
        """Challenges of registries that are not client-first teach nothing."""
        self.challenge(OPEN)
        target = f"{REALM}/token?service=tests&scope=repository:app:pull,push"
        self.upstream.on("GET", target, Reply(200, {}, b"theirs"))
        self.assertEqual(self.request_token("app").body, b"theirs")

    def test_useless_challenges(self) -> None:
        """Those that lead nowhere, or where the proxy's login does not go."""
        for line in (
            'Basic realm="tests"',
            'Bearer realm="https://auth.evil.example/token"',
            'Bearer realm="not a URL"',
            'Bearer realm="',
        ):
            self.challenge(FIRST, line)
        self.upstream.on("GET", "auth.evil.example/token", Reply(200, {}, b"theirs"))
        self.start(
            evolve(
                self.config,
                registries={**self.config.registries, Host("auth.evil.example"): RegistrySection()},
            )
        )
        self.challenge(FIRST, 'Bearer realm="https://auth.evil.example/token"')
        self.assertEqual(self.get("auth.evil.example", "/token").body, b"theirs")


class UseTests(ClientFirstCase):
    """What tokens are good for."""

    def setUp(self) -> None:
        super().setUp()
        self.target = self.upstream.serve_blob(FIRST, "app", BLOB)

    def test_read(self) -> None:
        """The proxy asks in its own name."""
        token = self.token("app")
        self.upstream.serve_manifest(FIRST, "app", "latest", b"{}")
        for target, body in ((self.target, BLOB), ("/v2/app/manifests/latest", b"{}")):
            answer = self.get(FIRST, target, token)
            self.assertEqual((answer.status, answer.body), (200, body))
        for target in ("/v2/", "/v2/app/tags/list", f"/v2/app/referrers/{Digest.of(BLOB)}"):
            self.upstream.on("GET", FIRST + target, Reply(200, {}, b"x"))
            self.assertEqual(self.get(FIRST, target, token).body, b"x")
        self.assertEqual(self.authorizations(), [OWN_LOGIN] * 5)

    def test_client_with_login(self) -> None:
        """Its own Authorization goes up, untouched."""
        self.assertEqual(self.get(FIRST, self.target, ALICE).body, BLOB)
        self.assertEqual(self.authorizations(), [ALICE.encode()])

    def refused(self, target: str, authorization: str | None, host: str = FIRST) -> None:
        """It counts as no token: upstream's challenge is the answer."""
        self.upstream.on("GET", host + target, REFUSED)
        self.upstream.on("HEAD", host + target, REFUSED)
        self.upstream.asked.clear()
        answer = self.get(host, target, authorization)
        self.assertEqual((answer.status, answer["WWW-Authenticate"]), (401, CHALLENGE))
        self.assertEqual(set(self.authorizations()), {None})

    def test_other_repository(self) -> None:
        """A token for one is no authority for another."""
        token = self.token("app")
        other = f"/v2/other/blobs/{Digest.of(BLOB)}"
        self.refused(other, token)
        # Nor when the content is here, from the one that it is for.
        self.assertEqual(self.get(FIRST, self.target, token).body, BLOB)
        self.refused(other, token)

    def test_other_registry(self) -> None:
        token = self.token("app")
        self.refused(self.target, token, SECOND)
        self.refused(self.target, token, OPEN)

    def test_shared_token_service(self) -> None:
        """One that several registries share gives tokens for all of them."""
        self.challenge(SECOND)
        token = self.token("app")
        self.upstream.serve_blob(SECOND, "app", BLOB)
        for host in (FIRST, SECOND):
            self.assertEqual(self.get(host, self.target, token).body, BLOB)

    def test_expired(self) -> None:
        token = self.token("app")
        self.clock.advance(LIFETIME - 1)
        self.assertEqual(self.get(FIRST, self.target, token).status, 200)
        self.clock.advance(1)
        self.refused(self.target, token)

    def test_forged(self) -> None:
        token = self.token("app")
        for forged in (token[:-1], token + "0", "Bearer regproxy.", "bearer regproxy.e30.00"):
            self.refused(self.target, forged)

    def test_own_login_cannot_be_sent(self) -> None:
        """The mark of the proxy's own login does not come in from outside."""
        for line in ("\n", "a\n", "\n\n", "\x0b", " \n "):
            self.upstream.on("GET", f"{FIRST}/v2/", REFUSED)
            self.get(FIRST, "/v2/", line)
        self.assertNotIn(OWN_LOGIN, self.authorizations())

    def test_without_token(self) -> None:
        """What the proxy's login has brought is not for clients that have no token."""
        token = self.token("app")
        self.assertEqual(self.get(FIRST, self.target, token).body, BLOB)
        self.refused(self.target, None)
        self.assertEqual(self.get(FIRST, self.target, token).body, BLOB)

    def test_push(self) -> None:
        """It is for reading: a push gets the registry's challenge."""
        token = self.token("app")
        for method, target in (
            ("POST", "/v2/app/blobs/uploads/"),
            ("PUT", "/v2/app/manifests/latest"),
            ("DELETE", "/v2/app/manifests/latest"),
            ("GET", "/v2/app/blobs/uploads/1"),
        ):
            self.upstream.on(method, FIRST + target, REFUSED)
            self.assertEqual(self.ask(method, FIRST, target, token).answer().status, 401)
        self.assertEqual(self.authorizations(), [None] * 4)

    def test_catalogue(self) -> None:
        """No list of what the proxy's login sees, and no path that is unknown."""
        token = self.token("app")
        for target in ("/v2/_catalog", "/v2/token", "/token"):
            self.refused(target, token)

    def test_restart(self) -> None:
        """Another process with the same key knows the token."""
        token = self.token("app")
        self.start(self.config)
        self.assertEqual(self.get(FIRST, self.target, token).body, BLOB)


class TokenKeyTests(SynchronousTestCase):
    """The file with the key."""

    def setUp(self) -> None:
        self.file = Path(self.mktemp()) / "data" / "tokens.key"

    def refusal(self) -> str:
        error = self.assertRaises(Unavailable, lambda: TokenKey(self.file).value)
        return str(error)

    def test_made(self) -> None:
        """Random, for the owner only, and the same from then on."""
        key = TokenKey(self.file)
        self.assertFalse(self.file.exists())
        self.assertEqual(len(key.value), KEY_SIZE)
        self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), 0o600)
        self.assertEqual(TokenKey(self.file).value, key.value)
        self.assertEqual(list(self.file.parent.iterdir()), [self.file])
        self.file.unlink()
        self.assertEqual(len(key.value), KEY_SIZE)
        self.assertNotEqual(TokenKey(self.file).value, key.value)

    def test_somebody_was_faster(self) -> None:
        """Of two processes that make it at once, both take the first one's."""
        self.file.parent.mkdir(parents=True)
        other = bytes(KEY_SIZE)

        def link(source: Path, target: Path) -> None:
            target.write_bytes(other)
            raise FileExistsError

        self.patch(os, "link", link)
        self.assertEqual(TokenKey(self.file).value, other)
        self.assertEqual(list(self.file.parent.iterdir()), [self.file])

    def test_unusable(self) -> None:
        """The file is named, and what to do."""
        self.file.parent.mkdir(parents=True)
        self.file.write_bytes(b"short")
        self.assertIn(f"{self.file} is no key of 32 bytes: remove it", self.refusal())
        self.file.unlink()
        self.file.mkdir()
        self.assertIn(f"{self.file}, the key of this proxy's tokens", self.refusal())
