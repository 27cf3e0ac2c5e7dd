"""Tests for :mod:`regproxy.management.pages.ca`."""

from __future__ import annotations

from datetime import timedelta

from attrs import evolve

from regproxy.management.values import RootValue
from tests.support.management import CA, NEXT_CA, NOW, FakeAuthority
from tests.support.pages import PagesCase


class PageTests(PagesCase):
    """``/ca``"""

    def test_one(self) -> None:
        """The one in use, and how to get and check it."""
        page = self.page("/ca")
        text = page.one("main").text
        for shown in (CA.fingerprint, CA.subject, "9 March 2036", "3,652 days left"):
            self.assertIn(shown, text)
        self.assertNotIn("Announced", text)
        links = [each.attributes["href"] for each in page.one("main").all("a")]
        self.assertEqual(links[:2], ["/ca.crt", "/ca.der"])
        self.assertIn("this page came over plain HTTP", text)

    def test_announced(self) -> None:
        """Both, and what to do."""
        self.fake.authority = FakeAuthority(evolve(CA, next=NEXT_CA))
        page = self.page("/ca")
        titles = [each.text for each in page.all("h2")]
        self.assertEqual(titles[:2], ["In use", "Announced"])
        self.assertIn(NEXT_CA.fingerprint, page.text)
        self.assertIn("regproxy ca rotate", page.text)

    def test_previous(self) -> None:
        old = RootValue("CN=old", "AA:BB", NOW - timedelta(days=1))
        self.fake.authority = FakeAuthority(evolve(CA, previous=(old,)))
        page = self.page("/ca")
        self.assertIn("No longer in use", [each.text for each in page.all("h2")])
        self.assertIn("expired", page.text)

    def test_proxy(self) -> None:
        """The proxy is told by the reader's name for it."""
        for host, url in (
            ("proxy.example:8080", "http://proxy.example:3128"),
            ("[2001:db8::1]:80", "http://[2001:db8::1]:3128"),
        ):
            answer = self.ask("/ca", host=host)
            self.assertIn(f"HTTPS_PROXY={url}".encode(), answer.body)

    def test_proxy_by_tls(self) -> None:
        """It is told as the port wants it."""
        self.facts = evolve(self.facts, tls_ports=frozenset({3128}))
        self.assertIn(b"HTTPS_PROXY=https://localhost:3128", self.ask("/ca").body)

    def test_nameless(self) -> None:
        """HTTP/1.0 needs no name."""
        answer = self.house().ask(b"GET /ca HTTP/1.0\r\n\r\n")
        self.assertIn(b"HTTPS_PROXY=http://PROXY:3128", answer)

    def test_hostile_host(self) -> None:
        """A Host field that is none does not reach the page."""
        for host in ("<script>", "a'b", '"', "a b"):
            answer = self.ask("/ca", host=host)
            self.assertEqual(answer.status, 400)
            self.assertNotIn(b"<html", answer.body)


class CertificateTests(PagesCase):
    """``/ca.crt`` and ``/ca.der``"""

    def test_pem(self) -> None:
        """As browsers and people with curl want it."""
        answer = self.ask("/ca.crt")
        self.assertEqual((answer.status, answer.body), (200, self.fake.authority.pem()))
        self.assertEqual(answer.headers["content-type"], "application/x-x509-ca-cert")
        self.assertEqual(answer.headers["content-disposition"], 'inline; filename="regproxy.crt"')
        self.assertEqual(answer.headers["cache-control"], "no-store")

    def test_der(self) -> None:
        answer = self.ask("/ca.der")
        self.assertEqual((answer.status, answer.body), (200, self.fake.authority.der()))
        self.assertEqual(answer.headers["content-type"], "application/x-x509-ca-cert")
        self.assertEqual(answer.headers["content-disposition"], 'inline; filename="regproxy.der"')
