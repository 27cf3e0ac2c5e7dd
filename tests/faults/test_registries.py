"""Registries that refuse: too many requests, other clients, other registries' names."""

from __future__ import annotations

from functools import partial
from time import monotonic, sleep

from tests.support.faults import FaultTestCase, KiB, MiB, together
from tests.support.images import OCI_MANIFEST
from tests.support.turns import End, Script, Turn

ALICE = "Basic YWxpY2U6cGFzc3dvcmQ="
MALLORY = "Basic bWFsbG9yeTpwYXNzd29yZA=="
ACCEPT = {"Accept": OCI_MANIFEST}


class FailingTests(FaultTestCase):
    """A tag is stored, and upstream fails."""

    def setUp(self) -> None:
        super().setUp()
        self.tagged = self.tag("stored")
        self.assert_whole(self.fetch(self.tagged, ACCEPT), self.tagged)

    def fail_with(self, turn: Turn) -> None:
        """Answer everything about the tag with *turn*."""
        for method in ("GET", "HEAD"):
            self.upstream.script(self.host, self.tagged.path, Script((turn,)), method)

    def check_stale(self) -> None:
        """What is stored is served, with a warning."""
        outcome = self.fetch(self.tagged, ACCEPT)
        self.assert_whole(outcome, self.tagged)
        self.assertRegex(outcome.headers["Warning"], r"\A299 - ")
        self.assertIn("detail=stale-if-error", outcome.headers["Cache-Status"])

    def test_too_many_requests(self) -> None:
        """429: it is not asked again before the time that it named."""
        wait = 2.0
        self.fail_with(Turn(status=429, headers={"Retry-After": f"{wait:.0f}"}))
        before = len(self.upstream.log(self.host))
        begun = monotonic()
        for _ in range(5):
            self.check_stale()
        self.assertLess(monotonic() - begun, wait)
        self.assertEqual(len(self.upstream.log(self.host)) - before, 1)
        new = self.tag("new")
        sleep(max(0.0, begun + wait + 0.5 - monotonic()))
        outcome = self.fetch(new, ACCEPT)
        self.assert_whole(outcome, new)
        self.assertIsNone(outcome.headers["Warning"])

    def test_waiting_for_too_many_requests(self) -> None:
        """Meanwhile what needs upstream waits a bounded time: it is served, or told when."""
        self.fail_with(Turn(status=429, headers={"Retry-After": "600"}))
        self.check_stale()
        blob = self.blob(KiB)
        outcome = self.fetch(blob)
        self.assertEqual(outcome.status, 429)
        self.assertGreater(int(outcome.headers["Retry-After"]), 500)
        self.assertEqual(self.requests(blob), [])

    def test_errors(self) -> None:
        """Errors of the server."""
        for status in (500, 502, 503):
            with self.subTest(status=status):
                self.fail_with(Turn(status=status))
                self.check_stale()

    def test_silence(self) -> None:
        """No answer, or none that can be read."""
        for turn in (
            Turn(stop=-1, end=End.STALL),
            Turn(stop=-1, end=End.RESET),
            Turn(padding=MiB),
            Turn(status=302),
        ):
            with self.subTest(turn=turn):
                self.fail_with(turn)
                self.check_stale()

    def test_answers(self) -> None:
        """401, 403 and 404 are answers, and passed on."""
        for status in (401, 403, 404):
            with self.subTest(status=status):
                self.fail_with(Turn(status=status))
                self.assertEqual(self.fetch(self.tagged, ACCEPT).status, status)


