"""Registries with mirrors: who brings bytes, and whose word counts for what."""

from __future__ import annotations

from attrs import evolve

from regproxy.config.model import Access
from regproxy.oci.media_types import OCI_MANIFEST
from regproxy.oci.names import Digest, Host
from regproxy.policy.upstreams import Sources
from regproxy.upstream.errors import UpstreamUnreachable
from tests.support.front import FIRST, MIRRORED, FrontTestCase
from tests.support.upstream import READS, Reply

MANIFEST = b'{"schemaVersion": 2}'
OTHER = b'{"schemaVersion": 2, "x": 1}'
BLOB = bytes(range(256)) * 20
DIGEST = str(Digest.of(MANIFEST))
ALICE = "Bearer alice"
BOB = "Bearer bob"
GONE = UpstreamUnreachable("gone")
DAY = 24 * 3600


def described(content: bytes, media_type: str = OCI_MANIFEST) -> Reply:
    """An answer with *content*."""
    headers = {"Content-Type": media_type, "Docker-Content-Digest": str(Digest.of(content))}
    return Reply(200, headers, content)


class MirrorTestCase(FrontTestCase):
    """An image at a registry and at its mirror."""

    host = MIRRORED

    def setUp(self) -> None:
        super().setUp()
        self.tag = self.upstream.serve_manifest(self.host, "some/app", "latest", MANIFEST)
        self.manifest = f"/v2/some/app/manifests/{DIGEST}"
        self.blob = self.upstream.serve_blob(self.host, "some/app", BLOB)
        self.mirror(self.blob, described(BLOB, "application/octet-stream"))
        self.mirror(self.manifest, described(MANIFEST))
        self.mirror(self.tag, described(MANIFEST))
        self.at_mirror = f"mirror of {self.host}"

    def mirror(self, target: str, *replies: Reply | Exception) -> None:
        """The mirror says so."""
        for method in READS:
            self.upstream.on(method, self.host + target, *replies, mirror=True)

    def origin(self, *replies: Reply | Exception) -> None:
        """The registry says so, to everything."""
        for target in self.tag, self.manifest, self.blob, "/v2/":
            for method in READS:
                self.upstream.on(method, self.host + target, *replies)

    def share(self) -> None:
        """Have whoever may use the proxy read all of the registry."""
        host = Host.parse(self.host)
        section = evolve(self.config.registry(host), access=Access.SHARED)
        self.start(evolve(self.config, registries=self.config.registries | {host: section}))


