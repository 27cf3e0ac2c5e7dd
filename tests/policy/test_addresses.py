"""Tests for :mod:`regproxy.policy.addresses`."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.model import RelaySection
from regproxy.policy.addresses import AddressGuard, AllowEntry, refusal

DENIED_V4 = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/3",
]
DENIED_V6 = [
    "::/8",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fd00:ec2::254/128",
    "fe80::/9",
    "ff00::/8",
]
denied_v4 = st.sampled_from(DENIED_V4).flatmap(lambda n: st.ip_addresses(network=IPv4Network(n)))
denied_v6 = st.sampled_from(DENIED_V6).flatmap(lambda n: st.ip_addresses(network=IPv6Network(n)))


def embeddings(inner: IPv4Address) -> list[IPv6Address]:
    """Every IPv6 address that carries *inner*: mapped, compatible, NAT64, 6to4, Teredo."""
    low = int(inner)
    nat64 = int(IPv6Address("64:ff9b::"))
    local_nat64 = int(IPv6Address("64:ff9b:1::"))
    sixtofour = int(IPv6Address("2002::"))
    teredo = int(IPv6Address("2001::"))
    public_server = int(IPv4Address("1.1.1.1")) << 64
    return [
        IPv6Address(0xFFFF << 32 | low),
        IPv6Address(low),
        IPv6Address(nat64 | low),
        IPv6Address(local_nat64 | low),
        IPv6Address(sixtofour | low << 80 | 1),
        IPv6Address(teredo | public_server | (low ^ 0xFFFFFFFF)),
    ]


class RefusalTests(SynchronousTestCase):
    """:func:`refusal`: the public internet and nothing else."""

    def test_reasons(self) -> None:
        """The reason says what the address is, in words."""
        reasons = {
            "127.0.0.1": "127.0.0.1 is a loopback address",
            "::1": "::1 is a loopback address",
            "10.1.2.3": "10.1.2.3 is a private address",
            "fd12::1": "fd12::1 is a private address",
            "169.254.169.254": "169.254.169.254 is a link-local address",
            "fe80::1": "fe80::1 is a link-local address",
            "100.64.0.1": "100.64.0.1 is a carrier-grade NAT address",
            "100.100.100.200": "100.100.100.200 is a cloud metadata address",
            "168.63.129.16": "168.63.129.16 is a cloud metadata address",
            "fd00:ec2::254": "fd00:ec2::254 is a cloud metadata address",
            "0.0.0.0": "0.0.0.0 is an unspecified address",
            "::": ":: is an unspecified address",
            "224.0.0.1": "224.0.0.1 is a multicast address",
            "255.255.255.255": "255.255.255.255 is a broadcast address",
            "192.0.2.1": "192.0.2.1 is a documentation address",
            "198.18.0.1": "198.18.0.1 is a benchmarking address",
            "fec0::1": "fec0::1 is a site-local address",
            "::ffff:127.0.0.1": "127.0.0.1 is a loopback address",
            "::7f00:1": "::7f00:1 is a reserved address",
            "64:ff9b::808:808": "64:ff9b::808:808 is a NAT64 address",
            "2002:808:808::1": "2002:808:808::1 is a 6to4 address",
            "2001:0:101:101::1": "2001:0:101:101::1 is a Teredo address",
            "4000::1": "4000::1 is a reserved address",
        }
        self.assertEqual(reasons, {address: refusal(address) for address in reasons})

    def test_public(self) -> None:
        """Ordinary addresses pass, also in the IPv4-mapped form."""
        for address in ("1.1.1.1", "52.1.2.3", "2606:4700::1111", "2a00:1450::1", "::ffff:8.8.8.8"):
            self.assertIsNone(refusal(address), address)

    def test_no_address(self) -> None:
        """A name is refused: only what was checked is dialled."""
        self.assertEqual(refusal("localhost"), "'localhost' is not an IP address")

    def test_zone(self) -> None:
        """A zone identifier hides nothing."""
        self.assertIsNotNone(refusal("fe80::1%eth0"))

    @given(denied_v4 | denied_v6)
    def test_denied_networks(self, address: IPv4Address | IPv6Address) -> None:
        """No address of a denied network passes."""
        assert refusal(str(address)) is not None

    @given(denied_v4)
    def test_embedded(self, address: IPv4Address) -> None:
        """An address that is denied is denied in every embedding."""
        for outer in embeddings(address):
            assert refusal(str(outer)) is not None, outer

    @given(denied_v4)
    def test_embedding_allowed(self, address: IPv4Address) -> None:
        """Who allows the embedding has not allowed the address inside."""
        guard = AddressGuard(
            (
                AllowEntry.parse("64:ff9b::/32"),
                AllowEntry.parse("2002::/16"),
                AllowEntry.parse("2001::/32"),
            )
        )
        for outer in embeddings(address):
            assert guard.check(str(outer), 443) is not None, outer


class AllowEntryTests(SynchronousTestCase):
    """:class:`AllowEntry`: the words of ``[relay] allow``."""

    def test_forms(self) -> None:
        """Addresses and networks of both families, with and without a port."""
        forms = {
            "10.0.0.0/8": AllowEntry(IPv4Network("10.0.0.0/8")),
            "10.0.0.0/8:5000": AllowEntry(IPv4Network("10.0.0.0/8"), 5000),
            "192.0.2.7": AllowEntry(IPv4Network("192.0.2.7/32")),
            "192.0.2.7:8443": AllowEntry(IPv4Network("192.0.2.7/32"), 8443),
            "[2001:db8::]/32": AllowEntry(IPv6Network("2001:db8::/32")),
            "[2001:db8::]/32:5000": AllowEntry(IPv6Network("2001:db8::/32"), 5000),
            "2001:DB8::/32": AllowEntry(IPv6Network("2001:db8::/32")),
            "[::1]:5000": AllowEntry(IPv6Network("::1/128"), 5000),
            "::1": AllowEntry(IPv6Network("::1/128")),
        }
        self.assertEqual(forms, {text: AllowEntry.parse(text) for text in forms})

    def test_refused(self) -> None:
        """Everything else, host bits in a network included."""
        for text in (
            "",
            "host",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "1.2.3",
            "1.2.3.4:0",
            "1.2.3.4:65536",
            "[::1",
            "1.2.3.4:",
        ):
            self.assertRaises(ValueError, AllowEntry.parse, text)


class AddressGuardTests(SynchronousTestCase):
    """:class:`AddressGuard`: exceptions, ports, private registries."""

    def test_allow_is_for_its_port(self) -> None:
        """An entry opens its own port and no other."""
        guard = AddressGuard((AllowEntry.parse("10.0.0.7:8443"),))
        self.assertIsNone(guard.check("10.0.0.7", 8443))
        self.assertEqual(guard.check("10.0.0.7", 443), "10.0.0.7 is a private address")
        self.assertEqual(guard.check("10.0.0.8", 8443), "10.0.0.8 is a private address")

    def test_allow_counts_for_mapped(self) -> None:
        """An IPv4-mapped address is the IPv4 address."""
        guard = AddressGuard((AllowEntry.parse("10.0.0.7"),))
        self.assertIsNone(guard.check("::ffff:10.0.0.7", 443))

    def test_allowed_nat64(self) -> None:
        """A network behind DNS64 lists its translator and reaches public addresses."""
        guard = AddressGuard((AllowEntry.parse("64:ff9b::/96"),))
        self.assertIsNone(guard.check("64:ff9b::8.8.8.8", 443))
        self.assertEqual(guard.check("64:ff9b::10.0.0.1", 443), "10.0.0.1 is a private address")

    def test_ports(self) -> None:
        """A guard for tunnels opens 443; exceptions bring their own port."""
        guard = AddressGuard((AllowEntry.parse("1.1.1.1:8443"),), frozenset({443}))
        self.assertIsNone(guard.check("8.8.8.8", 443))
        self.assertEqual(guard.check("8.8.8.8", 22), "port 22 is not open; only 443")
        self.assertIsNone(guard.check("1.1.1.1", 8443))

    def test_own(self) -> None:
        """The proxy itself is not dialled, whatever else is allowed there."""

        def own(address: str, port: int) -> bool:
            return (address, port) in (("10.0.0.5", 443), ("8.8.8.8", 443))

        allow = (AllowEntry.parse("10.0.0.5"), AllowEntry.parse("10.0.0.5:5000"))
        for guard in AddressGuard(allow, own=own), AddressGuard.private_allowed(allow, own):
            for address in "10.0.0.5", "8.8.8.8":
                reason = guard.check(address, 443)
                assert reason is not None
                self.assertTrue(reason.startswith(f"{address} is this proxy itself"), reason)
            self.assertIsNone(guard.check("10.0.0.5", 5000))
            self.assertIsNone(guard.check("8.8.4.4", 443))

    def test_relaying(self) -> None:
        """``allow_private`` opens what is private, and neither this machine nor the metadata."""
        closed, open_ = (
            AddressGuard.relaying(RelaySection(("127.0.0.5",), allow_private=private), ports)
            for private, ports in ((False, frozenset({443})), (True, None))
        )
        for address in "10.0.0.1", "172.31.0.1", "192.168.0.1", "fd12::1", "100.64.0.1":
            self.assertIsNotNone(closed.check(address, 443), address)
            self.assertIsNone(open_.check(address, 443), address)
            self.assertIsNone(open_.check(address, 5000), address)
        for address in (
            "127.0.0.1",
            "::1",
            "::ffff:127.0.0.1",
            "169.254.169.254",
            "fe80::1",
            "100.100.100.200",
            "168.63.129.16",
            "fd00:ec2::254",
            "64:ff9b::127.0.0.1",
        ):
            self.assertIsNotNone(open_.check(address, 443), address)
        self.assertIsNone(open_.check("127.0.0.5", 443))

    def test_private_allowed(self) -> None:
        """A private registry may be anywhere private, never at a metadata service."""
        guard = AddressGuard.private_allowed()
        for address in (
            "127.0.0.1",
            "::1",
            "10.0.0.1",
            "fd12::1",
            "100.64.0.1",
            "192.168.0.1",
            "8.8.8.8",
        ):
            self.assertIsNone(guard.check(address, 5000), address)
        for address in (
            "169.254.169.254",
            "100.100.100.200",
            "168.63.129.16",
            "fd00:ec2::254",
            "fe80::1",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
        ):
            self.assertIsNotNone(guard.check(address, 5000), address)


class UnresolvedTests(SynchronousTestCase):
    """:meth:`AddressGuard.check_unresolved`: what is known of a name that another resolves."""

    def test_addresses(self) -> None:
        """They are checked as ever."""
        guard = AddressGuard((AllowEntry.parse("10.0.0.7:8443"),), frozenset({443}))
        for address, port in ("10.0.0.7", 8443), ("10.0.0.8", 443), ("8.8.8.8", 443), ("::1", 443):
            self.assertEqual(guard.check_unresolved(address, port), guard.check(address, port))

    def test_names(self) -> None:
        guard = AddressGuard(ports=frozenset({443}))
        for name in "registry.example.com", "internal.example.com", "localhost.example.com", "x.y":
            self.assertIsNone(guard.check_unresolved(name, 443), name)
        for name in (
            "localhost",
            "a.localhost",
            "db",
            "printer.local",
            "metadata.google.internal",
            "nas.home.arpa",
            "home.arpa",
        ):
            self.assertEqual(
                guard.check_unresolved(name, 443), f"{name} is a name of a private network"
            )

    def test_ports(self) -> None:
        guard = AddressGuard(ports=frozenset({443}))
        self.assertEqual(
            guard.check_unresolved("registry.example.com", 22), "port 22 is not open; only 443"
        )
        self.assertIsNone(AddressGuard().check_unresolved("registry.example.com", 5000))

    def test_private_allowed(self) -> None:
        """The name of a private registry may be one; a metadata address may not."""
        guard = AddressGuard.private_allowed()
        self.assertIsNone(guard.check_unresolved("db", 5000))
        self.assertIsNone(guard.check_unresolved("10.0.0.7", 5000))
        self.assertIsNotNone(guard.check_unresolved("169.254.169.254", 80))
