"""Tests for :mod:`regproxy.policy.visitors`."""

from __future__ import annotations

from base64 import b64encode
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.model import PRIVATE_NETWORKS
from regproxy.policy.visitors import (
    LOCAL,
    MAX_ADDRESSES,
    MAX_BAD,
    WINDOW,
    BadLogins,
    Basic,
    Bearer,
    allowed,
    cannot_be_rebound,
    from_elsewhere,
    is_loopback,
    parse_authorization,
    parse_htpasswd,
    parse_token,
)

PRIVATE = tuple(map(ip_network, PRIVATE_NETWORKS))
HASH = "$2y$10$" + "abcdefghijklmnopqrstu." + "x" * 31


class PlaceTests(SynchronousTestCase):
    """allowed, is_loopback, cannot_be_rebound"""

    @given(
        st.lists(st.ip_addresses(network="10.0.0.0/8").map(IPv4Network), max_size=3),
        st.ip_addresses(),
    )
    def test_allowed(self, networks: list[IPv4Network], client: IPv4Address | IPv6Address) -> None:
        """Whoever is in one of the networks, and nobody else."""
        expected = any(client == each.network_address for each in networks)
        self.assertIs(allowed(networks, str(client)), expected)

    @given(st.ip_addresses(v=4))
    def test_mapped(self, client: IPv4Address) -> None:
        """An IPv4 address that a socket for both families tells is one."""
        mapped = str(IPv6Address(f"::ffff:{client}"))
        self.assertIs(allowed(PRIVATE, mapped), allowed(PRIVATE, str(client)))
        self.assertIs(is_loopback(mapped), client.is_loopback)

    def test_examples(self) -> None:
        for client, reads, changes in (
            ("127.0.0.1", True, True),
            ("127.8.9.1", True, True),
            ("::1", True, True),
            (LOCAL, True, True),
            ("10.1.2.3", True, False),
            ("fd00::7%eth0", True, False),
            ("172.32.0.1", False, False),
            ("8.8.8.8", False, False),
            ("2001:db8::1", False, False),
            ("", False, False),
            ("unknown", False, False),
        ):
            self.assertIs(allowed(PRIVATE, client), reads, client)
            self.assertIs(is_loopback(client), changes, client)

    def test_no_network(self) -> None:
        """Who has none is closed; a socket of this machine has rights of its own."""
        self.assertFalse(allowed((), "127.0.0.1"))
        self.assertTrue(allowed((), LOCAL))

    def test_names(self) -> None:
        for name, expected in (
            ("localhost", True),
            ("proxy.localhost", True),
            ("127.0.0.1", True),
            ("10.0.0.5", True),
            ("::1", True),
            ("notlocalhost", False),
            ("localhost.example.com", False),
            ("127.0.0.1.example.com", False),
            ("proxy", False),
        ):
            self.assertIs(cannot_be_rebound(name), expected, name)


class BrowserTests(SynchronousTestCase):
    """from_elsewhere"""

    def test_programs(self) -> None:
        self.assertFalse(from_elsewhere(None, None, "proxy:8080"))

    @given(st.sampled_from(["same-origin", "none"]), st.text())
    def test_own_pages(self, fetch_site: str, origin: str) -> None:
        """What the browser says in so many words counts."""
        self.assertFalse(from_elsewhere(fetch_site, origin, "proxy"))

    @given(st.text().filter(lambda text: text not in ("same-origin", "none")))
    def test_other_pages(self, fetch_site: str) -> None:
        self.assertTrue(from_elsewhere(fetch_site, "http://proxy", "proxy"))

    def test_origin(self) -> None:
        """An old browser, or no TLS: the page's origin is this site or it is not."""
        for origin, host, expected in (
            ("http://proxy:8080", "proxy:8080", False),
            ("http://Proxy", "proxy", False),
            ("https://proxy", "proxy", False),
            ("http://proxy:8081", "proxy:8080", True),
            ("http://proxy.example.com", "proxy", True),
            ("http://proxy", "proxy.example.com", True),
            ("null", "proxy", True),
            ("null", "null", True),
            ("", "", True),
            ("file://", "proxy", True),
        ):
            self.assertIs(from_elsewhere(None, origin, host), expected, origin)


