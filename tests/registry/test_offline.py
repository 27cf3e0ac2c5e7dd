"""What can be pulled when upstream cannot be asked, or wants not to be."""

from __future__ import annotations

import errno
import json

from attrs import evolve
from twisted.internet.defer import Deferred, ensureDeferred

from regproxy.config.model import Access
from regproxy.oci.media_types import DEFAULT_ACCEPT, normalise_accept
from regproxy.oci.names import Digest, Host, Repository, Tag
from regproxy.store.fill import Fill
from regproxy.upstream.errors import UpstreamUnreachable
from tests.support.front import OPEN, Client, FrontTestCase
from tests.support.upstream import Reply

MANIFEST = b'{"schemaVersion": 2}'
BLOB = bytes(range(256)) * 20
ALICE = "Bearer alice"
OCI = "application/vnd.oci.image.manifest.v1+json"
REALM = "/token?service=registry&scope=repository:some/app:pull"


class OfflineTestCase(FrontTestCase):
    """An image that was pulled."""

    def setUp(self) -> None:
        super().setUp()
        self.tag = self.upstream.serve_manifest(OPEN, "some/app", "latest", MANIFEST)
        self.manifest = f"/v2/some/app/manifests/{Digest.of(MANIFEST)}"
        self.blob = self.upstream.serve_blob(OPEN, "some/app", BLOB)

    def pull(self, login: str | None = None, accept: str = OCI) -> list[int]:
        """Pull as clients do; the statuses."""
        targets = "/v2/", self.tag, self.manifest, self.blob
        return [self.get(OPEN, target, login, Accept=accept).status for target in targets]

    def lose_upstream(self) -> None:
        for target in "/v2/", REALM, self.tag, self.manifest, self.blob:
            for method in "GET", "HEAD":
                self.upstream.on(method, OPEN + target, UpstreamUnreachable("gone"))
        self.upstream.anonymous_failure = UpstreamUnreachable("gone")


class UpstreamGoneTests(OfflineTestCase):
    """Upstream is unreachable."""

    def setUp(self) -> None:
        super().setUp()
        self.upstream.on("GET", f"{OPEN}/v2/", Reply(200))

    def test_public(self) -> None:
        """Whoever asks, with whatever login: it was readable by anybody."""
        self.pull()
        self.lose_upstream()
        for login in None, ALICE:
            self.assertEqual(self.pull(login), [200, 200, 200, 200])

    def test_found_to_be_public(self) -> None:
        """All that was pulled was pulled with tokens; this proxy found out."""
        self.upstream.public.add(f"{OPEN}/some/app")
        self.pull(ALICE)
        self.lose_upstream()
        self.assertEqual(self.pull(), [200, 200, 200, 200])

    def test_longer_than_that_counts_online(self) -> None:
        self.pull()
        self.lose_upstream()
        self.clock.advance(6 * 24 * 3600)
        self.assertEqual(self.pull("Bearer bob"), [200, 200, 200, 200])
        self.clock.advance(24 * 3600 + 1)
        ping, tag, manifest, blob = self.pull("Bearer bob")
        self.assertEqual((ping, tag, manifest, blob), (200, 502, 503, 503))

    def test_private(self) -> None:
        """It is refused, and says why."""
        self.pull(ALICE)
        self.lose_upstream()
        self.clock.advance(300)
        self.assertEqual(self.pull(ALICE), [200, 503, 503, 503])
        answer = self.get(OPEN, self.blob, ALICE)
        self.assertIn("cannot say whether you may read it", answer.error["message"])

    def test_shared(self) -> None:
        host = Host.parse(OPEN)
        section = evolve(self.config.registry(host), access=Access.SHARED)
        self.start(evolve(self.config, registries=self.config.registries | {host: section}))
        self.pull(ALICE)
        self.lose_upstream()
        self.assertEqual(self.pull(), [200, 200, 200, 200])

    def test_ping_of_a_stranger(self) -> None:
        """Nothing of this registry could be pulled: the error is the better answer."""
        self.lose_upstream()
        self.assertEqual(self.get(OPEN, "/v2/").status, 502)

    def test_ping_that_fails(self) -> None:
        """An upstream that answers with its own failure is as good as none."""
        self.pull()
        self.upstream.on("GET", f"{OPEN}/v2/", Reply(503, {}, b"maintenance"))
        answer = self.get(OPEN, "/v2/")
        self.assertEqual((answer.status, answer.body), (200, b"{}"))

    def test_token(self) -> None:
        """It lets the client go on, and nothing else."""
        self.lose_upstream()
        answer = self.get(OPEN, REALM)
        self.assertEqual(answer.status, 200)
        self.assertEqual(json.loads(answer.body)["token"], "offline")
        self.upstream.on("GET", f"{OPEN}/other", UpstreamUnreachable("gone"))
        self.assertEqual(self.get(OPEN, "/other").status, 502)

    def test_token_for_a_form(self) -> None:
        """As containerd asks that has a login: it takes a 502 for the end."""
        form = b"grant_type=password&service=registry&username=alice&password=a"
        fields = {"Content-Type": "application/x-www-form-urlencoded"}
        for failure in UpstreamUnreachable("gone"), Reply(503):
            self.upstream.on("POST", f"{OPEN}/token", failure)
            answer = self.ask("POST", OPEN, "/token", body=form, **fields).answer()
            self.assertEqual(answer.status, 200)
            self.assertEqual(json.loads(answer.body)["access_token"], "offline")
        self.assertEqual(self.ask("POST", OPEN, "/token", body=b"{}").answer().status, 503)
        self.upstream.on("POST", f"{OPEN}/token", Reply(401, {}, b"no"))
        self.assertEqual(self.ask("POST", OPEN, "/token", body=form, **fields).answer().status, 401)


