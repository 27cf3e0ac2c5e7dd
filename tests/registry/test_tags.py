"""Tests for :mod:`regproxy.registry.tags`: pulls by tag, as a client sees them."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from typing import ClassVar

from attrs import evolve
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from regproxy.config.model import Config, FreshnessSection
from regproxy.oci.media_types import DOCKER_MANIFEST, OCI_INDEX
from regproxy.oci.names import Digest
from regproxy.policy.caching import NoStore
from regproxy.registry.ask import Answer as Given
from regproxy.registry.ask import Ask, Made
from regproxy.registry.guests import Guests
from regproxy.registry.service import RegistryService
from regproxy.registry.tokens import Answerer
from regproxy.store.errors import IndexFailed
from regproxy.upstream.errors import UpstreamLoginFailed, UpstreamTimeout, UpstreamUnreachable
from tests.support.front import DENY, OPEN, OTHER, TEAM, Answer, FrontTestCase
from tests.support.upstream import Reply

ONE = b'{"schemaVersion": 2, "n": 1}'
TWO = b'{"schemaVersion": 2, "n": 2, "layers": []}'
DAY = 86400.0
ALICE = "Bearer alice"
BOB = "Bearer bob"


def digest(content: bytes) -> str:
    return str(Digest.of(content))


class TagTestCase(FrontTestCase):
    """The tag ``latest`` of a repository that anybody may read."""

    def setUp(self) -> None:
        super().setUp()
        self.target = self.upstream.serve_manifest(OPEN, "app", "latest", ONE)
        self.url = OPEN + self.target

    def url_of(self, content: bytes) -> str:
        return f"{OPEN}/v2/app/manifests/{digest(content)}"

    def warm(self) -> None:
        """The tag has been pulled."""
        self.assertEqual(self.get(OPEN, self.target).body, ONE)
        self.upstream.questions()

    def move(self) -> None:
        """The tag points to something else."""
        self.upstream.serve_manifest(OPEN, "app", "latest", TWO)

    def assertIsOne(self, answer: Answer, *, head: bool = False) -> None:
        self.assertEqual((answer.status, answer.whole), (200, True))
        self.assertEqual(answer.body, b"" if head else ONE)
        self.assertEqual(answer["Docker-Content-Digest"], digest(ONE))
        self.assertEqual(answer["Content-Length"], str(len(ONE)))


class PullTests(TagTestCase):
    """What a tag costs upstream."""

    def test_cold_get(self) -> None:
        """One GET, which is all that Docker Hub counts."""
        answer = self.get(OPEN, self.target, Accept=OCI_INDEX)
        self.assertIsOne(answer)
        self.assertEqual(answer["Cache-Status"], "regproxy; fwd=miss; stored")
        self.assertEqual(self.upstream.asked[0].headers.getRawHeaders("accept"), [OCI_INDEX])
        self.assertAsked(f"GET {self.url}")

    def test_no_accept(self) -> None:
        """A client without Accept is asked for without one: registries tell them apart."""
        self.get(OPEN, self.target)
        self.assertFalse(self.upstream.asked[0].headers.hasHeader("accept"))

    def test_warm_get(self) -> None:
        """One HEAD, and the stored bytes."""
        self.warm()
        answer = self.get(OPEN, self.target)
        self.assertIsOne(answer)
        self.assertEqual(answer["Cache-Status"], "regproxy; fwd=stale; detail=same")
        self.assertEqual(answer["Age"], "0")
        self.assertAsked(f"HEAD {self.url}")

    def test_moved(self) -> None:
        """A HEAD, and one GET of what is new, by its digest."""
        self.warm()
        self.move()
        answer = self.get(OPEN, self.target)
        self.assertEqual((answer.body, answer.status), (TWO, 200))
        self.assertIn("fwd=stale", answer["Cache-Status"] or "")
        self.assertIn("detail=changed", answer["Cache-Status"] or "")
        self.assertAsked(f"HEAD {self.url}", f"GET {self.url_of(TWO)}")
        self.assertEqual(self.get(OPEN, self.target).body, TWO)
        self.assertAsked(f"HEAD {self.url}")

    def test_moved_on(self) -> None:
        """What HEAD named is not there: the tag itself is asked for."""
        self.warm()
        gone = b'{"schemaVersion": 2, "n": 3}'
        self.upstream.on("HEAD", self.url, Reply(200, {"Docker-Content-Digest": digest(gone)}))
        self.upstream.on("GET", self.url_of(gone), Reply(404, {}, b"no"))
        self.assertIsOne(self.get(OPEN, self.target))
        self.assertAsked(f"HEAD {self.url}", f"GET {self.url_of(gone)}", f"GET {self.url}")
        named = {"Docker-Content-Digest": digest(TWO)}
        self.upstream.on("GET", self.url, Reply(200, named, TWO))
        self.assertEqual(self.get(OPEN, self.target).body, TWO)

    def test_moved_back(self) -> None:
        """What is stored already is not fetched again."""
        self.warm()
        self.move()
        self.get(OPEN, self.target)
        self.upstream.serve_manifest(OPEN, "app", "latest", ONE)
        self.upstream.questions()
        self.assertIsOne(self.get(OPEN, self.target))
        self.assertAsked(f"HEAD {self.url}")

    def test_cold_head_of_what_the_client_has(self) -> None:
        tag = f'"{digest(ONE)}"'
        answer = self.head(OPEN, self.target, If_None_Match=tag)
        self.assertEqual((answer.status, answer["ETag"]), (304, tag))

    def test_cold_head(self) -> None:
        """A HEAD is never made a GET."""
        for _ in range(2):
            self.assertIsOne(self.head(OPEN, self.target), head=True)
            self.assertAsked(f"HEAD {self.url}")

    def test_warm_head(self) -> None:
        self.warm()
        self.assertIsOne(self.head(OPEN, self.target), head=True)
        self.assertAsked(f"HEAD {self.url}")

    def test_as_docker_pulls(self) -> None:
        """HEAD of the tag, GET of the digest: the tag is known afterwards, also as it moves."""
        for content in ONE, TWO:
            self.upstream.serve_manifest(OPEN, "app", "latest", content)
            for _ in range(2):
                answer = self.head(OPEN, self.target)
                self.assertEqual(answer["Docker-Content-Digest"], digest(content))
                self.get(OPEN, f"/v2/app/manifests/{digest(content)}")
            self.assertAsked(f"HEAD {self.url}", f"GET {self.url_of(content)}", f"HEAD {self.url}")
            for method in "GET", "HEAD":
                self.upstream.on(method, self.url, UpstreamUnreachable("down"))
            self.assertEqual(self.get(OPEN, self.target).body, content)
            self.upstream.questions()

    def test_cold_herd(self) -> None:
        """Many clients that want a new tag cost one GET."""
        pending: Deferred[Reply] = Deferred()
        headers = {"Docker-Content-Digest": digest(ONE)}
        self.upstream.on("GET", self.url, pending)
        clients = [self.ask("GET", OPEN, self.target) for _ in range(4)]
        clients[0].leave()
        pending.callback(Reply(200, headers, ONE))
        for client in clients[1:]:
            self.assertIsOne(client.answer())
        self.assertEqual(self.upstream.questions().count(f"GET {self.url}"), 1)

    def test_herd_is_refused(self) -> None:
        """They share a failure, but not one client's refusal."""
        pending: Deferred[Reply] = Deferred()
        self.upstream.on("GET", self.url, pending, Reply(200, {}, ONE))
        bob = self.ask("GET", OPEN, self.target, BOB)
        alice = self.ask("GET", OPEN, self.target, ALICE)
        pending.callback(Reply(401, {}, b"no"))
        self.assertEqual(bob.answer().status, 401)
        self.assertIsOne(alice.answer())

    def test_accept(self) -> None:
        """A tag may be another manifest for another Accept; its order does not matter."""
        self.get(OPEN, self.target, Accept=f"{OCI_INDEX}, {DOCKER_MANIFEST}")
        self.upstream.questions()
        self.get(OPEN, self.target, Accept=f"{DOCKER_MANIFEST},{OCI_INDEX}")
        self.assertAsked(f"HEAD {self.url}")
        self.move()
        self.assertEqual(self.get(OPEN, self.target, Accept=DOCKER_MANIFEST).body, TWO)
        self.assertAsked(f"GET {self.url}")

    def test_two_registries(self) -> None:
        """They never share a tag."""
        self.warm()
        self.upstream.serve_manifest(OTHER, "app", "latest", TWO)
        self.assertEqual(self.get(OTHER, self.target).body, TWO)
        self.assertAsked(f"GET {OTHER}{self.target}")

    def test_leaves_during_revalidation(self) -> None:
        """A client that leaves at any point leaves nothing behind (see tearDown)."""
        self.warm()
        self.move()
        reply = Reply(200, {"Docker-Content-Digest": digest(TWO)}, TWO)
        for method, url in ("HEAD", self.url), ("GET", self.url_of(TWO)):
            pending: Deferred[Reply] = Deferred()
            self.upstream.on(method, url, pending)
            self.ask("GET", OPEN, self.target).leave()
            pending.callback(reply)
            self.upstream.on(method, url, reply)
        self.assertTrue(self.stored(TWO))
        self.assertEqual(self.get(OPEN, self.target).body, TWO)

    def test_index_fails(self) -> None:
        """The answer is given, though it is not remembered."""
        self.patch(self.index, "put_tag", lambda *_: fail(IndexFailed("full")))
        for _ in range(2):
            self.assertIsOne(self.get(OPEN, self.target))
            self.assertAsked(f"GET {self.url}")


