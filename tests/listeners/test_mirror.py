"""Tests for :mod:`regproxy.listeners.mirror`: one name for all registries."""

from __future__ import annotations

from typing import Final

from attrs import evolve

from regproxy.config.model import Auth, Config, HostPattern, InterceptionSection, MirrorSection
from regproxy.interfaces import ANYBODY
from regproxy.listeners.mirror import MirrorDoor, MirrorResource, MirrorSite
from regproxy.oci.names import DOCKER_HUB, Digest, Host
from regproxy.registry.guests import Guests
from regproxy.registry.resource import RegistryResource
from regproxy.registry.service import RegistryService
from regproxy.registry.tokens import Answerer
from regproxy.web.site import Entry, Limits
from tests.support.front import (
    DENY,
    MOVED,
    OPEN,
    OTHER,
    TEAM,
    Answer,
    Client,
    FrontTestCase,
)
from tests.support.upstream import Reply

MIRROR: Final = "mirror.test:5000"
MANIFEST: Final = b'{"schemaVersion": 2}'
BLOB: Final = b"content"
HUB_ALONE: Final = InterceptionSection((HostPattern.parse(DOCKER_HUB),))


class MirrorTestCase(FrontTestCase):
    """A mirror; ``get`` and ``head`` still go straight to a registry's name."""

    def before(self, service: RegistryService, config: Config) -> Answerer:
        resource = RegistryResource(Guests(service), config, self.clock, MirrorDoor(config))
        self.mirror = MirrorSite(
            MirrorResource(resource),
            Entry("mirror"),
            Limits(30.0, 300.0, 300.0),
            self.clock,
            self.log,
        )
        return service

    def through(self, target: str, method: str = "GET", body: bytes = b"", **fields: str) -> Answer:
        """What the mirror answers."""
        client = Client(self.mirror, self.clock, secure=False)
        sent = {"Host": MIRROR} | {name.replace("_", "-"): fields[name] for name in fields}
        client.send(method, target, sent, body)
        return client.answer()


