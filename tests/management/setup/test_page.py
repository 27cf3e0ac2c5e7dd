"""Tests for :mod:`regproxy.management.setup.page`."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import urlsplit

from attrs import evolve

from regproxy.management.setup.facts import Facts
from tests.management.setup.asking import AUTHORITY, BARE, FACTS, SetupCase


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


class PageTests(SetupCase):
    """What people see."""

    def page(
        self,
        query: str = "",
        facts: Facts = FACTS,
        host: bytes = b"proxy.example.net:8080",
        status: int = 200,
    ) -> Reader:
        browser = "text/html,*/*;q=0.8"
        answer = self.ask(f"/setup{query}", facts=facts, host=host, accept=browser)
        self.assertEqual(answer.status, status)
        self.assertEqual(answer.headers["content-type"], "text/html; charset=utf-8")
        self.text = answer.body.decode()
        return Reader(self.text)

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
        self.assertIn(f"curl -sS '{url}' | sudo sh", reader.commands)
        self.assertIn(f"curl -sS '{url}&undo=1' | sudo sh", reader.commands)
        fields = [fields for tag, fields in reader.tags if tag == "input"]
        self.assertIn(".example.net,10.1.0.0/16", [field.get("value") for field in fields])
        (selected,) = (fields for tag, fields in reader.tags if "selected" in fields)
        self.assertEqual(selected["value"], "hosts")

    def test_form(self) -> None:
        """It works without a script of the browser's, an empty field included."""
        reader = self.page("?runtime=docker&mode=proxy&no_proxy=")
        self.assertIn(
            "curl -sS 'http://proxy.example.net:3128/setup/docker' | sudo sh", reader.commands
        )
        self.assertNotIn("script", {tag for tag, _ in reader.tags})
        (form,) = (fields for tag, fields in reader.tags if tag == "form")
        self.assertEqual((form["method"], form["action"]), ("get", "/setup"))

    def test_proxy_by_tls(self) -> None:
        """Commands, and the proxy in their scripts, as the port wants it."""
        facts = evolve(FACTS, tls_ports=frozenset({3128}))
        command = self.page(facts=facts).commands[0]
        self.assertIn("'https://proxy.example.net:3128/setup/docker'", command)
        script = self.ask("/setup/docker", facts=facts).body.decode()
        self.assertIn("\nproxy='https://proxy.example.net:3128'\n", script)

    def test_no_mirror(self) -> None:
        """What cannot be is said to be so, with the reason."""
        reader = self.page("?runtime=containerd", BARE)
        (hosts,) = (fields for _, fields in reader.tags if fields.get("value") == "hosts")
        self.assertIn("disabled", hosts)
        self.assertIn("set listen in [mirror]", self.text)
        self.page("?runtime=containerd&mode=hosts", BARE, status=409)
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
            self.page(query, status=400)
            self.assertNotIn("<script>", self.text)
            self.assertIn('role="alert"', self.text)

    def test_policy(self) -> None:
        """Forms go to this site only, and nothing from elsewhere is loaded."""
        policy = self.ask("/setup").headers["content-security-policy"]
        self.assertIn("default-src 'none'", policy)
        self.assertIn("form-action 'self'", policy)
