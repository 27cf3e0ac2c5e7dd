"""Requests to ``/setup``, on a real site over a connection in memory."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from regproxy.management.pages.rendering import PROXY, Pages
from regproxy.management.setup.facts import Door, Facts
from regproxy.management.setup.resource import SetupResource
from regproxy.management.setup.scripts import Authority
from regproxy.oci.names import Host
from tests.support.certificates import make_ca
from tests.support.sites import House, Response, responses

FACTS = Facts(
    proxy_port=3128,
    mirror=Door("http", 5000),
    name_server="10.0.0.5",
    registries=(Host("docker.io"),),
    plain_http=False,
)
BARE = evolve(FACTS, mirror=None, name_server=None)
PAGES = Pages(PROXY, lambda: datetime(2026, 1, 2, tzinfo=UTC))
PEM = make_ca().certificate_pem
AUTHORITY = Authority.of(PEM)


class SetupCase(SynchronousTestCase):
    """The resource on a real site, over a connection in memory."""

    def ask(
        self,
        path: str,
        *,
        host: bytes | None = b"proxy.example.net:8080",
        at_proxy_port: bool = False,
        facts: Facts = FACTS,
        method: str = "GET",
        accept: str = "*/*",
    ) -> Response:
        """What one request gets, by default one of curl's."""
        root = Resource()
        setup = SetupResource(facts, lambda: PEM, PAGES.render, at_proxy_port=at_proxy_port)
        root.putChild(b"setup", setup)
        field = b"" if host is None else b"Host: " + host + b"\r\n"
        version = "1.0" if host is None else "1.1"
        self.house = House(root)
        head = f"{method} {path} HTTP/{version}\r\nAccept: {accept}\r\n".encode("ascii")
        (answer,) = responses(self.house.ask(head + field + b"\r\n"), method)
        return answer

    def assert_says(self, answer: Response, status: int, said: str) -> None:
        """An error; as a script, it says so."""
        self.assertEqual(answer.status, status, str(answer.body))
        done = subprocess.run(["/bin/sh"], input=answer.body, capture_output=True, check=False)
        self.assertEqual((done.returncode, done.stdout), (1, b""))
        self.assertIn(said, done.stderr.decode())
        self.assertIn(said, str(self.house.log.records[-1].reason))
