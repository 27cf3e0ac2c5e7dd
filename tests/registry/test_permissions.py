"""Tests for :mod:`regproxy.registry.permissions`: who gets what is stored, and who does not."""

from __future__ import annotations

from pathlib import Path

from attrs import evolve
from twisted.internet.defer import Deferred

from regproxy.config.model import Access
from regproxy.oci.names import Digest, Host
from regproxy.upstream.errors import UpstreamTimeout, UpstreamUnreachable
from tests.support.front import OPEN, OTHER, TEAM, WARY, FrontTestCase
from tests.support.upstream import Reply

BLOB = bytes(range(256)) * 1000
DIGEST = str(Digest.of(BLOB))
ALICE = "Bearer alice"
BOB = "Bearer bob"
BASIC = 'Basic realm="tests"'
BEARER = 'Bearer realm="https://auth.example.com/token",service="tests"'


class PrivateTests(FrontTestCase):
    """A blob that Alice may read."""

    def setUp(self) -> None:
        super().setUp()
        self.target = self.upstream.serve_blob(OPEN, "some/app", BLOB)
        self.url = OPEN + self.target

    def refuse(self, code: int = 401, *methods: str) -> None:
        """Upstream refuses from now on."""
        headers = {"WWW-Authenticate": [BEARER, BASIC], "Content-Type": "text/plain"}
        for method in methods or ("GET", "HEAD"):
            self.upstream.on(method, self.url, Reply(code, headers, b"no"))

    def test_refusal_of_cold(self) -> None:
        """401, 403 and 404 are passed on as they are, each time anew."""
        for code in 401, 403, 404:
            for _ in range(2):
                self.refuse(code)
                answer = self.get(OPEN, self.target)
                self.assertEqual((answer.status, answer.body), (code, b"no"))
                self.assertEqual(answer["Content-Type"], "text/plain")
                self.assertEqual(answer["WWW-Authenticate"], f"{BEARER}, {BASIC}")
                self.assertAsked(f"GET {self.url}")
        self.assertEqual(self.head(OPEN, self.target).status, 404)
        self.assertAsked(f"HEAD {self.url}")

    def test_refusal_is_not_shared(self) -> None:
        """Who waits behind a client that is refused is asked for itself."""
        pending: Deferred[Reply] = Deferred()
        granted = Reply(200, {}, BLOB)
        self.upstream.on("GET", self.url, pending, granted)
        bob = self.ask("GET", OPEN, self.target, BOB)
        alice = self.ask("GET", OPEN, self.target, ALICE)
        pending.callback(Reply(403, {}, b"no"))
        self.assertEqual(bob.answer().status, 403)
        self.assertEqual(alice.answer().body, BLOB)
        logins = [asked.authorization for asked in self.upstream.asked if asked.method == "GET"]
        self.assertEqual(logins, [BOB.encode(), ALICE.encode()])

    def test_other_login(self) -> None:
        """What Alice brought, Bob gets only if upstream lets him."""
        self.get(OPEN, self.target, ALICE)
        self.assertAsked(f"GET {self.url}")
        self.refuse()
        for login in BOB, None:
            for method in self.get, self.head:
                answer = method(OPEN, self.target, login)
                self.assertEqual(answer.status, 401)
                self.assertEqual(answer["WWW-Authenticate"], f"{BEARER}, {BASIC}")
                self.assertIsNone(answer["ETag"])
                self.assertAsked(f"HEAD {self.url}")
        self.assertEqual(self.get(OPEN, self.target, BOB).error["code"], "UNAUTHORIZED")
        self.upstream.questions()
        self.assertEqual(self.get(OPEN, self.target, ALICE).body, BLOB)
        self.assertAsked()

    def test_other_login_is_let(self) -> None:
        """If it does, there is no second transfer, and the next time no question."""
        self.get(OPEN, self.target, ALICE)
        self.upstream.questions()
        self.assertEqual(self.get(OPEN, self.target, BOB).body, BLOB)
        self.assertEqual([a.authorization for a in self.upstream.asked], [BOB.encode()])
        self.assertAsked(f"HEAD {self.url}")
        self.assertEqual(self.get(OPEN, self.target, BOB).body, BLOB)
        self.assertAsked()

    def test_grant_ends(self) -> None:
        """A login counts for five minutes, then upstream is asked again."""
        self.get(OPEN, self.target, ALICE)
        self.refuse()
        self.clock.advance(299)
        self.assertEqual(self.get(OPEN, self.target, ALICE).status, 200)
        self.clock.advance(2)
        self.assertEqual(self.get(OPEN, self.target, ALICE).status, 401)

    def test_in_flight(self) -> None:
        """What is still arriving is not given to others either."""
        self.upstream.on("GET", self.url, Reply(200, {}, None, len(BLOB)))
        alice = self.ask("GET", OPEN, self.target, ALICE)
        (response,) = self.upstream.responses
        response.send(BLOB[:100])
        self.refuse(403)
        bob = self.get(OPEN, self.target, BOB)
        self.assertEqual((bob.status, bob.error["code"]), (403, "DENIED"))
        response.send(BLOB[100:])
        response.end()
        self.assertEqual(alice.answer().body, BLOB)

    def test_confirmation_fails(self) -> None:
        """When upstream cannot say it, nobody gets it, and the answer says why."""
        self.get(OPEN, self.target, ALICE)
        for failure, token in (
            (UpstreamTimeout("too slow"), "regproxy; error=connection_timeout"),
            (Reply(500, {}, b"oops"), "regproxy; error=destination_unavailable"),
            (Reply(204), "regproxy; error=destination_unavailable"),
        ):
            self.upstream.on("HEAD", self.url, failure)
            answer = self.get(OPEN, self.target, BOB)
            self.assertEqual(answer.status, 503)
            self.assertIn("stored here", answer.error["message"])
            self.assertEqual(answer["Proxy-Status"], token)

    def test_rate_limit(self) -> None:
        """A 429 is passed on with what the client should know."""
        self.get(OPEN, self.target, ALICE)
        headers = {"Retry-After": "7", "RateLimit-Remaining": "0;w=60"}
        self.upstream.on("HEAD", self.url, Reply(429, headers))
        answer = self.get(OPEN, self.target, BOB)
        self.assertEqual((answer.status, answer["Retry-After"]), (429, "7"))
        self.assertEqual(answer["RateLimit-Remaining"], "0;w=60")

    def test_registry_without_head(self) -> None:
        """Where HEAD is not allowed a GET confirms, and is not read."""
        self.get(OPEN, self.target, ALICE)
        self.upstream.on("HEAD", self.url, Reply(405))
        self.upstream.on("GET", self.url, Reply(200, {}, None, len(BLOB)))
        self.assertEqual(self.get(OPEN, self.target, BOB).body, BLOB)
        self.assertTrue(self.upstream.responses[-1].aborted)

    def test_one_question(self) -> None:
        """Many requests of one login wait for one confirmation."""
        self.get(OPEN, self.target, ALICE)
        self.upstream.questions()
        pending: Deferred[Reply] = Deferred()
        self.upstream.on("HEAD", self.url, pending)
        clients = [self.ask("GET", OPEN, self.target, BOB) for _ in range(3)]
        clients[0].leave()
        pending.callback(Reply(200, {}, BLOB))
        for client in clients[1:]:
            self.assertEqual(client.answer().body, BLOB)
        self.assertAsked(f"HEAD {self.url}")