class WaysTests(MirrorTestCase):
    """Which registry is asked, and for what."""

    def asks(self, target: str, host: str, asked: str) -> Answer:
        """Ask the mirror for something; see that *host* is asked for *asked*."""
        self.upstream.on("GET", host + asked, Reply(404, {}, b"{}"))
        answer = self.through(target)
        self.assertEqual(answer.status, 404)
        self.assertAsked(f"GET {host}{asked}")
        return answer

    def test_ns(self) -> None:
        answer = self.asks(f"/v2/app/tags/list?n=2&ns={OPEN}", OPEN, "/v2/app/tags/list?n=2")
        self.assertEqual(answer["OCI-Namespace"], OPEN)
        record = self.log.records[-1]
        self.assertEqual((record.way, record.registry), ("mirror", OPEN))
        self.assertEqual(record.repository, "app")

    def test_path(self) -> None:
        for name in MOVED, MOVED.replace(":", "_"):
            answer = self.asks(f"/v2/{name}/app/tags/list", MOVED, "/v2/app/tags/list")
            self.assertEqual(answer["OCI-Namespace"], name)

    def test_default(self) -> None:
        """Docker Hub, unless the configuration says something else."""
        asked = "/v2/library/alpine/tags/list"
        self.start(evolve(self.config, interception=HUB_ALONE))
        self.assertEqual(self.asks(asked, DOCKER_HUB, asked)["OCI-Namespace"], DOCKER_HUB)
        section = MirrorSection(default_registry=Host.parse(OTHER))
        self.start(evolve(self.config, mirror=section))
        self.assertEqual(self.asks(asked, OTHER, asked)["OCI-Namespace"], OTHER)

    def test_aliases(self) -> None:
        """Docker Hub is one registry, and called as the client calls it."""
        self.start(evolve(self.config, interception=HUB_ALONE))
        asked = "/v2/library/alpine/tags/list"
        for name in "docker.io", "index.docker.io", DOCKER_HUB:
            for target in f"{asked}?ns={name}", f"/v2/{name}/library/alpine/tags/list":
                self.assertEqual(self.asks(target, DOCKER_HUB, asked)["OCI-Namespace"], name)

    def test_not_allowed(self) -> None:
        """Hosts that are no registries of this proxy are refused, and told by name."""
        for target in "/v2/app/tags/list?ns=evil.example", "/v2/evil.example/app/tags/list":
            answer = self.through(target)
            self.assertEqual((answer.status, answer.error["code"]), (403, "DENIED"))
            self.assertIn("evil.example is not a registry of this proxy", answer.error["message"])
            self.assertEqual(answer["OCI-Namespace"], "evil.example")
        self.assertAsked()

    def test_malformed(self) -> None:
        for target, status in (
            ("/v2/app/tags/list?ns=", 400),
            (f"/v2/app/tags/list?ns={OPEN}&ns={OPEN}", 400),
            (f"/v2/../app/tags/list?ns={OPEN}", 400),
            (f"/v2/APP/tags/list?ns={OPEN}", 400),
            ("/", 404),
            ("/token?service=x", 404),
            (f"http://{MIRROR}/v2/{OPEN}/app/tags/list", 400),
        ):
            answer = self.through(target)
            self.assertEqual(answer.status, status, target)
        self.assertAsked()

    def test_ping(self) -> None:
        """It is about this mirror: no registry has to be there, and none wants a login."""
        for target in "/v2/", "/v2":
            for method in "GET", "HEAD":
                answer = self.through(target, method)
                self.assertEqual(answer.status, 200)
                self.assertEqual(answer.body, b"{}" if method == "GET" else b"")
                self.assertEqual(answer["Docker-Distribution-Api-Version"], "registry/2.0")
        self.assertAsked()

    def test_ping_of_a_registry(self) -> None:
        self.upstream.on("GET", f"{OPEN}/v2/", Reply(200, {}, b"{}"))
        for target in f"/v2/?ns={OPEN}", f"/v2/{OPEN}/", f"/v2/{OPEN}":
            self.assertEqual(self.through(target).status, 200)
            self.assertAsked(f"GET {OPEN}/v2/")


class TLSTests(MirrorTestCase):
    """Clients that try TLS on the plain port."""

    def send(self, *pieces: bytes) -> Client:
        client = Client(self.mirror, self.clock, secure=False)
        for piece in pieces:
            client.stream.send(piece)
        return client

    def test_refused(self) -> None:
        """At once, and with an answer that begins as HTTP does: Go's client knows that."""
        client = self.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        answer = client.answer()
        self.assertEqual((answer.status, answer["Connection"]), (400, "close"))
        self.assertIn("without TLS", answer.error["message"])
        self.assertTrue(client.stream.write_closed or client.stream.disconnecting)
        (record,) = self.log.records
        self.assertEqual((record.way, record.status), ("mirror", 400))

    def test_body(self) -> None:
        """Only the first byte of a connection can be one: a body has all."""
        target = f"{OPEN}/v2/app/blobs/uploads/7"
        self.upstream.on("PATCH", target, Reply(202))
        head = f"PATCH /v2/app/blobs/uploads/7?ns={OPEN} HTTP/1.1\r\nHost: x\r\n"
        client = self.send(head.encode() + b"Content-Length: 2\r\n\r\n", b"\x16\x16")
        client.answer()
        self.assertEqual(self.upstream.asked[0].body, b"\x16\x16")