class FreshnessTests(TagTestCase):
    """Answers without a question."""

    def test_fresh(self) -> None:
        self.fresh_for(60.0)
        self.warm()
        self.clock.advance(59)
        for answer in self.get(OPEN, self.target), self.head(OPEN, self.target):
            self.assertEqual(answer["Cache-Status"], "regproxy; hit; detail=fresh")
            self.assertEqual(answer["Age"], "59")
        self.assertAsked()
        self.clock.advance(1)
        self.assertIsOne(self.get(OPEN, self.target))
        self.assertAsked(f"HEAD {self.url}")

    def test_fresh_is_not_public(self) -> None:
        """A fresh tag is for those who may read it."""
        self.fresh_for(60.0)
        self.get(OPEN, self.target, ALICE)
        self.upstream.questions()
        self.upstream.on("HEAD", self.url_of(ONE), Reply(401))
        self.assertEqual(self.get(OPEN, self.target, BOB).status, 401)
        self.assertAsked(f"HEAD {self.url_of(ONE)}")

    def test_pushed(self) -> None:
        """A push ends it."""
        self.fresh_for(60.0)
        self.warm()
        self.upstream.on("PUT", self.url, Reply(201))
        self.move()
        self.assertEqual(self.ask("PUT", OPEN, self.target, body=TWO).answer().status, 201)
        self.assertEqual(self.get(OPEN, self.target).body, TWO)

    def test_push_of_unknown_outcome(self) -> None:
        """So does one of which nobody knows whether it was taken, but none that was refused."""
        for outcome, asked in (
            (Reply(403), []),
            (UpstreamTimeout("slow"), [f"GET {self.url}"]),
            (Reply(500), [f"GET {self.url}"]),
        ):
            self.fresh_for(60.0)
            self.get(OPEN, self.target)
            self.upstream.on("PUT", self.url, outcome)
            self.ask("PUT", OPEN, self.target, body=TWO).answer()
            self.upstream.questions()
            self.assertIsOne(self.get(OPEN, self.target))
            self.assertAsked(*asked)

    def test_pusher_leaves(self) -> None:
        self.fresh_for(60.0)
        self.warm()
        self.upstream.on("PUT", self.url, Deferred())
        self.ask("PUT", OPEN, self.target, body=TWO).leave()
        self.move()
        self.assertEqual(self.get(OPEN, self.target).body, TWO)


