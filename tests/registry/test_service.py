"""Tests for :mod:`regproxy.registry.service`: what is passed through, pushed and denied."""

from __future__ import annotations

from regproxy.oci.names import Digest
from regproxy.upstream.errors import UpstreamUnreachable
from tests.support.front import DENY, MOVED, OPEN, TEAM, FrontTestCase
from tests.support.upstream import Reply

ALICE = "Bearer alice"
CHALLENGE = 'Bearer realm="https://auth.example.com/token",service="tests"'
DIGEST = Digest.of(b"content")


class PassThroughTests(FrontTestCase):
    """What is no pull of content."""

    def test_intact(self) -> None:
        """Target, fields and body cross unchanged, but for what is about one connection."""
        target = "/v2/app/tags/list?n=1&last=%61"
        headers: dict[str, str | list[str]] = {
            "Content-Type": "application/json",
            "Link": '</v2/app/tags/list?n=1&last=b>; rel="next"',
            "Docker-Distribution-Api-Version": "registry/2.0",
            "X-Many": ["1", "2"],
            "Connection": "X-Hop",
            "X-Hop": "1",
            "Set-Cookie": "sid=1",
        }
        self.upstream.on("GET", OPEN + target, Reply(200, headers, b'{"tags": []}'))
        answer = self.get(OPEN, target, ALICE, Accept="x/y", X_Mine="1", Cookie="a=b")
        self.assertEqual((answer.status, answer.body, answer.whole), (200, b'{"tags": []}', True))
        for name in "Content-Type", "Link", "Docker-Distribution-Api-Version":
            self.assertEqual(answer[name], headers[name])
        self.assertEqual(answer["X-Many"], "1, 2")
        self.assertEqual(answer["Cache-Status"], "regproxy; fwd=bypass")
        self.assertIsNone(answer["X-Hop"])
        self.assertIsNone(answer["Set-Cookie"])
        (asked,) = self.upstream.asked
        self.assertEqual(asked.authorization, ALICE.encode())
        self.assertEqual(asked.headers.getRawHeaders("accept"), ["x/y"])
        self.assertEqual(asked.headers.getRawHeaders("x-mine"), ["1"])
        for name in "cookie", "host", "authorization":
            self.assertFalse(asked.headers.hasHeader(name))

    def test_streaming(self) -> None:
        """Each piece goes out as it comes, with and without a length; nothing is kept."""
        url = f"{OPEN}/v2/_catalog"
        for length in 6, -1:
            self.upstream.on("GET", url, Reply(200, {}, None, length))
            client = self.ask("GET", OPEN, "/v2/_catalog")
            response = self.upstream.responses[-1]
            response.send(b"abc")
            self.assertEqual(client.answer().body, b"abc")
            response.send(b"def")
            response.end()
            answer = client.answer()
            self.assertEqual((answer.body, answer.whole), (b"abcdef", True))
            self.assertAsked(f"GET {url}")

    def test_broken_off(self) -> None:
        """What breaks off upstream breaks off for the client."""
        self.upstream.on("GET", f"{OPEN}/v2/_catalog", Reply(200, {}, None))
        client = self.ask("GET", OPEN, "/v2/_catalog")
        self.upstream.responses[0].send(b"abc")
        client.answer()
        self.upstream.responses[0].break_off()
        self.assertFalse(client.answer().whole)
        self.assertTrue(client.cut)

    def test_client_leaves(self) -> None:
        """Nobody goes on reading for a client that left."""
        self.upstream.on("GET", f"{OPEN}/v2/_catalog", Reply(200, {}, None))
        client = self.ask("GET", OPEN, "/v2/_catalog")
        self.upstream.responses[0].send(b"abc")
        client.answer()
        client.leave()
        self.assertTrue(self.upstream.responses[0].aborted)

    def test_challenge(self) -> None:
        """The login is between the client and the registry."""
        reply = Reply(401, {"WWW-Authenticate": CHALLENGE}, b"{}")
        self.upstream.on("GET", f"{OPEN}/v2/", reply)
        answer = self.get(OPEN, "/v2/")
        self.assertEqual((answer.status, answer["WWW-Authenticate"]), (401, CHALLENGE))

    def test_token(self) -> None:
        """A token request goes through, by GET and POST."""
        target = "/token?scope=x"
        for method, body in ("GET", b""), ("POST", b"grant_type=password"):
            self.upstream.on(method, OPEN + target, Reply(200, {}, b'{"token": "t"}'))
            answer = self.ask(method, OPEN, target, "Basic YTpi", body=body).answer()
            self.assertEqual(answer.body, b'{"token": "t"}')
            self.assertEqual(self.upstream.asked[-1].authorization, b"Basic YTpi")
            self.assertEqual(self.upstream.asked[-1].body, body)

    def test_referrers(self) -> None:
        target = f"/v2/app/referrers/{DIGEST}?artifactType=x"
        reply = Reply(200, {"OCI-Filters-Applied": "artifactType"}, b"{}")
        self.upstream.on("GET", OPEN + target, reply)
        for _ in range(2):
            self.assertEqual(self.get(OPEN, target)["OCI-Filters-Applied"], "artifactType")
        self.assertAsked(*[f"GET {OPEN}{target}"] * 2)

    def test_head(self) -> None:
        """A HEAD has the length of what a GET would get, and no body."""
        self.upstream.on("HEAD", f"{OPEN}/v2/_catalog", Reply(200, {}, b"abc"))
        answer = self.head(OPEN, "/v2/_catalog")
        self.assertEqual((answer["Content-Length"], answer.whole), ("3", True))

    def test_no_body(self) -> None:
        for code in 204, 304:
            self.upstream.on("GET", f"{OPEN}/v2/_catalog", Reply(code))
            answer = self.get(OPEN, "/v2/_catalog")
            self.assertEqual((answer.status, answer["Content-Length"]), (code, None))

    def test_other_digest(self) -> None:
        """Content of an algorithm that cannot be verified passes too."""
        target = f"/v2/app/blobs/sha384:{'a' * 96}"
        self.upstream.on("GET", OPEN + target, Reply(200, {}, b"content"))
        for _ in range(2):
            answer = self.get(OPEN, target)
            self.assertEqual(
                (answer.body, answer["Cache-Status"]), (b"content", "regproxy; fwd=bypass")
            )

    def test_unreachable(self) -> None:
        self.upstream.on("GET", f"{OPEN}/v2/", UpstreamUnreachable("down"))
        self.assertEqual(self.get(OPEN, "/v2/").status, 502)