class ContentTests(MirrorTestCase):
    """It is the same store, whichever way a request came in."""

    def test_one_store(self) -> None:
        """What came by one way is there by the others, and nothing is asked twice."""
        target = self.upstream.serve_blob(OPEN, "app", BLOB)
        path = target.removeprefix("/v2/")
        self.assertEqual(self.through(f"/v2/{OPEN}/{path}").body, BLOB)
        self.assertAsked(f"GET {OPEN}{target}")
        for answer in self.through(f"{target}?ns={OPEN}"), self.get(OPEN, target):
            self.assertEqual((answer.body, answer["Cache-Status"]), (BLOB, "regproxy; hit"))
        self.assertAsked()

    def test_tag(self) -> None:
        target = self.upstream.serve_manifest(OPEN, "app", "latest", MANIFEST)
        self.assertEqual(self.through(f"{target}?ns={OPEN}").body, MANIFEST)
        self.assertAsked(f"GET {OPEN}{target}")
        answer = self.through(f"{target}?ns={OPEN}", "HEAD")
        self.assertEqual(answer["Docker-Content-Digest"], str(Digest.of(MANIFEST)))
        self.assertEqual(answer["OCI-Namespace"], OPEN)
        self.assertAsked(f"HEAD {OPEN}{target}")

    def test_registries_are_apart(self) -> None:
        """Two registries never share a tag, here neither."""
        for host, content in (OPEN, MANIFEST), (OTHER, MANIFEST + b"\n"):
            target = self.upstream.serve_manifest(host, "app", "latest", content)
            self.assertEqual(self.through(f"/v2/{host}/app/manifests/latest").body, content)
            self.assertEqual(self.through(f"{target}?ns={host}").body, content)


class LoginTests(MirrorTestCase):
    """Clients are not made to log in, and may."""

    def test_guest(self) -> None:
        """The proxy goes through the challenge, as anybody may."""
        target = self.upstream.serve_blob(OPEN, "app", BLOB)
        self.through(f"{target}?ns={OPEN}")
        self.assertEqual([asked.authorization for asked in self.upstream.asked], [ANYBODY])

    def test_login(self) -> None:
        """A client's own goes where the client named, and nowhere else."""
        target = self.upstream.serve_blob(OPEN, "app", BLOB)
        self.through(f"{target}?ns={OPEN}", Authorization="Bearer alice")
        self.assertEqual([asked.authorization for asked in self.upstream.asked], [b"Bearer alice"])

    def test_challenge(self) -> None:
        """A refusal is passed on as it is: to log in, clients go to the registry's own realm."""
        challenge = 'Bearer realm="https://auth.example.com/token",service="x"'
        target = f"/v2/app/blobs/{Digest.of(BLOB)}"
        self.upstream.on("GET", OPEN + target, Reply(401, {"WWW-Authenticate": challenge}, b"{}"))
        answer = self.through(f"{target}?ns={OPEN}")
        self.assertEqual((answer.status, answer["WWW-Authenticate"]), (401, challenge))

    def test_inject(self) -> None:
        """The proxy's login is used here, too."""
        target = self.upstream.serve_blob(TEAM, "app", BLOB)
        self.assertEqual(self.through(f"{target}?ns={TEAM}").body, BLOB)
        (asked,) = self.upstream.asked
        self.assertEqual((asked.authorization, asked.inject), (None, True))
        self.assertIs(self.config.registry(Host.parse(TEAM)).effective_auth, Auth.INJECT)


