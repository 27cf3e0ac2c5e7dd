"""Tests for :mod:`regproxy.management.setup.resource`."""

from __future__ import annotations

import re
import subprocess
from html.parser import HTMLParser
from urllib.parse import quote, urlsplit

from attrs import evolve, frozen
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from regproxy.management.setup.choices import Choices
from regproxy.management.setup.facts import Door, Facts
from regproxy.management.setup.kinds import KINDS
from regproxy.management.setup.resource import SetupResource, bare_page
from regproxy.management.setup.scripts import Authority, script
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


class Reader(HTMLParser):
    """What a page without a style still has."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.commands: list[str] = []
        self._in_code = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        fields = dict(attrs)
        self.tags.append((tag, fields))
        if tag == "a":
            self.links.append(fields["href"] or "")
        if tag == "code":
            self._in_code = True
            self.commands.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "code":
            self._in_code = False

    def handle_data(self, data: str) -> None:
        if self._in_code:
            self.commands[-1] += data


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


class ScriptTests(SetupCase):
    """What goes into a shell."""

    def expected(self, name: str, at: Host, **query: str) -> str:
        return script(Choices.read(KINDS[name], query, at, FACTS), FACTS, AUTHORITY)

    def test_scripts(self) -> None:
        """Each is there, as plain text that nobody stores."""
        for name, kind in KINDS.items():
            for mode in kind.modes:
                answer = self.ask(f"/setup/{name}?mode={mode}&undo=1")
                self.assertEqual(answer.status, 200)
                at = Host("proxy.example.net", 3128)
                self.assertEqual(answer.body, self.expected(name, at, mode=mode, undo="1"))
                self.assertEqual(answer.headers["content-type"], "text/plain; charset=utf-8")
                self.assertEqual(answer.headers["cache-control"], "no-store")
                self.assertEqual(answer.headers["x-content-type-options"], "nosniff")

    def test_where_the_proxy_is(self) -> None:
        """By the client's name for it: at the proxy port with its port, else with the proxy's."""
        for host, at_proxy_port, expected in (
            (b"proxy.example.net:3128", True, Host("proxy.example.net", 3128)),
            (b"balancer.example.net:13128", True, Host("balancer.example.net", 13128)),
            (b"balancer.example.net", True, Host("balancer.example.net", 80)),
            (b"[fd00::5]:8080", False, Host("fd00::5", 3128)),
            (b"10.0.0.5", False, Host("10.0.0.5", 3128)),
        ):
            answer = self.ask("/setup/docker", host=host, at_proxy_port=at_proxy_port)
            self.assertEqual(answer.body, self.expected("docker", expected))

    def test_user_data(self) -> None:
        answer = self.ask("/setup/cloud-init?cloud=aliyun&runtime=containerd&mode=dns")
        self.assertEqual(answer.status, 200)
        self.assertTrue(answer.body.startswith("#cloud-config\n"))
        self.assertIn("aliyun ecs RunInstances", answer.body)

    def test_errors(self) -> None:
        """They are scripts that fail, in case that a shell waits for them."""
        for path, status, said in (
            ("/setup/rkt", 404, "there are docker, containerd"),
            ("/setup/docker/more", 404, "there is no such script"),
            ("/setup/docker?mode=hosts", 400, "expected proxy or dns"),
            ("/setup/docker?no_proxy=%27;id;%27", 400, "no_proxy"),
            ("/setup/docker?undo=1&undo=0", 400, "'undo' is there 2 times"),
            ("/setup/docker?%FF=1", 400, "ASCII"),
        ):
            self.assert_says(self.ask(path), status, said)
        bare = self.ask("/setup/containerd?mode=hosts", facts=BARE)
        self.assert_says(bare, 409, "needs a mirror, and this proxy has none")
        self.assert_says(self.ask("/setup/docker", host=b"a;id"), 400, "Host")
        posted = self.ask("/setup/docker", method="POST")
        self.assert_says(posted, 405, "GET and HEAD")
        self.assertEqual(posted.headers["allow"], "GET, HEAD")

    def test_head(self) -> None:
        answer = self.ask("/setup/docker", method="HEAD")
        self.assertEqual((answer.status, answer.body), (200, ""))

    @given(
        st.sampled_from([*KINDS, "cloud-init", "none"]),
        st.lists(
            st.tuples(st.sampled_from(["no_proxy", "proxy", "mode", "x"]), st.text()), max_size=3
        ),
        st.sampled_from([b"proxy.example.net", b"[fd00::5]:80"])
        | st.binary().filter(lambda each: not set(each) & set(b"\r\n\0")),
    )
    def test_any_request(self, name: str, query: list[tuple[str, str]], host: bytes) -> None:
        """Between single quotes there may be anything; what is outside of them is known."""
        encoded = "&".join(f"{key}={quote(text, errors='replace')}" for key, text in query)
        answer = self.ask(f"/setup/{name}?{encoded}", host=host)
        if not answer.body:
            # What twisted.web itself refuses.
            self.assertEqual(answer.status, 400)
        elif answer.status == 200:
            modes = "&".join(f"mode={text}" for key, text in query if key == "mode")
            plain = self.ask(f"/setup/{name}?{modes}")
            self.assertEqual(_outside(answer.body), _outside(plain.body))
        else:
            pattern = r"#!/bin/sh\nprintf '%s\\n' '([ -&(-~]|'\\'')*' >&2\nexit 1\n"
            self.assertRegex(answer.body, rf"\A{pattern}\Z")


def _outside(text: str) -> str:
    return re.sub(r"(?m)^( *[a-z_]+=)'[^'\n]*'$", r"\1", text)


class PageTests(SetupCase):
    """What people see."""

    def page(
        self, query: str = "", facts: Facts = FACTS, host: bytes = b"proxy.example.net:8080"
    ) -> Reader:
        answer = self.ask(f"/setup{query}", facts=facts, host=host)
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.headers["content-type"], "text/html; charset=utf-8")
        self.text = answer.body
        return Reader(answer.body)

    def test_runtimes(self) -> None:
        """Each is a link to the same page, with its commands, that work."""
        for link in self.page().links:
            if not link.startswith("/setup?runtime="):
                continue
            name = link.partition("=")[2]
            commands = self.page(link.removeprefix("/setup")).commands
            urls = [re.findall(r"'(http://[^']+)'", command) for command in commands]
            self.assertEqual(urls[0], [f"http://proxy.example.net:3128/setup/{name}"])
            for (url,) in urls[:3]:
                parts = urlsplit(url)
                self.assertEqual(parts.netloc, "proxy.example.net:3128")
                self.assertEqual(self.ask(f"{parts.path}?{parts.query}").status, 200)
        self.assertIn("/setup?runtime=k3s", self.page().links)

    def test_slash(self) -> None:
        self.assertIn("/setup?runtime=docker", self.page("/").links)

    def test_choices_are_kept(self) -> None:
        """What was chosen is in the commands and in the form."""
        reader = self.page("?runtime=containerd&mode=hosts&no_proxy=.example.net,10.1.0.0/16")
        url = "http://proxy.example.net:3128/setup/containerd?mode=hosts"
        url += "&no_proxy=.example.net,10.1.0.0/16"
        self.assertIn(f"curl -fsS '{url}' | sudo sh", reader.commands)
        self.assertIn(f"curl -fsS '{url}&undo=1' | sudo sh", reader.commands)
        fields = [fields for tag, fields in reader.tags if tag == "input"]
        self.assertIn(".example.net,10.1.0.0/16", [field.get("value") for field in fields])
        (selected,) = (fields for tag, fields in reader.tags if "selected" in fields)
        self.assertEqual(selected["value"], "hosts")

    def test_form(self) -> None:
        """It works without a script of the browser's, an empty field included."""
        reader = self.page("?runtime=docker&mode=proxy&no_proxy=")
        self.assertIn(
            "curl -fsS 'http://proxy.example.net:3128/setup/docker' | sudo sh", reader.commands
        )
        self.assertNotIn("script", {tag for tag, _ in reader.tags})
        (form,) = (fields for tag, fields in reader.tags if tag == "form")
        self.assertEqual((form["method"], form["action"]), ("get", "/setup"))

    def test_no_mirror(self) -> None:
        """What cannot be is said to be so, with the reason."""
        reader = self.page("?runtime=containerd", BARE)
        (hosts,) = (fields for _, fields in reader.tags if fields.get("value") == "hosts")
        self.assertIn("disabled", hosts)
        self.assertIn("set listen in [mirror]", self.text)
        self.page("?runtime=containerd&mode=hosts", BARE)
        self.assertIn("set listen in [mirror]", self.text)

    def test_clouds(self) -> None:
        """User-data for each."""
        links = [each for each in self.page("?runtime=containerd").links if "cloud-init" in each]
        self.assertEqual(len(links), 4)
        for link in links:
            self.assertEqual(self.ask(link).status, 200)
        self.assertEqual(
            [each for each in self.page("?runtime=k3s").links if "cloud-init" in each], []
        )

    def test_fingerprint(self) -> None:
        self.page()
        self.assertIn(AUTHORITY.fingerprint, self.text)

    def test_errors(self) -> None:
        """Told on the page, and escaped."""
        for query in "?runtime=%3Cscript%3E", "?no_proxy=%3Cscript%3E", "?x=1":
            self.page(query)
            self.assertNotIn("<script>", self.text)
            self.assertIn('role="alert"', self.text)
        self.page(host=b"a;<script>")
        self.assertIn('role="alert"', self.text)

    def test_policy(self) -> None:
        """Forms go to this site only, and nothing from elsewhere is loaded."""
        policy = self.ask("/setup").headers["content-security-policy"]
        self.assertIn("default-src 'none'", policy)
        self.assertIn("form-action 'self'", policy)
