"""Tests for :mod:`regproxy.registry.resource`: requests at the door."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail

from regproxy.oci.names import Digest
from regproxy.upstream.errors import AddressRefused, UpstreamTimeout
from tests.support.front import DENY, MOVED, OPEN, OTHER, Client, FrontTestCase
from tests.support.upstream import Reply

BLOB = bytes(1000)


class HostTests(FrontTestCase):
    """Which registry is meant."""

    def status(self, entered: str | None, sni: str | None, host: str | None) -> int:
        """What a request gets that came by this road."""
        for name in OPEN, OTHER, MOVED:
            self.upstream.on("GET", f"{name}/v2/", Reply(200))
        client = self.client(entered, sni)
        client.send("GET", "/v2/", {} if host is None else {"Host": host})
        return client.answer().status

    def test_agree(self) -> None:
        """CONNECT, SNI and Host, as far as there are any."""
        for entered, sni, host in (
            (OPEN, OPEN, OPEN),
            (OPEN, None, OPEN),
            (OPEN, OPEN, OPEN.upper()),
            (OPEN, OPEN.upper(), f"{OPEN}:443"),
            (None, OPEN, OPEN),
            (None, None, OPEN),
            (MOVED, "moved.example.com", MOVED),
        ):
            self.assertEqual(self.status(entered, sni, host), 200, (entered, sni, host))

    def test_disagree(self) -> None:
        """Else it is the wrong connection for the request (RFC 9110 section 15.5.20)."""
        for entered, sni, host in (
            (OPEN, OPEN, OTHER),
            (OPEN, OTHER, OPEN),
            (OTHER, OPEN, OPEN),
            (None, OPEN, OTHER),
            (OPEN, OPEN, f"{OPEN}:5000"),
            (MOVED, "moved.example.com", "moved.example.com"),
        ):
            self.assertEqual(self.status(entered, sni, host), 421, (entered, sni, host))
        self.assertAsked()

    def test_421(self) -> None:
        """It is an error that a registry client can print."""
        client = self.client(OPEN, OPEN)
        client.send("GET", "/v2/", {"Host": OTHER})
        self.assertEqual(client.answer().error["code"], "UNSUPPORTED")

    def test_no_registry(self) -> None:
        """A host that is none of the registries is refused."""
        client = self.client(None, "example.org")
        client.send("GET", "/v2/", {"Host": "example.org"})
        answer = client.answer()
        self.assertEqual((answer.status, answer.error["code"]), (403, "DENIED"))
        self.assertEqual(answer["Proxy-Status"], "regproxy; error=http_request_denied")

    def test_alias(self) -> None:
        """Docker Hub has three names and is one registry."""
        for name in "docker.io", "index.docker.io", "registry-1.docker.io":
            self.upstream.on("GET", "registry-1.docker.io/v2/", Reply(200))
            self.assertEqual(self.get(name, "/v2/").status, 200)
            self.assertAsked("GET registry-1.docker.io/v2/")


class BodyTests(FrontTestCase):
    """Request bodies go upstream as they arrive."""

    target = "/v2/app/blobs/uploads/some-id"

    def begin(self, host: str, method: str = "PATCH") -> Client:
        """Send a head and a part of the body of 10 bytes."""
        client = self.client(host, host)
        client.send(method, self.target, {"Host": host, "Content-Length": "10"})
        client.stream.send(b"01234")
        return client

    def test_streamed(self) -> None:
        self.upstream.on("PATCH", OPEN + self.target, Reply(202))
        client = self.begin(OPEN)
        self.assertEqual(client.answer().status, 0)
        client.stream.send(b"56789")
        self.assertEqual(client.answer().status, 202)
        self.assertEqual(self.upstream.asked[0].body, b"0123456789")

    def test_client_leaves(self) -> None:
        """Upstream never hears of a part as of a whole."""
        client = self.begin(OPEN)
        client.leave()
        self.assertAsked()
        (record,) = self.log.records
        self.assertEqual((record.method, record.status), ("PATCH", 499))

    def test_denied(self) -> None:
        """A push that is not allowed is refused before its body is read."""
        answer = self.begin(DENY).answer()
        self.assertEqual((answer.status, answer["Connection"]), (405, "close"))

    def test_upstream_fails(self) -> None:
        """As when it cannot be reached: the client need not send all for that."""
        failing = fail(UpstreamTimeout("no answer"))
        self.patch(self.upstream, "request", lambda *args, **options: failing)
        answer = self.begin(OPEN).answer()
        self.assertEqual((answer.status, answer["Connection"]), (504, "close"))

    def test_reads_have_none(self) -> None:
        """What a client sends with a GET stays here."""
        self.upstream.on("GET", OPEN + self.target, Reply(204))
        client = self.begin(OPEN, "GET")
        self.assertEqual(client.answer().status, 204)
        self.assertEqual(self.upstream.asked[0].body, b"")


class RequestTests(FrontTestCase):
    """Requests that are refused."""

    def test_malformed(self) -> None:
        """With the specification's codes; upstream hears nothing of them."""
        for target, code in (
            ("/v2/APP/manifests/latest", "NAME_INVALID"),
            ("/v2/app/manifests/.x", "MANIFEST_INVALID"),
            ("/v2/app/blobs/sha256:abc", "DIGEST_INVALID"),
            ("/v2/app/../../x/manifests/latest", "UNSUPPORTED"),
            ("/v2/app%2Fx/manifests/latest", "UNSUPPORTED"),
        ):
            answer = self.get(OPEN, target)
            self.assertEqual((answer.status, answer.error["code"]), (400, code), target)
        self.assertAsked()

    def test_two_logins(self) -> None:
        client = self.client(OPEN)
        client.send("GET", "/v2/", {"Host": OPEN, "Authorization": "a", "authorization": "b"})
        self.assertEqual(client.answer().status, 400)

    def test_keep_alive(self) -> None:
        """A connection serves one request after the other, also after an error."""
        self.upstream.on("GET", f"{OPEN}/v2/", Reply(200, {}, b"{}"))
        client = self.client(OPEN)
        for target, status in ("/v2/", 200), ("/v2/A/tags/list", 400), ("/v2/", 200):
            client.send("GET", target, {"Host": OPEN})
            self.assertEqual(client.answer().status, status)