class InjectTests(FrontTestCase):
    """Where the proxy has a login of its own."""

    READS = (
        "/v2/",
        "/v2/_catalog",
        "/v2/app/tags/list",
        f"/v2/app/referrers/{DIGEST}",
        "/v2/app/manifests/latest",
        f"/v2/app/manifests/{DIGEST}",
        f"/v2/app/blobs/{DIGEST}",
    )

    def test_reads(self) -> None:
        """It is used for reading."""
        for target in self.READS:
            self.upstream.on("GET", TEAM + target, Reply(404))
            self.get(TEAM, target, ALICE)
            self.assertTrue(self.upstream.asked[-1].inject, target)

    def test_not_for_tokens(self) -> None:
        """Not at a token service, wherever that is: the answer would hand the login on."""
        for target in "/token", "/v2/auth?service=x", "/v2/token", "/v2token", "/jwt/auth":
            self.upstream.on("GET", TEAM + target, Reply(200, {}, b"{}"))
            self.get(TEAM, target, ALICE)
            self.assertFalse(self.upstream.asked[-1].inject, target)

    def test_not_for_pushes(self) -> None:
        """A push is the client's own, at every step."""
        for method, target in (
            ("POST", "/v2/app/blobs/uploads/"),
            ("GET", "/v2/app/blobs/uploads/some-id"),
            ("PATCH", "/v2/app/blobs/uploads/some-id"),
            ("PUT", f"/v2/app/blobs/uploads/some-id?digest={DIGEST}"),
            ("PUT", "/v2/app/manifests/latest"),
            ("DELETE", f"/v2/app/manifests/{DIGEST}"),
        ):
            self.upstream.on(method, TEAM + target, Reply(202))
            self.assertEqual(self.ask(method, TEAM, target, ALICE).answer().status, 202)
            self.assertFalse(self.upstream.asked[-1].inject, target)
            self.assertEqual(self.upstream.asked[-1].authorization, ALICE.encode())


class PushTests(FrontTestCase):
    """Changes of a registry."""

    def test_upload(self) -> None:
        """The body and what is said of it go up; Location leads back here."""
        target = "/v2/app/blobs/uploads/some-id?state=x%2Fy"
        url = f"{MOVED}{target}"
        location = "https://192.0.2.7:5000/v2/app/blobs/uploads/some-id?state=z"
        self.upstream.on("PATCH", url, Reply(202, {"Location": location, "Range": "0-9"}))
        answer = self.ask(
            "PATCH", MOVED, target, ALICE, b"0123456789", Content_Range="0-9", Content_Type="x/y"
        ).answer()
        self.assertEqual(answer.status, 202)
        self.assertEqual(answer["Location"], "/v2/app/blobs/uploads/some-id?state=z")
        self.assertEqual(answer["Range"], "0-9")
        (asked,) = self.upstream.asked
        self.assertEqual(asked.body, b"0123456789")
        self.assertEqual(asked.headers.getRawHeaders("content-range"), ["0-9"])
        self.assertEqual(asked.headers.getRawHeaders("content-type"), ["x/y"])

    def test_deny(self) -> None:
        """405 with a body that says it, and upstream hears nothing."""
        for method, target in (
            ("POST", "/v2/app/blobs/uploads/"),
            ("PATCH", "/v2/app/blobs/uploads/some-id"),
            ("PUT", "/v2/app/manifests/latest"),
            ("PUT", f"/v2/app/manifests/sha384:{'a' * 96}"),
            ("DELETE", f"/v2/app/blobs/{DIGEST}"),
        ):
            answer = self.ask(method, DENY, target, ALICE, b"content").answer()
            self.assertEqual((answer.status, answer.error["code"]), (405, "UNSUPPORTED"))
            self.assertEqual(answer["Allow"], "GET, HEAD")
        self.assertAsked()

    def test_deny_lets_tokens_through(self) -> None:
        for target in "/token", "/v2/token":
            self.upstream.on("POST", DENY + target, Reply(200, {}, b"{}"))
            self.assertEqual(self.ask("POST", DENY, target, body=b"x").answer().status, 200)
