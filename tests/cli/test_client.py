"""Tests of regproxy.cli.client."""

from __future__ import annotations

import gzip
import io
import os
import socket
import threading

from twisted.trial.unittest import SynchronousTestCase

from regproxy.cli.client import Client
from regproxy.cli.errors import CommandFailed, NotAllowed, NotReachable
from regproxy.cli.settings import Settings
from regproxy.oci.names import Digest
from tests.support.management_api import Answer, ManagementApi, problem


class ClientTests(SynchronousTestCase):
    """Client"""

    def setUp(self) -> None:
        self.api = ManagementApi().start()
        self.addCleanup(self.api.stop)
        self.client = Client(Settings(self.api.url, "Bearer t"))

    def test_get(self) -> None:
        """The login goes along; what is None is not asked for."""
        self.api.script("GET", "images", {"a": 1})
        self.assertEqual(self.client.get("images", q="a b&c", registry=None, limit=5), {"a": 1})
        [asked] = self.api.asked
        self.assertEqual(asked.query, {"q": "a b&c", "limit": "5"})
        self.assertEqual(asked.authorization, "Bearer t")

    def test_methods(self) -> None:
        """Bodies are JSON; an answer may be empty."""
        for method in ("POST", "PUT", "DELETE"):
            self.api.script(method, "image/pin", Answer(None, 204))
        reference = "ghcr.io/o/a@sha256:00"
        self.assertIsNone(self.client.post("image/pin", {"digest": "d"}, reference=reference))
        self.assertIsNone(self.client.put("image/pin", reference=reference))
        self.assertIsNone(self.client.delete("image/pin", reference=reference))
        self.assertEqual(
            [(each.method, each.body, each.query) for each in self.api.asked],
            [
                ("POST", {"digest": "d"}, {"reference": reference}),
                ("PUT", None, {"reference": reference}),
                ("DELETE", None, {"reference": reference}),
            ],
        )

    def test_items(self) -> None:
        """A list is followed part by part, and no further than it is read."""
        self.api.script(
            "GET", "images", {"items": [1, 2], "next": "c"}, {"items": [3], "next": None}
        )
        items = self.client.items("images", sort="bytes")
        self.assertEqual([next(items), next(items)], [1, 2])
        self.assertEqual(len(self.api.asked), 1)
        self.assertEqual(list(items), [3])
        first, second = self.api.asked
        self.assertEqual(first.query, {"sort": "bytes", "limit": "1000"})
        self.assertEqual(second.query, {"sort": "bytes", "limit": "1000", "cursor": "c"})

    def test_no_list(self) -> None:
        self.api.script("GET", "images", [1])
        self.assertRaises(CommandFailed, list, self.client.items("images"))

    def test_has(self) -> None:
        digest = str(Digest.of(b"a"))
        self.assertFalse(self.client.has(f"blobs/{digest}"))
        self.api.contents[digest] = b"a"
        self.assertTrue(self.client.has(f"blobs/{digest}"))
        self.api.script("GET", f"blobs/{digest}", problem(403, "not you"))
        self.assertRaises(NotAllowed, self.client.has, f"blobs/{digest}")

    def test_streams(self) -> None:
        """Contents go both ways as they are."""
        content = os.urandom(1_000_000)
        digest = str(Digest.of(content))
        self.client.upload(f"blobs/{digest}", io.BytesIO(content), len(content))
        self.assertEqual(self.api.contents, {digest: content})
        with self.client.download(f"blobs/{digest}/content") as response:
            self.assertEqual(response.read(400_000), content[:400_000])
            self.assertEqual(response.read(), content[400_000:])

    def test_compressed_content_stays_so(self) -> None:
        """Else it would have another digest."""
        content = gzip.compress(b"content")
        self.api.script("GET", "x", Answer(content, headers={"Content-Encoding": "gzip"}))
        with self.client.download("x") as response:
            self.assertEqual(response.read(), content)

    def test_page(self) -> None:
        """The site has pages beside the API."""
        self.api.script("GET", "/ca.crt", Answer(b"PEM"))
        self.assertEqual(self.client.page("/ca.crt"), b"PEM")

    def test_problems(self) -> None:
        """What the server says is what is told."""
        for status, kind, expected in (
            (400, CommandFailed, "the reason"),
            (401, NotAllowed, "the reason: give one with --token-file or --user, REGPROXY_TOKEN,"),
            (403, NotAllowed, "the reason"),
            (404, CommandFailed, "the reason"),
            (500, CommandFailed, "the reason"),
        ):
            self.api.script("GET", "stats", problem(status, "the\x1b reason"))
            error = self.assertRaises(kind, self.client.get, "stats")
            self.assertIs(type(error), kind)
            self.assertIn(expected, error.message.replace("\ufffd", ""))

    def test_bare_errors(self) -> None:
        """Other servers say it in other ways."""
        for answer, kind in (
            (Answer(b"<html>", 404, "text/html"), CommandFailed),
            (Answer(b"<html>", 403, "text/html"), NotAllowed),
            (Answer(b"<html>", 401, "text/html"), NotAllowed),
            (Answer(b"<html>", 200, "text/html"), CommandFailed),
            (Answer(b"[" * 9999, 200), CommandFailed),
            (Answer([], 200), CommandFailed),
            (Answer(b"{", 400, "application/problem+json"), CommandFailed),
            (Answer([], 400, "application/problem+json"), CommandFailed),
            (Answer({"detail": 1}, 400, "application/problem+json"), CommandFailed),
        ):
            self.api.script("GET", "stats", answer)
            error = self.assertRaises(kind, self.client.get, "stats")
            self.assertIs(type(error), kind)

    def test_redirects_are_not_followed(self) -> None:
        """A login is for one server."""
        self.api.script("GET", "stats", Answer(b"", 302, headers={"Location": "/other"}))
        self.assertRaises(CommandFailed, self.client.get, "stats")
        self.assertEqual(len(self.api.asked), 1)

    def test_proxies_of_the_environment(self) -> None:
        """On a node they lead to the registries' way, which is none to the management site."""
        self.patch(os, "environ", {**os.environ, "http_proxy": "http://127.0.0.1:1"})
        self.api.script("GET", "stats", {})
        self.assertEqual(self.client.get("stats"), {})