class AdoptedTests(OfflineTestCase):
    """The operator has put an image into a repository that is not known to be public."""

    def setUp(self) -> None:
        super().setUp()
        manifest = Digest.of(MANIFEST)
        content = {manifest: OCI, Digest.of(BLOB): "application/octet-stream"}
        for each in MANIFEST, BLOB:
            self.successResultOf(ensureDeferred(self.store.put(Digest.of(each), each)))
        tagged = Tag("latest"), normalise_accept([DEFAULT_ACCEPT.encode()]), manifest
        host, repository = Host.parse(OPEN), Repository("some/app")
        self.successResultOf(
            self.index.curation.adopt(host, repository, content, tagged, self.now())
        )
        self.upstream.on("GET", f"{OPEN}/v2/", Reply(200))

    def test_without_upstream(self) -> None:
        """Whoever asks, and from the first question on."""
        self.lose_upstream()
        for login in None, ALICE:
            self.assertEqual(self.pull(login), [200, 200, 200, 200])
        answer = self.get(OPEN, self.tag, Accept=OCI)
        self.assertEqual(answer.body, MANIFEST)
        self.assertIn("299", answer["Warning"] or "")

    def test_not_for_ever(self) -> None:
        self.lose_upstream()
        self.clock.advance(7 * 24 * 3600 - 1)
        self.assertEqual(self.pull(), [200, 200, 200, 200])
        self.clock.advance(2)
        self.assertEqual(self.pull(), [200, 502, 503, 503])

    def test_with_upstream(self) -> None:
        """Its word counts: nothing is opened that it keeps closed."""
        for target in self.tag, self.manifest, self.blob:
            for method in "GET", "HEAD":
                self.upstream.on(method, OPEN + target, Reply(401))
        self.assertEqual(self.pull(), [200, 401, 401, 401])

    def test_the_rest_of_the_repository(self) -> None:
        """What a client with a login has brought of it is no more open than before."""
        target = self.upstream.serve_blob(OPEN, "some/app", b"private")
        self.assertEqual(self.get(OPEN, target, ALICE).status, 200)
        self.lose_upstream()
        for method in "GET", "HEAD":
            self.upstream.on(method, OPEN + target, UpstreamUnreachable("gone"))
        self.assertEqual(self.get(OPEN, target).status, 503)
        self.assertEqual(self.get(OPEN, self.blob).status, 200)

    def test_of_another_repository(self) -> None:
        self.lose_upstream()
        target = f"/v2/other/app/blobs/{Digest.of(BLOB)}"
        self.upstream.on("HEAD", OPEN + target, UpstreamUnreachable("gone"))
        self.assertEqual(self.get(OPEN, target).status, 503)


class DiskTests(OfflineTestCase):
    """The disk does not take a manifest that came without its digest."""

    def test_passes(self) -> None:
        self.upstream.on("GET", OPEN + self.tag, Reply(200, {"Content-Type": OCI}, MANIFEST))
        self.patch(self.store, "begin", self.full)
        answer = self.get(OPEN, self.tag, Accept=OCI)
        self.assertEqual((answer.status, answer.body, answer.whole), (200, MANIFEST, True))
        self.assertIn("disk-error", answer["Cache-Status"] or "")

    async def full(self, *_: object) -> Fill:
        raise OSError(errno.ENOSPC, "no space left on device")


class WithoutHeadTests(OfflineTestCase):
    """A registry that answers no HEAD of content by digest."""

    def test_head(self) -> None:
        self.upstream.on("HEAD", OPEN + self.blob, Reply(405))
        answer = self.head(OPEN, self.blob)
        self.assertEqual((answer.status, answer["Content-Length"]), (200, str(len(BLOB))))
        self.assertAsked(f"HEAD {OPEN}{self.blob}", f"GET {OPEN}{self.blob}")


