"""Tests for :mod:`regproxy.registry.ask`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from regproxy.config.model import Auth, RegistrySection
from regproxy.interfaces import OWN_LOGIN
from regproxy.oci.media_types import DEFAULT_ACCEPT
from regproxy.oci.names import Digest, Host
from regproxy.oci.routes import parse_route
from regproxy.registry.ask import Ask, length_of, media_type_of, subject
from tests.support.upstream import FakeResponse, Reply

DIGEST = Digest.of(b"content")


def ask(section: RegistrySection | None = None, **headers: list[str]) -> Ask:
    """A GET of Alice's."""
    return Ask(
        b"GET",
        Host("registry.example.com"),
        section or RegistrySection(),
        parse_route(b"/v2/app/manifests/latest"),
        Headers({name.replace("_", "-"): values for name, values in headers.items()}),
        b"Bearer alice",
    )


class AskTests(SynchronousTestCase):
    """Ask"""

    def test_login(self) -> None:
        """The client's, unless the proxy's own is used; that one no client can send."""
        self.assertEqual(ask().login, b"Bearer alice")
        own = RegistrySection(username="team", password="secret")
        self.assertEqual(ask(own).login, OWN_LOGIN)
        forward = RegistrySection(username="team", password="secret", auth=Auth.FORWARD)
        self.assertEqual(ask(forward).login, b"Bearer alice")
        self.assertIn(b"\n", OWN_LOGIN)

    def test_content_headers(self) -> None:
        """Accept, all lines of it, and who asks."""
        headers = ask(accept=["a/b", "c/d"], user_agent=["x"], range=["y"]).content_headers()
        self.assertEqual(
            sorted(headers.getAllRawHeaders()),
            [(b"Accept", [b"a/b", b"c/d"]), (b"User-Agent", [b"x"])],
        )
        headers = ask().content_headers()
        self.assertEqual(headers.getRawHeaders("accept"), [DEFAULT_ACCEPT])

    def test_repr(self) -> None:
        """A client's login does not get into a traceback."""
        self.assertNotIn("alice", repr(ask()))


class ResponseTests(SynchronousTestCase):
    """media_type_of, length_of"""

    def test_media_type(self) -> None:
        for headers, expected in (
            ({"Content-Type": " a/b; c=d "}, "a/b; c=d"),
            ({"Content-Type": ["a/b", "c/d"]}, "a/b"),
            ({"Content-Type": ""}, "application/octet-stream"),
            ({}, "application/octet-stream"),
        ):
            self.assertEqual(media_type_of(FakeResponse(b"GET", Reply(200, headers))), expected)

    def test_length(self) -> None:
        """Of what a GET gets or would get, if it is known."""
        for method in b"GET", b"HEAD":
            self.assertEqual(length_of(FakeResponse(method, Reply(body=b"abc"))), 3)
            self.assertIsNone(length_of(FakeResponse(method, Reply(length=-1))))
        for values in ["x"], ["-1"], ["1", "2"]:
            reply = Reply(200, {"Content-Length": values}, length=-1)
            self.assertIsNone(length_of(FakeResponse(b"HEAD", reply)))


class SubjectTests(SynchronousTestCase):
    """subject"""

    def test_subject(self) -> None:
        for target, expected in (
            (b"/v2/a/b/manifests/latest", ("a/b", "latest")),
            (f"/v2/a/manifests/{DIGEST}".encode(), ("a", str(DIGEST))),
            (f"/v2/a/blobs/{DIGEST}".encode(), ("a", str(DIGEST))),
            (f"/v2/a/referrers/{DIGEST}".encode(), ("a", str(DIGEST))),
            (b"/v2/a/tags/list", ("a", None)),
            (b"/v2/a/blobs/uploads/x", ("a", None)),
            (b"/v2/", (None, None)),
            (b"/token", (None, None)),
        ):
            self.assertEqual(subject(parse_route(target)), expected)