class MembershipTests(FrontTestCase):
    """A digest by itself is no authority."""

    def setUp(self) -> None:
        super().setUp()
        self.get(OPEN, self.upstream.serve_blob(OPEN, "mine", BLOB), ALICE)
        self.upstream.questions()

    def test_other_repository(self) -> None:
        """Also who may read there has to be shown the very object there."""
        target = f"/v2/yours/blobs/{DIGEST}"
        for host, login in (OPEN, ALICE), (OTHER, ALICE), (TEAM, None), (WARY, None):
            self.upstream.on("HEAD", host + target, Reply(404))
            answer = self.get(host, target, login)
            self.assertEqual((answer.status, answer.error["code"]), (404, "NAME_UNKNOWN"))
            self.assertAsked(f"HEAD {host}{target}")

    def test_confirmed(self) -> None:
        """Then it is served without a second transfer, and from then on without a question."""
        target = f"/v2/yours/blobs/{DIGEST}"
        for host in OTHER, TEAM:
            self.upstream.on("HEAD", host + target, Reply(200, {"Content-Type": "text/x"}, BLOB))
            for _ in range(2):
                answer = self.get(host, target)
                self.assertEqual((answer.body, answer["Content-Type"]), (BLOB, "text/x"))
                self.assertEqual(answer["Cache-Status"], "regproxy; hit")
            self.assertAsked(f"HEAD {host}{target}")

    def test_offline(self) -> None:
        """Known content of a shared registry needs no upstream; unknown content needs it."""
        target = self.upstream.serve_blob(TEAM, "app", b"shared")
        self.get(TEAM, target)
        down = UpstreamUnreachable("down")
        self.upstream.on("HEAD", TEAM + target, down)
        self.upstream.on("HEAD", f"{TEAM}/v2/app/blobs/{DIGEST}", down)
        self.assertEqual(self.get(TEAM, target, BOB).body, b"shared")
        self.assertEqual(self.get(TEAM, f"/v2/app/blobs/{DIGEST}").status, 503)

    def test_proxys_login_makes_nothing_public(self) -> None:
        """What the proxy read with its own login is not public when the rules change."""
        target = self.upstream.serve_blob(TEAM, "app", b"secret")
        self.assertEqual(self.get(TEAM, target).body, b"secret")
        registries = dict(self.config.registries)
        (team,) = (host for host in registries if str(host) == TEAM)
        (open_,) = (host for host in registries if str(host) == OPEN)
        registries[team] = registries[open_]
        self.start(type(self.config)(self.config.data, registries=registries))
        self.upstream.on("HEAD", TEAM + target, Reply(401, {"WWW-Authenticate": BASIC}))
        self.assertEqual(self.get(TEAM, target).status, 401)

    def test_stored_file_is_the_same(self) -> None:
        """There is one file, whoever brought it."""
        self.upstream.serve_blob(OTHER, "yours", BLOB)
        self.get(OTHER, f"/v2/yours/blobs/{DIGEST}")
        files = [path for path in Path(self.root / "blobs").rglob("*") if path.is_file()]
        self.assertEqual(len(files), 1)