class FailureTests(TagTestCase):
    """Upstream fails."""

    def trouble(self, failure: Reply | Exception) -> None:
        """Upstream has that trouble."""
        for method in "GET", "HEAD":
            self.upstream.on(method, self.url, failure)

    def test_stale(self) -> None:
        """What is stored is served, and says so."""
        self.warm()
        self.clock.advance(100)
        for failure in (
            UpstreamUnreachable('cannot connect to "it"'),
            UpstreamTimeout("slow"),
            Reply(500),
            Reply(503, {}, b"later"),
            Reply(429, {"Retry-After": "60"}),
        ):
            self.trouble(failure)
            for method in "GET", "HEAD":
                answer = self.ask(method, OPEN, self.target).answer()
                self.assertIsOne(answer, head=method == "HEAD")
                self.assertRegex(answer["Warning"] or "", r'^299 - "stored answer, upstream .*"$')
                self.assertEqual(
                    answer["Cache-Status"], "regproxy; fwd=stale; detail=stale-if-error"
                )
                self.assertEqual(answer["Age"], "100")

    def test_too_old(self) -> None:
        """After seven days the failure is the answer."""
        self.warm()
        self.clock.advance(7 * DAY + 1)
        self.trouble(UpstreamTimeout("slow"))
        answer = self.get(OPEN, self.target)
        self.assertEqual(answer.status, 504)
        self.assertEqual(answer["Proxy-Status"], "regproxy; error=connection_timeout")
        self.trouble(Reply(503, {"Retry-After": "60", "Content-Type": "text/plain"}, b"later"))
        answer = self.get(OPEN, self.target)
        self.assertEqual((answer.status, answer.body), (503, b"later"))
        self.assertEqual(answer["Retry-After"], "60")
        self.assertEqual(self.head(OPEN, self.target).status, 503)

    def test_cold(self) -> None:
        """With nothing stored as well."""
        self.trouble(UpstreamUnreachable("down"))
        self.assertEqual(self.get(OPEN, self.target).status, 502)
        self.assertEqual(self.head(OPEN, self.target).status, 502)
        self.trouble(Reply(429, {"Retry-After": "60"}, b"slow down"))
        answer = self.get(OPEN, self.target)
        self.assertEqual((answer.status, answer.body), (429, b"slow down"))
        self.assertEqual(answer["Retry-After"], "60")

    def test_moved_but_limited(self) -> None:
        """A moved tag whose GET fails is what it was, then and the next time."""
        self.warm()
        self.move()
        for failure in Reply(429), Reply(500), UpstreamTimeout("slow"):
            self.upstream.on("GET", self.url_of(TWO), failure)
            for _ in range(2):
                answer = self.get(OPEN, self.target)
                self.assertIsOne(answer)
                self.assertIn("299", answer["Warning"] or "")

    def test_moved_but_wrong(self) -> None:
        """A moved tag of which only wrong bytes came is what it was as long as upstream fails."""
        named = {"Docker-Content-Digest": digest(TWO)}
        for head in Reply(200, named, TWO), Reply(405):
            self.start(self.config)
            self.upstream.serve_manifest(OPEN, "app", "latest", ONE)
            self.warm()
            self.upstream.on("HEAD", self.url, head)
            for url in self.url, self.url_of(TWO):
                self.upstream.on("GET", url, Reply(200, named, bytes(len(TWO))))
            self.assertEqual(self.get(OPEN, self.target).status, 502)
            self.trouble(UpstreamUnreachable("down"))
            self.assertIsOne(self.get(OPEN, self.target))

    def test_pushed_while_it_moves(self) -> None:
        """What upstream said before a push says nothing about the tag after it."""
        self.fresh_for(60.0)
        self.warm()
        self.clock.advance(60)
        self.move()
        self.upstream.on("GET", self.url_of(TWO), Reply(200, {}, None, len(TWO)))
        client = self.ask("GET", OPEN, self.target)
        self.upstream.on("PUT", self.url, Reply(201))
        self.ask("PUT", OPEN, self.target, body=ONE).answer()
        self.upstream.serve_manifest(OPEN, "app", "latest", ONE)
        response = self.upstream.responses[-2]
        response.send(TWO)
        response.end()
        self.assertEqual(client.answer().body, TWO)
        self.assertIsOne(self.get(OPEN, self.target))

    def test_private(self) -> None:
        """Not for those of whom upstream has to say whether they may read it."""
        self.get(OPEN, self.target, ALICE)
        self.trouble(UpstreamUnreachable("down"))
        self.upstream.on("HEAD", self.url_of(ONE), UpstreamUnreachable("down"))
        answer = self.get(OPEN, self.target, BOB)
        self.assertEqual(answer.status, 503)
        self.assertIn("stored here", answer.error["message"])
        self.assertIsOne(self.get(OPEN, self.target, ALICE))

    def test_shared(self) -> None:
        """But for all who use the proxy, where that is the rule."""
        target = self.upstream.serve_manifest(TEAM, "app", "latest", ONE)
        self.get(TEAM, target)
        self.upstream.on("HEAD", TEAM + target, UpstreamUnreachable("down"))
        self.assertIsOne(self.get(TEAM, target, BOB))

    def test_login_fails(self) -> None:
        """A refusal of the proxy's own login is an answer, and no failure."""
        target = self.upstream.serve_manifest(TEAM, "app", "latest", ONE)
        self.get(TEAM, target)
        self.upstream.on("HEAD", TEAM + target, UpstreamLoginFailed("no", 401))
        answer = self.get(TEAM, target)
        self.assertEqual(answer.status, 502)
        self.assertEqual(answer["Proxy-Status"], "regproxy; error=proxy_configuration_error")