class FailureTests(FrontTestCase):
    """Failures become answers."""

    def test_refused_address(self) -> None:
        self.upstream.on("GET", f"{OPEN}/v2/", AddressRefused("10.0.0.1 is private"))
        answer = self.get(OPEN, "/v2/")
        self.assertEqual((answer.status, answer.error["code"]), (403, "DENIED"))
        self.assertEqual(answer["Proxy-Status"], "regproxy; error=destination_ip_prohibited")

    def test_before_the_first_byte(self) -> None:
        """An answer that fails before its body began is an error, with nothing of the answer."""
        headers = {"ETag": '"x"', "Link": "<x>", "Content-Type": "x/y"}
        self.upstream.on("GET", f"{OPEN}/v2/_catalog", Reply(200, headers, None, 10))
        client = self.ask("GET", OPEN, "/v2/_catalog")
        self.clock.advance(self.config.limits.upstream_idle)
        answer = client.answer()
        self.assertEqual((answer.status, answer.error["code"]), (504, "UNAVAILABLE"))
        self.assertIsNone(answer["ETag"])
        self.assertIsNone(answer["Link"])

    def test_in_the_middle(self) -> None:
        """One that fails later is cut short."""
        self.upstream.on("GET", f"{OPEN}/v2/_catalog", Reply(200, {}, None, 10))
        client = self.ask("GET", OPEN, "/v2/_catalog")
        self.upstream.responses[0].send(b"abc")
        client.answer()
        self.clock.advance(self.config.limits.upstream_idle)
        self.assertFalse(client.answer().whole)
        self.assertTrue(client.cut)

    def test_a_fault_of_our_own(self) -> None:
        """It is logged with its traceback, and the client is told no more than that."""
        self.upstream.on("GET", f"{OPEN}/v2/", ZeroDivisionError("secret"))
        answer = self.get(OPEN, "/v2/")
        self.assertEqual((answer.status, answer.error["code"]), (500, "UNKNOWN"))
        self.assertNotIn("secret", answer.error["message"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_slow_client(self) -> None:
        """A client that takes nothing is cut off, and its upstream let go."""
        self.upstream.on("GET", f"{OPEN}/v2/_catalog", Reply(200, {}, None))
        client = self.ask("GET", OPEN, "/v2/_catalog")
        (response,) = self.upstream.responses
        response.send(bytes(1 << 20))
        self.assertTrue(response.paused)
        self.clock.advance(301)
        self.assertTrue(client.cut)
        client.answer()
        self.assertTrue(response.aborted)


class LogTests(FrontTestCase):
    """The access log."""

    def test_pull(self) -> None:
        target = self.upstream.serve_blob(OPEN, "some/app", BLOB)
        for cache in "miss", "hit":
            self.get(OPEN, target + "?secret=1", "Bearer secret")
            record = self.log.records.pop()
            self.assertEqual(record.method, "GET")
            self.assertEqual((record.way, record.client), ("connect", "192.0.2.1"))
            self.assertEqual((record.registry, record.repository), (OPEN, "some/app"))
            self.assertEqual(record.reference, str(Digest.of(BLOB)))
            self.assertEqual((record.status, record.bytes), (200, len(BLOB)))
            self.assertEqual((record.cache, record.kind), (cache, "blob"))
            self.assertNotIn("secret", str(record))

    def test_other_path(self) -> None:
        """The path stands for a reference, without the query."""
        self.upstream.on("GET", f"{OPEN}/token?account=secret", Reply(200))
        self.get(OPEN, "/token?account=secret")
        (record,) = self.log.records
        self.assertEqual((record.reference, record.cache), ("/token", "pass"))
        self.assertEqual(record.kind, "token")

    def test_error(self) -> None:
        """The reason is what the client is told."""
        self.upstream.on("GET", f"{OPEN}/v2/", UpstreamTimeout("too slow"))
        self.get(OPEN, "/v2/")
        (record,) = self.log.records
        self.assertEqual((record.status, record.reason, record.cache), (504, "too slow", "none"))

    def test_client_left(self) -> None:
        self.upstream.on("GET", f"{OPEN}/v2/", Deferred())
        self.ask("GET", OPEN, "/v2/").leave()
        (record,) = self.log.records
        self.assertEqual((record.status, record.registry), (499, OPEN))

    def test_cut(self) -> None:
        target = self.upstream.serve_blob(OPEN, "app", BLOB)
        self.upstream.on("GET", OPEN + target, Reply(200, {}, None, len(BLOB)))
        client = self.ask("GET", OPEN, target)
        (response,) = self.upstream.responses
        response.send(b"a")
        client.answer()
        response.send(b"b" * 999)
        response.end()
        client.answer()
        (record,) = self.log.records
        self.assertEqual((record.status, record.repository), (200, "app"))
        self.assertLess(record.bytes, len(BLOB))
        self.assertIn("content is sha256:", record.reason or "")