class LoginTests(SynchronousTestCase):
    """parse_authorization, parse_token, parse_htpasswd"""

    @given(st.text(), st.text())
    def test_basic(self, user: str, password: str) -> None:
        """A name has no colon; a password may have several."""
        field = "Basic " + b64encode(f"{user}:{password}".encode()).decode()
        name, _, rest = f"{user}:{password}".partition(":")
        self.assertEqual(parse_authorization(field), Basic(name, rest))

    @given(st.from_regex(r"[A-Za-z0-9._~+/-]+=*", fullmatch=True))
    def test_bearer(self, token: str) -> None:
        self.assertEqual(parse_authorization(f"bEARER  {token}"), Bearer(token))

    @given(st.text())
    def test_anything(self, field: str) -> None:
        """Nothing that a client sends is more than no login."""
        parse_authorization(field)

    def test_none(self) -> None:
        no_colon = b64encode(b"user").decode()
        no_text = b64encode(b"\xff:\xff").decode()
        for field in (
            *("", "Basic", "Basic ", "Basic !", "Bearer", "Bearer ", "Digest x"),
            *(f"Basic {no_colon}", f"Basic {no_text}"),
        ):
            self.assertIsNone(parse_authorization(field), field)

    def test_secrets_are_not_shown(self) -> None:
        """Neither by a traceback."""
        self.assertNotIn("hunter2", repr(Bearer("hunter2")))
        self.assertNotIn("hunter2", repr(Basic("user", "hunter2")))

    def test_token(self) -> None:
        self.assertEqual(parse_token("0123456789abcdef\n"), "0123456789abcdef")
        for text in (
            "",
            "short",
            "0123456789abcdef\n0123456789abcdef",
            "0123456789 abcdef",
            "ä" * 20,
        ):
            with self.assertRaises(ValueError) as caught:
                parse_token(text)
            self.assertFalse(text and text in str(caught.exception))

    def test_htpasswd(self) -> None:
        text = f"# who may\nann:{HASH}\n\n bob:{HASH}\r\n"
        self.assertEqual(parse_htpasswd(text), {"ann": HASH, "bob": HASH})

    def test_bad_htpasswd(self) -> None:
        """The line is named and not shown."""
        good = f"ann:{HASH}"
        for text, expected in (
            ("", "no user"),
            (f"{good}\nbob:$apr1$salt$hash", "line 2: "),
            (f"{good}\nbob:hunter2", "line 2: "),
            ("hunter2", "line 1: "),
            (f":{HASH}", "line 1: "),
            (f"{good}\n{good}", "line 2: "),
            (f"ann:{HASH.replace('$10$', '$31$')}", "line 1: "),
            (f"{good}x", "line 1: "),
        ):
            with self.assertRaises(ValueError) as caught:
                parse_htpasswd(text)
            self.assertIn(expected, str(caught.exception))
            self.assertNotIn("hunter2", str(caught.exception))
            self.assertNotIn("$2y$", str(caught.exception))


class BadLoginsTests(SynchronousTestCase):
    """Tries of one address are bounded, whatever others do."""

    def setUp(self) -> None:
        self.bad = BadLogins()

    @given(st.lists(st.floats(0, 3 * WINDOW), min_size=1, max_size=100).map(sorted))
    def test_bound(self, times: list[float]) -> None:
        """In no window are there more tries than MAX_BAD; who waits as long as told may try."""
        bad = BadLogins()
        let_in: list[float] = []
        for time in times:
            told = bad.wait("10.0.0.1", time)
            wait = bad.begin("10.0.0.1", time)
            self.assertEqual(told, wait)
            recent = [each for each in let_in if each > time - WINDOW]
            if wait == 0:
                let_in.append(time)
                self.assertLess(len(recent), MAX_BAD)
            else:
                self.assertEqual(len(recent), MAX_BAD)
                self.assertLessEqual(wait, WINDOW)
        if wait:
            self.assertEqual(bad.begin("10.0.0.1", times[-1] + wait + 1e-6), 0)

    def exhaust(self, client: str) -> None:
        for _ in range(MAX_BAD):
            self.assertEqual(self.bad.begin(client, 0.0), 0)
        self.assertEqual(self.bad.begin(client, 0.0), WINDOW)

    def test_good(self) -> None:
        """A good login is no try."""
        for _ in range(3 * MAX_BAD):
            self.assertEqual(self.bad.begin("10.0.0.1", 0.0), 0)
            self.bad.good("10.0.0.1")

    def test_others(self) -> None:
        """They go on."""
        self.exhaust("10.0.0.1")
        self.assertEqual(self.bad.begin("10.0.0.2", 0.0), 0)

    def test_addresses(self) -> None:
        """Whoever has a network of IPv6 addresses has one."""
        self.exhaust("2001:db8::1")
        self.assertGreater(self.bad.begin("2001:db8::ffff:2", 0.0), 0)
        self.assertEqual(self.bad.begin("2001:db8:0:1::1", 0.0), 0)
        self.exhaust("::ffff:10.0.0.7")
        self.assertGreater(self.bad.begin("10.0.0.7", 0.0), 0)

    def test_memory(self) -> None:
        """The address that tried longest ago is forgotten first."""
        self.exhaust("10.0.0.1")
        for number in range(MAX_ADDRESSES - 1):
            self.bad.begin(str(IPv4Address("10.1.0.0") + number), 1.0)
        self.assertGreater(self.bad.begin("10.0.0.1", 1.0), 0)
        self.bad.begin("10.2.0.0", 2.0)
        self.assertEqual(self.bad.begin("10.0.0.1", 2.0), 0)


class NetworkTests(SynchronousTestCase):
    """Networks of both families beside each other"""

    def test_families(self) -> None:
        self.assertFalse(allowed((IPv6Network("::/0"),), "10.0.0.1"))
        self.assertFalse(allowed((IPv4Network("0.0.0.0/0"),), "::1"))