class RefusalTests(TagTestCase):
    """Upstream answers that it does not give it."""

    def refuse(self, code: int) -> None:
        headers = {"WWW-Authenticate": 'Bearer realm="r"', "Content-Type": "text/plain"}
        for method in "GET", "HEAD":
            self.upstream.on(method, self.url, Reply(code, headers, b"no"))

    def test_passed_on(self) -> None:
        """As it is, to a GET with the body that says why, whether something is stored or not."""
        for _ in range(2):
            for code in 401, 403, 404:
                self.refuse(code)
                answer = self.get(OPEN, self.target)
                self.assertEqual((answer.status, answer.body, answer.whole), (code, b"no", True))
                self.assertEqual(answer["WWW-Authenticate"], 'Bearer realm="r"')
                self.assertIsNone(answer["Warning"])
                self.assertEqual(self.head(OPEN, self.target).status, code)
            self.upstream.serve_manifest(OPEN, "app", "latest", ONE)
            self.warm()

    def test_gone(self) -> None:
        """A tag that is gone is forgotten."""
        self.fresh_for(60.0)
        self.warm()
        self.clock.advance(60)
        self.refuse(404)
        self.assertEqual(self.get(OPEN, self.target).status, 404)
        for method in "GET", "HEAD":
            self.upstream.on(method, self.url, UpstreamUnreachable("down"))
        self.assertEqual(self.get(OPEN, self.target).status, 502)

    def test_gone_for_one(self) -> None:
        """Not if upstream says so to somebody who may not read the repository."""
        self.get(OPEN, self.target, ALICE)
        self.refuse(404)
        self.assertEqual(self.get(OPEN, self.target, BOB).status, 404)
        for method in "GET", "HEAD":
            self.upstream.on(method, self.url, UpstreamUnreachable("down"))
        self.assertIsOne(self.get(OPEN, self.target, ALICE))

    def test_deny(self) -> None:
        """Reading where pushing is denied."""
        target = self.upstream.serve_manifest(DENY, "app", "latest", ONE)
        self.assertIsOne(self.get(DENY, target))