class VariantTests(OfflineTestCase):
    """A tag that another kind of client pulled."""

    def test_costs_no_get(self) -> None:
        self.get(OPEN, self.tag, Accept=OCI)
        self.upstream.questions()
        answer = self.get(OPEN, self.tag, Accept=f"{OCI}, application/json")
        self.assertEqual((answer.status, answer.body), (200, MANIFEST))
        self.assertAsked(f"HEAD {OPEN}{self.tag}")

    def test_not_what_it_accepts(self) -> None:
        self.get(OPEN, self.tag, Accept=OCI)
        self.upstream.questions()
        self.get(OPEN, self.tag, Accept="application/json")
        self.assertAsked(f"GET {OPEN}{self.tag}")

    def test_upstream_has_something_better(self) -> None:
        self.get(OPEN, self.tag, Accept=OCI)
        better = b'{"schemaVersion": 2, "manifests": []}'
        self.upstream.serve_manifest(OPEN, "some/app", "latest", better)
        answer = self.get(OPEN, self.tag, Accept=f"{OCI}, application/json")
        self.assertEqual(answer.body, better)

    def test_never_fresh(self) -> None:
        """What is fresh for one kind of client is not for another."""
        self.fresh_for(3600)
        self.get(OPEN, self.tag, Accept=OCI)
        self.upstream.questions()
        self.get(OPEN, self.tag, Accept=f"{OCI}, application/json")
        self.assertAsked(f"HEAD {OPEN}{self.tag}")


class CoalescedTests(OfflineTestCase):
    """Several clients ask for one stored tag at once."""

    def setUp(self) -> None:
        super().setUp()
        self.get(OPEN, self.tag, Accept=OCI)
        self.upstream.questions()
        self.said: Deferred[Reply] = Deferred()
        self.upstream.on("HEAD", OPEN + self.tag, self.said)

    def clients(self, *logins: str | None) -> list[Client]:
        return [self.ask("GET", OPEN, self.tag, login, Accept=OCI) for login in logins]

    def test_one_question(self) -> None:
        clients = self.clients(None, None, None)
        digest = str(Digest.of(MANIFEST))
        self.said.callback(Reply(200, {"Docker-Content-Digest": digest, "Content-Type": OCI}))
        for client in clients:
            self.assertEqual((client.answer().status, client.answer().body), (200, MANIFEST))
        self.assertIn("collapsed", clients[2].answer()["Cache-Status"] or "")
        self.assertAsked(f"HEAD {OPEN}{self.tag}")

    def test_each_login_for_itself(self) -> None:
        other: Deferred[Reply] = Deferred()
        self.upstream.on("HEAD", OPEN + self.tag, self.said, other)
        self.upstream.on("GET", OPEN + self.tag, Reply(401))
        clients = self.clients(ALICE, "Bearer bob")
        self.assertAsked(f"HEAD {OPEN}{self.tag}", f"HEAD {OPEN}{self.tag}")
        other.callback(Reply(401))
        digest = str(Digest.of(MANIFEST))
        self.said.callback(Reply(200, {"Docker-Content-Digest": digest, "Content-Type": OCI}))
        self.assertEqual([client.answer().status for client in clients], [200, 401])

    def test_failure(self) -> None:
        """Nobody waits for a second one."""
        clients = self.clients(None, None, None)
        self.said.errback(UpstreamUnreachable("gone"))
        for client in clients:
            answer = client.answer()
            self.assertEqual((answer.status, answer.body), (200, MANIFEST))
            self.assertIn("299", answer["Warning"] or "")
        self.assertAsked(f"HEAD {OPEN}{self.tag}")

    def test_refusal(self) -> None:
        """It is each one's own."""
        clients = self.clients(ALICE, ALICE)
        self.upstream.on("GET", OPEN + self.tag, Reply(403))
        self.said.callback(Reply(403))
        for client in clients:
            self.assertEqual(client.answer().status, 403)


class RateLimitTests(OfflineTestCase):
    """Upstream answers 429."""

    def setUp(self) -> None:
        super().setUp()
        self.get(OPEN, self.tag, Accept=OCI)
        self.upstream.on("HEAD", OPEN + self.tag, Reply(429, {"Retry-After": "60"}), Reply(500))

    def test_stored(self) -> None:
        """It is served, and upstream is asked again only after the wait."""
        self.upstream.questions()
        for _ in range(3):
            answer = self.get(OPEN, self.tag, Accept=OCI)
            self.assertEqual((answer.status, answer.body), (200, MANIFEST))
            self.assertIn("299", answer["Warning"] or "")
        self.assertAsked(f"HEAD {OPEN}{self.tag}")
        self.clock.advance(60)
        self.get(OPEN, self.tag, Accept=OCI)
        self.assertAsked(f"HEAD {OPEN}{self.tag}")

    def test_not_stored(self) -> None:
        """It is said when to come again."""
        self.get(OPEN, self.tag, Accept=OCI)
        self.upstream.questions()
        answer = self.get(OPEN, self.blob)
        self.assertEqual((answer.status, answer["Retry-After"]), (429, "60"))
        self.assertEqual(answer.error["code"], "TOOMANYREQUESTS")
        self.assertAsked()
