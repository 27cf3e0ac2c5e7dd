"""Tests for :mod:`regproxy.policy.no_proxy`."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

from hypothesis import assume, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.names import Host
from regproxy.policy.no_proxy import Exempt, is_exempt
from tests.oci.strategies import hosts

addresses = st.ip_addresses()
# Not of this machine, which is exempt whatever the entries say.
elsewhere = hosts.filter(lambda host: not is_exempt(host, ()))


class ExemptTests(SynchronousTestCase):
    """One entry"""

    def test_covers(self) -> None:
        for entry, covered, not_covered in (
            ("*", ["a.b", "a.b:5000", "10.0.0.1", "[::1]"], []),
            (
                "Example.com",
                ["example.com", "a.example.com", "a.b.example.com:5000"],
                ["notexample.com", "example.com.evil.net", "com"],
            ),
            (".example.com", ["a.example.com"], ["example.com", "aexample.com"]),
            ("*.example.com", ["a.example.com", "a.b.example.com"], ["example.com"]),
            ("example.com:5000", ["a.example.com:5000", "example.com:5000"], ["example.com"]),
            ("example.com.", ["example.com"], ["example.org"]),
            ("host", ["host", "a.host:80"], ["hosts", "ghost"]),
            ("10.0.0.1", ["10.0.0.1", "10.0.0.1:5000"], ["10.0.0.2", "110.0.0.1"]),
            ("10.0.0.1:5000", ["10.0.0.1:5000"], ["10.0.0.1"]),
            ("10.0.0.0/8", ["10.255.0.1:5000", "[::ffff:10.0.0.1]"], ["11.0.0.1", "10.example"]),
            ("fd00::/8", ["[fd12::1]", "[fd12::1]:5000"], ["[fe80::1]", "10.0.0.1"]),
            ("fd12::1", ["[fd12::1]", "[fd12:0::1]:5000"], ["[fd12::2]"]),
            ("[fd12::1]:5000", ["[fd12::1]:5000"], ["[fd12::1]"]),
        ):
            parsed = Exempt.parse(entry)
            for text in covered:
                self.assertTrue(parsed.covers(Host.parse(text)), (entry, text))
            for text in not_covered:
                self.assertFalse(parsed.covers(Host.parse(text)), (entry, text))

    def test_refused(self) -> None:
        """What would match nothing, or not what it seems to."""
        for text in (
            "",
            " ",
            ".",
            "*.",
            "a*b.com",
            "a b",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/8:443",
            ".10.0.0.1",
            "example.com:0",
            "example.com:x",
            "http://example.com",
            "user@example.com",
            "*.*.com",
        ):
            self.assertRaises(ValueError, Exempt.parse, text)

    @given(hosts)
    def test_host_is_an_entry(self, host: Host) -> None:
        """Every host is the entry for itself: without a port for all ports, with one for that."""
        name = host.authority.rpartition(":")[0]
        self.assertTrue(Exempt.parse(name).covers(host))
        entry = Exempt.parse(host.authority)
        self.assertTrue(entry.covers(host))
        self.assertFalse(entry.covers(Host(host.name, host.port % 65535 + 1)))

    @given(hosts, st.from_regex("[a-z0-9]{1,8}", fullmatch=True))
    def test_below(self, host: Host, label: str) -> None:
        """A suffix covers what is below it, and a longer name that ends like it does not."""
        assume(not host.is_address)
        below = Host(f"{label}.{host.name}", host.port)
        self.assertTrue(Exempt.parse(host.name).covers(below))
        self.assertTrue(Exempt.parse(f".{host.name}").covers(below))
        self.assertFalse(Exempt.parse(f".{host.name}").covers(host))
        self.assertFalse(Exempt.parse(host.name).covers(Host(label + host.name, host.port)))

    @given(addresses, addresses, st.integers(0, 128))
    def test_network(
        self, base: IPv4Address | IPv6Address, other: IPv4Address | IPv6Address, length: int
    ) -> None:
        """As the standard library says, except that a mapped address is an IPv4 one."""
        assume(length <= base.max_prefixlen)
        network = ip_network(f"{base}/{length}", strict=False)
        mapped = other.ipv4_mapped if isinstance(other, IPv6Address) else None
        expected = (mapped or other) in network
        covers = Exempt.parse(str(network)).covers(
            Host.parse(f"[{other}]" if other.version == 6 else str(other))
        )
        self.assertEqual(covers, expected)


class IsExemptTests(SynchronousTestCase):
    """All entries together"""

    def test_this_machine(self) -> None:
        """It is never asked for at a parent, whose own loopback that would be."""
        for text in "localhost", "LOCALHOST:5000", "a.localhost", "127.0.0.1", "127.9.9.9", "[::1]":
            self.assertTrue(is_exempt(Host.parse(text), ()), text)
        self.assertTrue(is_exempt(Host.parse("[::ffff:127.0.0.1]"), ()))
        for text in "localhost.example.com", "notlocalhost", "128.0.0.1":
            self.assertFalse(is_exempt(Host.parse(text), ()), text)

    @given(elsewhere, st.lists(elsewhere, max_size=4))
    def test_any(self, host: Host, others: list[Host]) -> None:
        """One that covers is enough, and without one it is not exempt."""
        entries = [Exempt.parse(other.authority) for other in others]
        covered = any(entry.covers(host) for entry in entries)
        self.assertEqual(is_exempt(host, entries), covered)
        self.assertTrue(is_exempt(host, [*entries, Exempt.parse("*")]))