class _Doors:
    """Some clients are guests."""

    def __init__(self, service: RegistryService) -> None:
        self._service = service

    async def answer(self, ask: Ask) -> Given | Made:
        guest = ask.headers.hasHeader("x-guest")
        return await (Guests(self._service) if guest else self._service).answer(ask)


class NotFoundTests(TagTestCase):
    """Tags that are not there."""

    def setUp(self) -> None:
        super().setUp()
        self.missing = "/v2/app/manifests/next"
        self.url = OPEN + self.missing
        self.remember(10.0)

    def remember(self, seconds: float) -> None:
        self.start(evolve(self.config, freshness=FreshnessSection(not_found=seconds)))

    def say(self, reply: Reply) -> None:
        for method in "GET", "HEAD":
            self.upstream.on(method, self.url, reply)

    def test_remembered(self) -> None:
        """The same question is not asked again for ten seconds."""
        self.say(Reply(404, {}, b"upstream's"))
        for ask in self.get, self.head:
            self.assertEqual(ask(OPEN, self.missing).status, 404)
            self.upstream.questions()
            self.clock.advance(3)
            answer = ask(OPEN, self.missing)
            self.assertEqual((answer.status, answer["Age"]), (404, "3"))
            self.assertEqual(answer["Cache-Status"], "regproxy; hit; detail=not-found")
            self.assertIsNone(answer["Proxy-Status"])
            self.assertAsked()
        self.assertEqual(self.get(OPEN, self.missing).error["code"], "MANIFEST_UNKNOWN")
        self.clock.advance(7)
        self.assertEqual(self.get(OPEN, self.missing).body, b"upstream's")
        self.assertAsked(f"GET {self.url}")

    def test_default(self) -> None:
        """By default each time: a tag may be there a moment later."""
        self.start(self.config)
        self.say(Reply(404))
        for _ in range(2):
            self.assertEqual(self.get(OPEN, self.missing).status, 404)
        self.assertAsked(*[f"GET {self.url}"] * 2)

    def test_for_others(self) -> None:
        """Another login, another Accept, another method: upstream may say something else."""
        self.say(Reply(404))
        self.head(OPEN, self.missing, ALICE)
        self.upstream.serve_manifest(OPEN, "app", "next", ONE)
        for login in BOB, None:
            self.assertEqual(self.head(OPEN, self.missing, login).status, 200)
        self.assertEqual(self.head(OPEN, self.missing, ALICE, Accept=OCI_INDEX).status, 200)
        self.assertEqual(self.head(OPEN, self.missing, ALICE).status, 404)
        self.assertIsOne(self.get(OPEN, self.missing, ALICE))

    def test_guests(self) -> None:
        """A guest of a mirror has a token, if only one that anybody gets."""
        self.say(Reply(404))
        self.head(OPEN, self.missing)
        self.upstream.serve_manifest(OPEN, "app", "next", ONE)
        self.assertEqual(self.head(OPEN, self.missing, X_Guest="yes").status, 200)
        self.assertEqual(self.head(OPEN, self.missing).status, 404)

    def before(self, service: RegistryService, config: Config) -> Answerer:
        return _Doors(service)

    def test_shared_login(self) -> None:
        """Where the proxy logs in, all clients are one."""
        target = "/v2/app/manifests/next"
        self.upstream.on("GET", TEAM + target, Reply(404))
        for login in ALICE, BOB, None:
            self.assertEqual(self.get(TEAM, target, login).status, 404)
        self.assertAsked(f"GET {TEAM}{target}")

    def test_refusals(self) -> None:
        """401, 403 and failures are nothing to remember."""
        for code in 401, 403, 500:
            self.say(Reply(code))
            for _ in range(2):
                self.assertEqual(self.get(OPEN, self.missing).status, code)
            self.assertAsked(*[f"GET {self.url}"] * 2)

    def test_pushed(self) -> None:
        """A push through the proxy ends it."""
        self.say(Reply(404))
        self.get(OPEN, self.missing)
        self.upstream.on("PUT", self.url, Reply(201))
        self.ask("PUT", OPEN, self.missing, body=ONE).answer()
        self.upstream.serve_manifest(OPEN, "app", "next", ONE)
        self.assertIsOne(self.get(OPEN, self.missing))

    def test_pushed_meanwhile(self) -> None:
        """An answer that was on its way while the tag was pushed is not remembered."""
        pending: Deferred[Reply] = Deferred()
        self.upstream.on("GET", self.url, pending)
        client = self.ask("GET", OPEN, self.missing)
        self.upstream.on("PUT", self.url, Reply(201))
        self.ask("PUT", OPEN, self.missing, body=ONE).answer()
        pending.callback(Reply(404))
        self.assertEqual(client.answer().status, 404)
        self.upstream.serve_manifest(OPEN, "app", "next", ONE)
        self.assertIsOne(self.get(OPEN, self.missing))

    def test_others_got_it(self) -> None:
        """Once it is stored, what upstream says counts."""
        self.say(Reply(404))
        self.get(OPEN, self.missing, ALICE)
        self.upstream.serve_manifest(OPEN, "app", "next", ONE)
        self.get(OPEN, self.missing, BOB)
        self.assertIsOne(self.get(OPEN, self.missing, ALICE))

    def test_gone(self) -> None:
        """A tag that was stored, and is not there any more."""
        self.say(Reply(404))
        self.upstream.serve_manifest(OPEN, "app", "next", ONE)
        self.get(OPEN, self.missing)
        self.say(Reply(404))
        self.get(OPEN, self.missing)
        self.upstream.questions()
        self.assertEqual(self.get(OPEN, self.missing).status, 404)
        self.assertAsked()