class _Once(threading.Thread):
    """Takes one connection, reads a request, says something and closes."""

    def __init__(self, server: socket.socket, told: bytes) -> None:
        super().__init__()
        self._server = server
        self._told = told
        self.start()

    def run(self) -> None:
        connection, _ = self._server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(self._told)


class UnreachableTests(SynchronousTestCase):
    """Client, where there is no server."""

    def message(self, url: str) -> str:
        client = Client(Settings(url, "Bearer secret"))
        message: str = self.assertRaises(NotReachable, client.get, "stats").message
        self.assertNotIn("secret", message)
        self.assertIn(url, message)
        return message

    def test_nothing_listens(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        self.assertIn("nothing listens there", self.message(f"http://127.0.0.1:{port}"))

    def test_unknown_name(self) -> None:
        self.assertIn("its name is not known", self.message("http://no-such-host.invalid"))

    def test_no_tls(self) -> None:
        api = ManagementApi().start()
        self.addCleanup(api.stop)
        url = api.url.replace("http:", "https:")
        self.assertIn("its certificate is not trusted or TLS fails", self.message(url))

    def test_broken_connection(self) -> None:
        """The server goes away without an answer, or in the midst of one."""
        for told in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"):
            with socket.create_server(("127.0.0.1", 0)) as server:
                url = f"http://127.0.0.1:{server.getsockname()[1]}"
                thread = _Once(server, told)
                self.assertIn("the connection broke", self.message(url))
                thread.join()