class BytesTests(MirrorTestCase):
    """``tag_source = "origin"``: mirrors bring bytes, and the registry decides."""

    def test_pull(self) -> None:
        """The tag comes from the registry, which lets the client read; the rest from the mirror."""
        for login in None, ALICE:
            self.setUp()
            self.assertEqual(self.get(self.host, self.tag, login).body, MANIFEST)
            self.assertAsked(f"GET {self.host}{self.tag}")
            self.assertEqual(self.get(self.host, self.blob, login).body, BLOB)
            self.assertAsked(f"GET {self.at_mirror}{self.blob}")

    def test_pull_by_digest(self) -> None:
        """The first object comes from the registry, whose answer is a permission for the rest."""
        self.get(self.host, self.manifest, ALICE)
        self.assertAsked(f"GET {self.host}{self.manifest}")
        self.get(self.host, self.blob, ALICE)
        self.assertAsked(f"GET {self.at_mirror}{self.blob}")

    def test_not_let(self) -> None:
        """A mirror that would give it to anybody is not asked for a client that may not read."""
        self.origin(Reply(401))
        for target in self.manifest, self.blob, self.tag:
            for login in None, BOB:
                self.assertEqual(self.get(self.host, target, login).status, 401)
        asked = {question.sources for question in self.upstream.asked}
        self.assertEqual(asked, {Sources.ORIGIN})

    def test_stored_is_not_let_either(self) -> None:
        """What the mirror brought for Alice, Bob gets when the registry lets him."""
        self.get(self.host, self.tag, ALICE)
        self.get(self.host, self.blob, ALICE)
        self.upstream.questions()
        self.origin(Reply(403))
        for login in None, BOB:
            self.assertEqual(self.get(self.host, self.blob, login).status, 403)
            self.assertAsked(f"HEAD {self.host}{self.blob}")

    def test_mirror_has_it_not(self) -> None:
        for said in Reply(404), Reply(401), Reply(503), GONE:
            self.setUp()
            self.get(self.host, self.tag, ALICE)
            self.upstream.questions()
            self.mirror(self.blob, said)
            self.assertEqual(self.get(self.host, self.blob, ALICE).body, BLOB)
            self.assertAsked(f"GET {self.at_mirror}{self.blob}", f"GET {self.host}{self.blob}")

    def test_shared(self) -> None:
        """Where nobody is looked at, the mirror is asked at once, without the registry."""
        self.share()
        self.origin(GONE)
        self.assertEqual(self.get(self.host, self.blob).body, BLOB)
        self.assertAsked(f"GET {self.at_mirror}{self.blob}")

    def test_registry_is_gone(self) -> None:
        """What anybody could read when it was last there comes from the mirror."""
        self.get(self.host, self.tag)
        self.clock.advance(DAY)
        self.origin(GONE)
        self.upstream.questions()
        self.assertEqual(self.get(self.host, self.blob).body, BLOB)
        self.assertAsked(f"GET {self.host}{self.blob}", f"GET {self.at_mirror}{self.blob}")
        self.clock.advance(7 * DAY)
        self.mirror(self.manifest, described(MANIFEST))
        self.assertEqual(self.get(self.host, self.blob).status, 503)

    def test_registry_is_gone_and_private(self) -> None:
        """Then nobody can say who may read."""
        self.origin(GONE)
        self.assertEqual(self.get(self.host, self.blob, ALICE).status, 502)
        self.assertAsked(f"GET {self.host}{self.blob}")

    def test_head(self) -> None:
        """A client's HEAD is answered by the registry."""
        self.get(self.host, self.tag, ALICE)
        self.upstream.questions()
        self.assertEqual(self.head(self.host, self.blob, ALICE).status, 200)
        self.assertAsked(f"HEAD {self.host}{self.blob}")

    def test_page_of_html(self) -> None:
        """A mirror in maintenance that says 200 is passed over, like every 2xx that is none."""
        for strange in Reply(200, {"Content-Type": "text/html"}, b"<p>soon"), Reply(204):
            self.setUp()
            self.get(self.host, self.tag, ALICE)
            self.mirror(self.manifest, strange)
            self.mirror(f"/v2/some/app/manifests/{Digest.of(OTHER)}", strange)
            self.upstream.serve_manifest(self.host, "some/app", "other", OTHER)
            target = f"/v2/some/app/manifests/{Digest.of(OTHER)}"
            self.assertEqual(self.get(self.host, target, ALICE).body, OTHER)

    def test_wrong_content(self) -> None:
        """No client gets it whole, it is not kept, and the mirror is said to be wrong."""
        self.get(self.host, self.tag, ALICE)
        self.mirror(self.blob, Reply(200, {}, b"x" * len(BLOB)))
        self.assertEqual(self.get(self.host, self.blob, ALICE).status, 502)
        self.assertFalse(self.stored(BLOB))
        ((_, wrong),) = self.upstream.responses[-1].complaints
        self.assertTrue(wrong)

    def test_breaks_off(self) -> None:
        """The mirror is said to have failed; the transfer asks for the rest, and is whole."""
        self.get(self.host, self.tag, ALICE)
        self.mirror(self.blob, Reply(200, {}, None, len(BLOB)), Reply(503))
        rest = {"Content-Range": f"bytes 1000-{len(BLOB) - 1}/{len(BLOB)}"}
        self.upstream.on("GET", self.host + self.blob, Reply(206, rest, BLOB[1000:]))
        client = self.ask("GET", self.host, self.blob, ALICE)
        response = self.upstream.responses[-1]
        response.send(BLOB[:1000])
        response.break_off()
        self.assertEqual([wrong for _, wrong in response.complaints], [False])
        self.clock.advance(10)
        self.assertEqual(client.answer().body, BLOB)
        self.assertTrue(self.stored(BLOB))

    def test_mixed_and_wrong(self) -> None:
        """Who of several was wrong does not show: all mirrors that took part are left alone."""
        self.get(self.host, self.tag, ALICE)
        rest = {"Content-Range": f"bytes 1000-{len(BLOB) - 1}/{len(BLOB)}"}
        self.mirror(
            self.blob, Reply(200, {}, None, len(BLOB)), Reply(206, rest, b"x" * (len(BLOB) - 1000))
        )
        client = self.ask("GET", self.host, self.blob, ALICE)
        first = self.upstream.responses[-1]
        first.send(BLOB[:1000])
        first.break_off()
        self.clock.advance(10)
        self.assertFalse(client.answer().whole)
        second = self.upstream.responses[-1]
        for response in first, second:
            self.assertTrue(response.complaints[-1][1])

    def test_grant_ends_meanwhile(self) -> None:
        """A transfer goes on as it began, however long it takes."""
        self.get(self.host, self.tag, ALICE)
        rest = {"Content-Range": f"bytes 1000-{len(BLOB) - 1}/{len(BLOB)}"}
        self.mirror(self.blob, Reply(200, {}, None, len(BLOB)), Reply(206, rest, BLOB[1000:]))
        client = self.ask("GET", self.host, self.blob, ALICE)
        response = self.upstream.responses[-1]
        response.send(BLOB[:1000])
        response.pause()
        self.clock.advance(600)
        self.upstream.questions()
        response.break_off()
        self.clock.advance(60)
        self.assertEqual(client.answer().body, BLOB)

    def test_ping_and_lists(self) -> None:
        """What is no content is the registry's."""
        for target in "/v2/", "/v2/some/app/tags/list", "/v2/some/app/referrers/" + DIGEST:
            self.upstream.on("GET", self.host + target, Reply(200))
            self.assertEqual(self.get(self.host, target).status, 200)
            self.assertAsked(f"GET {self.host}{target}")