class WithoutHeadTests(TagTestCase):
    """Registries where a HEAD says nothing."""

    HEADERS: ClassVar = {"Content-Type": OCI_INDEX}

    def setUp(self) -> None:
        super().setUp()
        self.upstream.on("GET", self.url, Reply(200, self.HEADERS, ONE))
        self.upstream.on("HEAD", self.url, Reply(405))

    def conditions(self) -> list[Sequence[str] | None]:
        """If-None-Match of each GET since the last time."""
        asked = [asked for asked in self.upstream.asked if asked.method == "GET"]
        self.upstream.asked.clear()
        return [one.headers.getRawHeaders("if-none-match") for one in asked]

    def test_conditional_get(self) -> None:
        """A HEAD is tried once, then there are conditional GETs."""
        self.assertIsOne(self.get(OPEN, self.target))
        self.upstream.on("GET", self.url, Reply(304))
        self.assertEqual(self.conditions(), [None])
        answer = self.get(OPEN, self.target)
        self.assertIsOne(answer)
        self.assertEqual(answer["Cache-Status"], "regproxy; fwd=stale; detail=same")
        self.assertEqual(answer["Content-Type"], OCI_INDEX)
        self.assertAsked(f"HEAD {self.url}", f"GET {self.url}")
        self.assertIsOne(self.get(OPEN, self.target))
        self.assertIsOne(self.head(OPEN, self.target), head=True)
        self.assertEqual(self.conditions(), [[f'"{digest(ONE)}"']] * 2)

    def test_cold_head(self) -> None:
        """Also for a client's HEAD, as there is no other way."""
        for reply in Reply(405), Reply(501), Reply(200, self.HEADERS, ONE):
            self.start(self.config)
            self.upstream.on("HEAD", self.url, reply)
            self.assertIsOne(self.head(OPEN, self.target), head=True)
            self.assertIn(f"GET {self.url}", self.upstream.questions())

    def test_moved(self) -> None:
        answer = self.get(OPEN, self.target)
        self.assertEqual(answer["Cache-Status"], "regproxy; fwd=miss; stored")
        self.upstream.on("GET", self.url, Reply(200, self.HEADERS, TWO))
        answer = self.get(OPEN, self.target)
        self.assertEqual(answer["Cache-Status"], "regproxy; fwd=stale; stored")
        self.assertEqual(answer.body, TWO)

    def test_tried_again(self) -> None:
        """After an hour: it may have been another page that answered."""
        self.get(OPEN, self.target)
        self.get(OPEN, self.target)
        headers = {"Docker-Content-Digest": digest(ONE)}
        self.upstream.on("HEAD", self.url, Reply(200, headers, ONE))
        self.clock.advance(3600)
        self.upstream.questions()
        self.assertIsOne(self.get(OPEN, self.target))
        self.assertAsked(f"HEAD {self.url}")

    def test_failure(self) -> None:
        """Failures are met with what is stored here too."""
        self.get(OPEN, self.target)
        for failure in UpstreamUnreachable("down"), Reply(503), Reply(429):
            self.upstream.on("GET", self.url, failure)
            for _ in range(2):
                answer = self.get(OPEN, self.target)
                self.assertIsOne(answer)
                self.assertIn("299", answer["Warning"] or "")

    def test_refusal(self) -> None:
        self.get(OPEN, self.target)
        self.upstream.on("GET", self.url, Reply(401, {}, b"no"))
        for _ in range(2):
            answer = self.get(OPEN, self.target)
            self.assertEqual((answer.status, answer.body), (401, b"no"))
        self.assertEqual(self.head(OPEN, self.target).status, 401)

    def test_leaves(self) -> None:
        """A client that leaves during a conditional GET leaves nothing behind."""
        self.get(OPEN, self.target)
        self.get(OPEN, self.target)
        for reply in Reply(200, self.HEADERS, TWO), Reply(304), Reply(404, {}, None):
            pending: Deferred[Reply] = Deferred()
            self.upstream.on("GET", self.url, pending)
            self.ask("GET", OPEN, self.target).leave()
            pending.callback(reply)

    def test_coded(self) -> None:
        """A coded body is not the manifest, and nothing says of what it is the digest."""
        coded = {**self.HEADERS, "Content-Encoding": "gzip"}
        self.upstream.on("GET", self.url, Reply(200, coded, gzip.compress(ONE)))
        self.assertEqual(self.get(OPEN, self.target).status, 502)
        self.upstream.on("GET", self.url, Reply(200, {"Content-Encoding": "identity"}, ONE))
        self.assertIsOne(self.get(OPEN, self.target))
        self.upstream.on("GET", self.url, Reply(200, coded, gzip.compress(TWO)))
        answer = self.get(OPEN, self.target)
        self.assertIsOne(answer)
        self.assertIn("299", answer["Warning"] or "")

    def test_too_large(self) -> None:
        """What is too large for a manifest is not read into memory."""
        content = bytes(self.config.limits.manifest_size + 1)
        self.upstream.on("GET", self.url, Reply(200, self.HEADERS, content, -1))
        answer = self.get(OPEN, self.target)
        self.assertEqual(answer.status, 502)
        self.assertEqual(answer["Proxy-Status"], "regproxy; error=http_response_body_size")


