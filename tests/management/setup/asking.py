"""Requests to ``/setup``, on a real site over a connection in memory."""

from __future__ import annotations

import subprocess

from attrs import evolve, frozen
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from regproxy.management.setup.facts import Door, Facts
from regproxy.management.setup.page import bare_page
from regproxy.management.setup.resource import SetupResource
from regproxy.management.setup.scripts import Authority
from regproxy.oci.names import Host
from tests.support.certificates import make_ca

FACTS = Facts(
    proxy_port=3128,
    mirror=Door("http", 5000),
    name_server="10.0.0.5",
    registries=(Host("docker.io"),),
    plain_http=False,
)
BARE = evolve(FACTS, mirror=None, name_server=None)
PEM = make_ca().certificate_pem
AUTHORITY = Authority.of(PEM)


@frozen
class Answer:
    """A response, taken apart."""

    status: int
    headers: dict[str, str]
    body: str


class SetupCase(SynchronousTestCase):
    """The resource on a real site, over a connection in memory."""

    def ask(
        self,
        path: str,
        *,
        host: bytes = b"proxy.example.net:8080",
        at_proxy_port: bool = False,
        facts: Facts = FACTS,
        method: str = "GET",
    ) -> Answer:
        """What one request gets."""
        root = Resource()
        setup = SetupResource(facts, lambda: PEM, bare_page, at_proxy_port=at_proxy_port)
        root.putChild(b"setup", setup)
        channel = Site(root, reactor=Clock()).buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        transport = StringTransport()
        channel.makeConnection(transport)
        # HTTP/1.0, so that no body is chunked.
        head = f"{method} {path} HTTP/1.0\r\nHost: ".encode("ascii")
        channel.dataReceived(head + host + b"\r\n\r\n")
        head, _, body = transport.value().partition(b"\r\n\r\n")
        status_line, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        return Answer(
            int(status_line.split()[1]),
            {name.lower(): value for name, value in headers.items()},
            body.decode(),
        )

    def assert_says(self, answer: Answer, status: int, said: str) -> None:
        """An error; as a script, it says so."""
        self.assertEqual(answer.status, status, answer.body)
        done = subprocess.run(
            ["/bin/sh"], input=answer.body, capture_output=True, text=True, check=False
        )
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn(said, done.stderr)