class FirstTests(MirrorTestCase):
    """``tag_source = "first"``: the first that answers says what a tag is."""

    host = FIRST

    def test_pull(self) -> None:
        """Without the registry."""
        self.origin(GONE)
        self.assertEqual(self.get(self.host, self.tag).body, MANIFEST)
        self.assertEqual(self.get(self.host, self.blob).body, BLOB)
        self.assertAsked(f"GET {self.at_mirror}{self.tag}", f"GET {self.at_mirror}{self.blob}")

    def test_warm(self) -> None:
        """Tags are asked for each time, and so is each object while nobody knows who may read."""
        self.get(self.host, self.tag)
        self.get(self.host, self.blob)
        self.upstream.questions()
        self.origin(GONE)
        self.assertEqual(self.get(self.host, self.tag).body, MANIFEST)
        self.assertEqual(self.get(self.host, self.blob).body, BLOB)
        self.assertAsked(
            f"HEAD {self.at_mirror}{self.tag}",
            f"HEAD {self.at_mirror}{self.manifest}",
            f"HEAD {self.at_mirror}{self.blob}",
        )

    def test_found_to_be_public(self) -> None:
        """Not when the registry, asked once, says that anybody may read."""
        self.upstream.public.add(f"{self.host}/some/app")
        self.get(self.host, self.tag, ALICE)
        self.get(self.host, self.blob, ALICE)
        self.upstream.questions()
        for login in None, BOB:
            self.assertEqual(self.get(self.host, self.blob, login).body, BLOB)
        self.assertAsked()

    def test_mirror_is_no_permission(self) -> None:
        """What it gives to anybody opens nothing else of the repository."""
        secret = b"secret" * 100
        target = self.upstream.serve_blob(self.host, "some/app", secret)
        self.get(self.host, target, ALICE)
        self.get(self.host, self.blob)
        self.get(self.host, self.tag)
        self.upstream.questions()
        for login in None, BOB:
            self.upstream.on("HEAD", self.host + target, Reply(401))
            self.assertEqual(self.get(self.host, target, login).status, 401)
            self.assertAsked(f"HEAD {self.host}{target}")

    def test_mirror_has_it_not(self) -> None:
        """Private images are the registry's, with the client's login."""
        self.mirror(self.tag, Reply(404))
        self.assertEqual(self.get(self.host, self.tag, ALICE).body, MANIFEST)
        self.assertAsked(f"GET {self.at_mirror}{self.tag}", f"GET {self.host}{self.tag}")
        self.origin(Reply(401))
        self.assertEqual(self.get(self.host, self.tag, BOB).status, 401)

    def test_moved(self) -> None:
        """A tag that moved at the mirror has moved."""
        self.get(self.host, self.tag)
        self.mirror(self.tag, described(OTHER))
        self.mirror(f"/v2/some/app/manifests/{Digest.of(OTHER)}", described(OTHER))
        self.assertEqual(self.get(self.host, self.tag).body, OTHER)

    def test_head_without_digest(self) -> None:
        """A mirror that does not tell it is no reason to do without HEAD."""
        self.get(self.host, self.tag)
        self.upstream.questions()
        self.mirror(self.tag, Reply(200, {"Content-Type": OCI_MANIFEST}, MANIFEST))
        for _ in range(2):
            self.assertEqual(self.get(self.host, self.tag).body, MANIFEST)
            self.assertEqual(
                self.upstream.questions()[:2],
                [f"HEAD {self.at_mirror}{self.tag}", f"HEAD {self.host}{self.tag}"],
            )

    def test_get_without_digest(self) -> None:
        self.mirror(self.tag, Reply(200, {"Content-Type": OCI_MANIFEST}, MANIFEST))
        self.assertEqual(self.get(self.host, self.tag).body, MANIFEST)
        self.assertAsked(f"GET {self.at_mirror}{self.tag}")
        self.assertTrue(self.stored(MANIFEST))

    def test_page_of_html(self) -> None:
        self.mirror(self.tag, Reply(200, {"Content-Type": "text/html"}, b"<p>soon"))
        self.assertEqual(self.get(self.host, self.tag).body, MANIFEST)

    def test_ping(self) -> None:
        """It is the registry's, which says how to log in; without it, a pull may begin."""
        self.upstream.on("GET", f"{self.host}/v2/", Reply(401))
        self.assertEqual(self.get(self.host, "/v2/").status, 401)
        self.origin(GONE)
        self.assertEqual(self.get(self.host, "/v2/").status, 200)

    def test_all_gone(self) -> None:
        """What is stored is served, if it was public."""
        self.upstream.public.add(f"{self.host}/some/app")
        self.get(self.host, self.tag)
        self.get(self.host, self.blob)
        self.origin(GONE)
        self.upstream.anonymous_failure = GONE
        for target in self.tag, self.manifest, self.blob:
            self.mirror(target, GONE)
        self.clock.advance(DAY)
        for target in self.tag, self.manifest, self.blob:
            self.assertEqual(self.get(self.host, target).status, 200)