class PublicOnlyTests(FrontTestCase):
    """``access = "public"``: what is not for everybody is not stored."""

    def setUp(self) -> None:
        super().setUp()
        host = Host.parse(OPEN)
        section = evolve(self.config.registry(host), access=Access.PUBLIC)
        self.start(evolve(self.config, registries=self.config.registries | {host: section}))
        self.target = self.upstream.serve_blob(OPEN, "some/app", BLOB)

    def test_public(self) -> None:
        """It is found out before the first byte is stored, and anybody gets it then."""
        self.upstream.public.add(f"{OPEN}/some/app")
        for login in ALICE, BOB, None:
            answer = self.get(OPEN, self.target, login)
            self.assertEqual((answer.status, answer.body, answer.whole), (200, BLOB, True))
        self.assertAsked(f"GET {OPEN}{self.target}")
        self.assertEqual(len(self.upstream.asked_anonymously), 1)
        self.assertTrue(self.stored(BLOB))

    def test_private(self) -> None:
        """It passes, and each client asks for itself."""
        for login in ALICE, ALICE, BOB:
            answer = self.get(OPEN, self.target, login)
            self.assertEqual((answer.status, answer.body, answer.whole), (200, BLOB, True))
            self.assertEqual(answer["Cache-Status"], "regproxy; fwd=miss; detail=not-public")
        self.assertAsked(*[f"GET {OPEN}{self.target}"] * 3)
        self.assertFalse(self.stored(BLOB))

    def test_private_and_wrong(self) -> None:
        """What passes is verified as well."""
        self.upstream.on("GET", OPEN + self.target, Reply(200, {}, BLOB[:-1] + b"!"))
        answer = self.get(OPEN, self.target, ALICE)
        self.assertEqual((answer.status, answer.error["code"]), (502, "UNAVAILABLE"))

    def test_not_known(self) -> None:
        """When upstream does not say, it is taken for private."""
        self.upstream.anonymous_failure = UpstreamUnreachable("gone")
        self.assertEqual(self.get(OPEN, self.target, ALICE).body, BLOB)
        self.assertFalse(self.stored(BLOB))

    def test_tag(self) -> None:
        """A manifest, with and without its digest in the answer."""
        manifest = b'{"schemaVersion": 2}'
        tag = self.upstream.serve_manifest(OPEN, "some/app", "latest", manifest)
        self.assertEqual(self.get(OPEN, tag, ALICE).body, manifest)
        self.upstream.on("GET", OPEN + tag, Reply(200, {}, manifest))
        self.assertEqual(self.get(OPEN, tag, ALICE).body, manifest)
        self.assertFalse(self.stored(manifest))
        self.upstream.public.add(f"{OPEN}/some/app")
        self.clock.advance(3600)
        self.assertEqual(self.get(OPEN, tag, ALICE).body, manifest)
        self.assertTrue(self.stored(manifest))