class UnstorableTests(TagTestCase):
    """Answers that are passed on."""

    def test_schema_1(self) -> None:
        """Its digest is not that of its bytes."""
        media_type = "application/vnd.docker.distribution.manifest.v1+prettyjws"
        headers = {"Content-Type": media_type, "Docker-Content-Digest": digest(TWO)}
        self.upstream.on("GET", self.url, Reply(200, headers, ONE))
        for _ in range(2):
            answer = self.get(OPEN, self.target)
            self.assertEqual((answer.body, answer["Content-Type"]), (ONE, media_type))
            self.assertIn(NoStore.UNVERIFIABLE.value, answer["Cache-Status"] or "")
            self.assertAsked(f"GET {self.url}")
        self.assertFalse(self.stored(ONE))

    def test_html(self) -> None:
        """A page that says 200 is no manifest."""
        self.upstream.on("GET", self.url, Reply(200, {"Content-Type": "text/html"}, b"<p>"))
        answer = self.get(OPEN, self.target)
        self.assertEqual(answer.body, b"<p>")
        self.assertIn(NoStore.NOT_CONTENT.value, answer["Cache-Status"] or "")
        self.assertFalse(self.stored(b"<p>"))

    def test_wrong_digest(self) -> None:
        """A manifest that is not what its registry says is not served."""
        self.upstream.on("GET", self.url, Reply(200, {"Docker-Content-Digest": digest(TWO)}, ONE))
        answer = self.get(OPEN, self.target)
        self.assertEqual(answer.status, 502)
        self.assertFalse(self.stored(ONE) or self.stored(TWO))

    def test_malformed_digest(self) -> None:
        """A digest that cannot be read, or is there twice, is none."""
        for value in ["x"], [digest(ONE), digest(TWO)], ["sha384:" + 96 * "a"]:
            self.upstream.on("GET", self.url, Reply(200, {"Docker-Content-Digest": value}, ONE))
            self.assertIsOne(self.get(OPEN, self.target, Accept=value[0]))

    def test_failure_of_waiting_clients(self) -> None:
        pending: Deferred[Reply] = Deferred()
        self.upstream.on("GET", self.url, pending)
        clients = [self.ask("GET", OPEN, self.target) for _ in range(2)]
        pending.errback(Failure(UpstreamTimeout("slow")))
        self.assertEqual([client.answer().status for client in clients], [504, 504])
        self.assertAsked(f"GET {self.url}")