class PatienceTests(MirrorTestCase):
    """Who says that it need not wait for a registry that is known to be down"""

    def patience(self) -> list[float | None]:
        found = [asked.patience for asked in self.upstream.asked]
        self.upstream.asked.clear()
        return found

    def test_cold(self) -> None:
        """Nothing else to answer with: it is waited for."""
        self.get(self.host, self.tag)
        self.get(self.host, self.blob)
        self.upstream.on("GET", f"{self.host}/v2/some/app/tags/list", Reply(200))
        self.get(self.host, "/v2/some/app/tags/list")
        self.assertEqual(self.patience(), [None] * 3)

    def test_stored_tag(self) -> None:
        """It is there, and this client may read it without a question."""
        self.get(self.host, self.tag)
        self.patience()
        self.get(self.host, self.tag)
        self.assertEqual(self.patience(), [0])

    def test_stored_tag_of_another(self) -> None:
        """Bob gets nothing without the registry's word, so it is asked for."""
        self.get(self.host, self.tag, ALICE)
        self.patience()
        self.get(self.host, self.tag, BOB)
        self.assertEqual(set(self.patience()), {None})

    def test_expired_tag(self) -> None:
        """Too old to be served in any case."""
        self.get(self.host, self.tag)
        self.clock.advance(8 * DAY)
        self.patience()
        self.get(self.host, self.tag)
        self.assertEqual(self.patience()[0], None)

    def test_confirmation(self) -> None:
        """What was public a while ago."""
        self.get(self.host, self.blob)
        self.clock.advance(DAY)
        self.patience()
        self.get(self.host, self.blob)
        self.assertEqual(self.patience(), [0])

    def test_ping_and_token(self) -> None:
        """They wait a little: what is said in their place is worth little."""
        token = "/token?service=registry&scope=repository:some/app:pull"
        for target in "/v2/", token:
            self.upstream.on("GET", self.host + target, Reply(200))
        self.get(self.host, "/v2/")
        self.get(self.host, token)
        self.assertEqual(self.patience(), [None, 2])
        self.get(self.host, self.tag)
        self.patience()
        self.get(self.host, "/v2/")
        self.assertEqual(self.patience(), [2])
