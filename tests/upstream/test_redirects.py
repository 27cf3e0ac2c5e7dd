"""Tests for :mod:`regproxy.upstream.redirects`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.names import Host
from regproxy.upstream.errors import RedirectRefused
from regproxy.upstream.redirects import URL, encoded, redirected

HERE = URL.parse("https://registry.example.test/v2/a/blobs/x?ns=1")


class URLTests(SynchronousTestCase):
    """:class:`URL`."""

    def test_parse(self) -> None:
        """Scheme, host with the scheme's port, path and query; the fragment goes."""
        urls = {
            "https://A.test": URL("https", Host("a.test"), "/"),
            "http://a.test": URL("http", Host("a.test", 80), "/"),
            "https://a.test:5000/p?q=1#f": URL("https", Host("a.test", 5000), "/p?q=1"),
            "http://[::1]:80?q": URL("http", Host("::1", 80), "/?q"),
            "https://a.test//b%2Fc": URL("https", Host("a.test"), "//b%2Fc"),
        }
        self.assertEqual(urls, {text: URL.parse(text) for text in urls})

    def test_text(self) -> None:
        """The port of the scheme is left out."""
        for text in (
            "https://a.test/",
            "http://a.test/",
            "https://a.test:80/p?q",
            "http://a.test:443/",
            "http://[::1]/",
            "https://[::1]:5000/",
        ):
            self.assertEqual(str(URL.parse(text)), text)

    def test_refused(self) -> None:
        """Other schemes, user information, and what is no host."""
        for text in (
            "",
            "/v2/",
            "ftp://a.test/",
            "file:///etc/passwd",
            "https://",
            "https://u@a.test/",
            "https://u:p@a.test/",
            "https://a.test:0/",
            "https://a.test:x/",
            "https://0x7f.1/",
            "https://[::1/",
            "https://a b/",
            "https://a.test\\@b.test/",
            "https://[fe80::1%25eth0]/",
        ):
            self.assertRaises(ValueError, URL.parse, text)

    def test_target_stays_behind_the_host(self) -> None:
        """No target can change the host that it is asked of."""
        for target in ("", "x", "@evil.test/", ".evil.test/", "/a b", "/a\r\nb"):
            self.assertRaises(ValueError, URL, "https", Host("a.test"), target)

    def test_under(self) -> None:
        """The base gives server and prefix, with or without its last slash."""
        for base in ("http://mirror.test:5000/hub", "http://mirror.test:5000/hub/"):
            self.assertEqual(
                str(HERE.under(URL.parse(base))),
                "http://mirror.test:5000/hub/v2/a/blobs/x?ns=1",
            )
        self.assertEqual(HERE.under(URL.parse("https://registry.example.test")), HERE)

    def test_asking(self) -> None:
        """More fields of the query, encoded, after what is there."""
        url = URL.parse("https://a.test/t")
        self.assertIs(url.asking({}), url)
        url = url.asking({"a": "b c"})
        self.assertEqual(str(url), "https://a.test/t?a=b+c")
        self.assertEqual(str(url.asking({"d": "&"})), "https://a.test/t?a=b+c&d=%26")

    def test_origin(self) -> None:
        """Scheme, host and port together."""
        urls = ["https://a.test", "http://a.test", "https://a.test:80", "https://b.test"]
        self.assertEqual(len({URL.parse(url).origin for url in urls}), 4)
        self.assertEqual(URL.parse("https://A.test:443/x").origin, URL.parse(urls[0]).origin)

    @given(st.binary())
    def test_encoded(self, raw: bytes) -> None:
        """Whatever bytes come, what goes out is visible ASCII."""
        assert all(0x21 <= ord(character) <= 0x7E for character in encoded(raw))

    def test_encoded_keeps(self) -> None:
        """What is encoded already stays as it is: signatures are over the exact text."""
        text = "/a%2Fb?X-Amz-Signature=ab%20c+d&e=~!$'()*,;:@[]"
        self.assertEqual(encoded(text.encode()), text)


class RedirectedTests(SynchronousTestCase):
    """:func:`redirected`."""

    def lead(self, *locations: bytes) -> str:
        return str(redirected(HERE, locations))

    def test_absolute(self) -> None:
        self.assertEqual(self.lead(b"https://cdn.test/b?s=%2B"), "https://cdn.test/b?s=%2B")
        self.assertEqual(self.lead(b"http://cdn.test/b"), "http://cdn.test/b")

    def test_relative(self) -> None:
        """RFC 3986 section 5."""
        self.assertEqual(self.lead(b"/p?q"), "https://registry.example.test/p?q")
        self.assertEqual(self.lead(b"y"), "https://registry.example.test/v2/a/blobs/y")
        self.assertEqual(self.lead(b"../y"), "https://registry.example.test/v2/a/y")
        self.assertEqual(self.lead(b"?q"), "https://registry.example.test/v2/a/blobs/x?q")
        self.assertEqual(self.lead(b"//cdn.test/b"), "https://cdn.test/b")

    def test_encoded(self) -> None:
        """What servers send without encoding it."""
        self.assertEqual(self.lead(b" /a b\xc3\xa9 "), "https://registry.example.test/a%20b%C3%A9")

    def test_refused(self) -> None:
        """The reason is given, the URL is not: its query may be a signature."""
        for location in (b"https://u:secret@a.test/", b"ftp://a.test/?secret", b"//:1/?secret"):
            error = self.assertRaises(RedirectRefused, self.lead, location)
            self.assertNotIn("secret", str(error))
            self.assertIn("registry.example.test", str(error))

    def test_count(self) -> None:
        """One Location, not none and not two."""
        self.assertRaises(RedirectRefused, redirected, HERE, None)
        self.assertRaises(RedirectRefused, self.lead)
        self.assertRaises(RedirectRefused, self.lead, b"/a", b"/b")