class RefusedTests(FaultTestCase):
    """What one client may read is stored; another one may not read it, and never does."""

    def check_refused(self, refusal: int, path: str = "") -> None:
        """A blob or a tag that only Alice may read, while it comes and when it is here."""
        host = self.stage.new_host()
        blob = self.blob(MiB, Turn(rate=2 * MiB), host=host, accepted=(ALICE,), refusal=refusal)
        strangers: list[dict[str, str]] = [{}, {"Authorization": MALLORY}]
        alice = {"Authorization": ALICE}
        response = self.client.get(host, blob.path, alice)
        response.take(KiB)
        for headers in strangers * 2:
            self.assertEqual(self.fetch(blob, headers).status, refusal)
        self.assert_whole(response.finish(), blob)
        for headers in strangers * 2:
            self.assertEqual(self.fetch(blob, headers).status, refusal)
            ranged = headers | {"Range": "bytes=0-9"}
            self.assertEqual(self.fetch(blob, ranged).status, refusal)
            head = self.client.get(host, blob.path, headers, method="HEAD").finish()
            self.assertEqual(head.status, refusal)
            other = self.client.get(host, blob.path.replace("/app/", "/other/"), headers)
            self.assertEqual(other.finish().status, 404)
        self.assert_whole(self.fetch(blob, alice), blob)
        self.assertEqual(sum(entry.bytes for entry in self.requests(blob)), MiB)

    def test_blob(self) -> None:
        """With each way to say no."""
        for refusal in (401, 403, 404):
            with self.subTest(refusal=refusal):
                self.check_refused(refusal)

    def test_tag(self) -> None:
        """So with a tag, and the manifest behind it."""
        tag = self.tag("private", accepted=(ALICE,))
        alice = ACCEPT | {"Authorization": ALICE}
        self.assert_whole(self.fetch(tag, alice), tag)
        for headers in (ACCEPT, ACCEPT | {"Authorization": MALLORY}):
            for path in (tag.path, f"/v2/app/manifests/{tag.digest}"):
                self.assertEqual(self.client.get(self.host, path, headers).finish().status, 401)

    def test_at_the_same_moment(self) -> None:
        """Clients who ask at once: each gets what is his."""
        blob = self.blob(MiB, accepted=(ALICE,))
        wanted = [{"Authorization": ALICE}, {}, {"Authorization": MALLORY}] * 8
        outcomes = together(partial(self.fetch, blob, headers) for headers in wanted)
        for headers, outcome in zip(wanted, outcomes, strict=True):
            if headers.get("Authorization") == ALICE:
                self.assert_whole(outcome, blob)
            else:
                self.assertEqual(outcome.status, 401)

    def test_upstream_silent(self) -> None:
        """Nobody can say whether a stranger may read it: he may not."""
        blob = self.blob(KiB, accepted=(ALICE,))
        self.assert_whole(self.fetch(blob, {"Authorization": ALICE}), blob)
        self.upstream.script(self.host, blob.path, Script((Turn(stop=-1),)))
        outcome = self.fetch(blob, {"Authorization": MALLORY})
        self.assertEqual(outcome.status, 503)
        self.assertNotIn(blob.content, outcome.start)


class TwoRegistriesTests(FaultTestCase):
    """The same repository and tag at two registries."""

    def test_never_mixed(self) -> None:
        """Each registry's clients see its own image, whatever the other one does."""
        one, two = (self.tag(text, host=self.stage.new_host()) for text in ("one", "two"))
        for _ in range(2):
            for outcomes, tag in (
                (together([partial(self.fetch, tag, ACCEPT)] * 5), tag) for tag in (one, two)
            ):
                for outcome in outcomes:
                    self.assert_whole(outcome, tag)
        for method in ("GET", "HEAD"):
            self.upstream.script(one.host, one.path, Script((Turn(status=503),)), method)
        stale, fresh = self.fetch(one, ACCEPT), self.fetch(two, ACCEPT)
        self.assert_whole(stale, one)
        self.assert_whole(fresh, two)
        self.assertIsNone(fresh.headers["Warning"])
        absent = self.client.get(two.host, f"/v2/app/manifests/{one.digest}", ACCEPT)
        self.assertEqual(absent.finish().status, 404)

    def test_blob(self) -> None:
        """Content that one registry brought is not the other's, until that one has it as well."""
        blob = self.blob(KiB)
        self.assert_whole(self.fetch(blob), blob)
        other = self.stage.new_host()
        self.assertEqual(self.client.get(other, blob.path).finish().status, 404)
        script = Script((Turn(content=blob.digest[7:]),))
        self.upstream.script(other, blob.path, script)
        outcome = self.client.get(other, blob.path).finish()
        self.assert_whole(outcome, blob)
        entries = self.upstream.log(other, blob.path)
        self.assertNotIn("GET", [entry.method for entry in entries])