class PushTests(MirrorTestCase):
    """Uploads, and lists that go on: what refers to more leads back here."""

    def test_upload(self) -> None:
        """The location of an upload, relative or at the upstream's address."""
        for location, expected in (
            ("/v2/app/blobs/uploads/7?_state=x", "/v2/app/blobs/uploads/7?_state=x&ns="),
            ("https://192.0.2.7:5000/v2/app/blobs/uploads/7", "/v2/app/blobs/uploads/7?ns="),
            (f"https://{MOVED}/v2/app/blobs/uploads/7", "/v2/app/blobs/uploads/7?ns="),
        ):
            self.upstream.on(
                "POST", f"{MOVED}/v2/app/blobs/uploads/", Reply(202, {"Location": location})
            )
            answer = self.through(f"/v2/app/blobs/uploads/?ns={MOVED}", "POST")
            self.assertEqual(answer["Location"], expected + MOVED.replace(":", "%3A"))
            self.assertAsked(f"POST {MOVED}/v2/app/blobs/uploads/")
            there = expected.partition("ns=")[0].rstrip("?&")
            self.upstream.on("PUT", MOVED + there, Reply(201))
            put = self.through(answer["Location"] or "", "PUT", BLOB)
            self.assertEqual(put.status, 201)
            self.assertEqual(self.upstream.asked[-1].body, BLOB)
            self.assertAsked(f"PUT {MOVED}{there}")

    def test_elsewhere(self) -> None:
        """A location at a third place is the client's to go to."""
        location = "https://storage.example/upload?sig=1"
        self.upstream.on(
            "POST", f"{OPEN}/v2/app/blobs/uploads/", Reply(202, {"Location": location})
        )
        answer = self.through(f"/v2/{OPEN}/app/blobs/uploads/", "POST")
        self.assertEqual(answer["Location"], location)

    def test_mount(self) -> None:
        """The query of a mount is the registry's, but for ``ns``."""
        target = "/v2/app/blobs/uploads/?mount=sha256:0&from=other"
        self.upstream.on("POST", OPEN + target, Reply(201))
        self.assertEqual(self.through(f"{target}&ns={OPEN}", "POST").status, 201)

    def test_push_has_no_guests(self) -> None:
        """Who pushes without a login is asked for one by the registry."""
        target = "/v2/app/manifests/latest"
        self.upstream.on("PUT", OPEN + target, Reply(401))
        self.assertEqual(self.through(f"{target}?ns={OPEN}", "PUT", MANIFEST).status, 401)
        self.assertEqual([asked.authorization for asked in self.upstream.asked], [None])

    def test_unnamed(self) -> None:
        """A push that does not say where to goes nowhere."""
        self.start(evolve(self.config, interception=HUB_ALONE))
        for method, target in (
            ("POST", "/v2/app/blobs/uploads/"),
            ("PUT", "/v2/app/manifests/latest"),
            ("DELETE", "/v2/app/manifests/latest"),
            ("POST", "/v2/"),
        ):
            answer = self.through(target, method)
            self.assertEqual((answer.status, answer["Allow"]), (405, "GET, HEAD"))
        self.assertAsked()

    def test_denied(self) -> None:
        answer = self.through(f"/v2/{DENY}/app/blobs/uploads/", "POST")
        self.assertEqual((answer.status, answer["Allow"]), (405, "GET, HEAD"))
        self.assertAsked()

    def test_pages(self) -> None:
        """A list goes on where it began, whichever way the registry was named."""
        for target in f"/v2/app/tags/list?n=2&ns={OPEN}", f"/v2/{OPEN}/app/tags/list?n=2":
            link = '</v2/app/tags/list?n=2&last=b>; rel="next"'
            self.upstream.on(
                "GET", f"{OPEN}/v2/app/tags/list?n=2", Reply(200, {"Link": link}, b"{}")
            )
            answer = self.through(target)
            self.assertEqual(
                answer["Link"], f'</v2/app/tags/list?n=2&last=b&ns={OPEN}>; rel="next"'
            )
            following = "/v2/app/tags/list?n=2&last=b"
            self.upstream.on("GET", OPEN + following, Reply(200, {}, b"{}"))
            self.assertEqual(self.through(f"{following}&ns={OPEN}").status, 200)
            self.assertAsked(f"GET {OPEN}/v2/app/tags/list?n=2", f"GET {OPEN}{following}")

    def test_upstream_is_a_mirror(self) -> None:
        """Its namespace is not ours."""
        headers = {"OCI-Namespace": "theirs.example"}
        self.upstream.on("GET", f"{OPEN}/v2/app/tags/list", Reply(200, headers, b"{}"))
        self.assertEqual(self.through(f"/v2/{OPEN}/app/tags/list")["OCI-Namespace"], OPEN)
