"""Tests for :mod:`regproxy.listeners.proxy_header`."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser
from twisted.trial.unittest import SynchronousTestCase

from regproxy.listeners.proxy_header import V1_LIMIT, V2_LIMIT, Ends, HeaderInvalid, parse

V2 = b"\r\n\r\n\0\r\nQUIT\n"
ENDS = Ends(("192.0.2.1", 1024), ("198.51.100.2", 443))
Address = IPv4Address | IPv6Address


def v1(text: str) -> bytes:
    """A header of version 1."""
    return f"PROXY {text}\r\n".encode()


def v2(kind: int, content: bytes, command: int = 0x21) -> bytes:
    """A header of version 2."""
    return V2 + bytes([command, kind]) + len(content).to_bytes(2) + content


def packed(source: Address, destination: Address, ports: tuple[int, int]) -> bytes:
    """Addresses and ports as version 2 has them."""
    return source.packed + destination.packed + b"".join(port.to_bytes(2) for port in ports)


ports = st.tuples(st.integers(0, 65535), st.integers(0, 65535))
ends = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4), ports),
    st.tuples(st.ip_addresses(v=6), st.ip_addresses(v=6), ports),
)
openings = st.one_of(
    st.binary(max_size=40),
    st.binary(max_size=120).map(lambda rest: b"PROXY " + rest),
    st.text(alphabet="TCP46UNKOW .:0123456789abf\r\n", max_size=120).map(v1),
    st.binary(max_size=40).map(lambda rest: V2 + rest),
    st.builds(v2, st.integers(0, 255), st.binary(max_size=60), st.integers(0x1F, 0x23)),
)


class ParseTests(SynchronousTestCase):
    def assertInvalid(self, data: bytes, message: str) -> None:
        error = self.assertRaises(HeaderInvalid, parse, data)
        self.assertIn(message, error.message)

    def test_v1(self) -> None:
        header = v1("TCP4 192.0.2.1 198.51.100.2 1024 443")
        self.assertEqual(parse(header + b"rest\r\n"), (ENDS, b"rest\r\n"))
        header = v1("TCP6 2001:DB8:0::1 ::1 0 65535")
        self.assertEqual(parse(header), (Ends(("2001:db8::1", 0), ("::1", 65535)), b""))

    def test_v1_unknown(self) -> None:
        """The short form and the long one (section 2.1)."""
        for text in "UNKNOWN", "UNKNOWN ffff:f::1 ffff:f::2 65535 65535", "UNKNOWN what ever":
            self.assertEqual(parse(v1(text) + b"rest"), (None, b"rest"))

    def test_v1_limit(self) -> None:
        """Its longest line has 107 bytes."""
        longest = v1("UNKNOWN " + "x" * (V1_LIMIT - 16))
        self.assertEqual(len(longest), V1_LIMIT)
        self.assertEqual(parse(longest + b"rest"), (None, b"rest"))
        for data in longest[:-2] + b"xx", longest[:-2] + b"x\r\n":
            self.assertInvalid(data, "does not end")
        self.assertIsNone(parse(longest[:-1]))

    def test_v1_malformed(self) -> None:
        for text in (
            "",
            "TCP4",
            "TCP5 192.0.2.1 198.51.100.2 1024 443",
            "TCP4 192.0.2.1 198.51.100.2 1024",
            "TCP4 192.0.2.1 198.51.100.2 1024 443 more",
            "TCP4  192.0.2.1 198.51.100.2 1024 443",
            "TCP4 192.0.2.1 198.51.100.2 1024 x",
            "TCP4 192.0.2.1 198.51.100.2 1024 65536",
            "TCP4 192.0.2.1 198.51.100.2 -1 443",
            "TCP4 192.0.2.256 198.51.100.2 1024 443",
            "TCP4 evil\x1b[1m 198.51.100.2 1024 443",
            "TCP4 2001:db8::1 ::1 1024 443",
            "TCP6 192.0.2.1 198.51.100.2 1024 443",
            "TCP6 fe80::1%eth0 ::1 1024 443",
            "tcp4 192.0.2.1 198.51.100.2 1024 443",
        ):
            self.assertInvalid(v1(text), "malformed")

    def test_v2(self) -> None:
        content = packed(IPv4Address("192.0.2.1"), IPv4Address("198.51.100.2"), (1024, 443))
        self.assertEqual(parse(v2(0x11, content) + b"rest"), (ENDS, b"rest"))
        content = packed(IPv6Address("2001:db8::1"), IPv6Address("::1"), (1, 2))
        self.assertEqual(parse(v2(0x21, content)), (Ends(("2001:db8::1", 1), ("::1", 2)), b""))

    def test_v2_extensions(self) -> None:
        """They are not read, and they are not the client's bytes."""
        content = packed(IPv4Address("192.0.2.1"), IPv4Address("198.51.100.2"), (1024, 443))
        header = v2(0x11, content + b"\x04\x00\x01x" * 100)
        self.assertEqual(parse(header + b"rest"), (ENDS, b"rest"))

    def test_v2_that_does_not_tell(self) -> None:
        """LOCAL; and what is no stream of IPv4 or IPv6."""
        content = packed(IPv4Address("192.0.2.1"), IPv4Address("198.51.100.2"), (1024, 443))
        for header in (
            v2(0x11, content, command=0x20),
            v2(0x00, b"", command=0x20),
            v2(0x00, b""),
            v2(0x31, bytes(216)),
            v2(0x12, content),
        ):
            self.assertEqual(parse(header + b"rest"), (None, b"rest"))

    def test_v2_malformed(self) -> None:
        for command in 0x10, 0x11, 0x22, 0x31, 0x00:
            self.assertInvalid(v2(0x11, bytes(12), command), "unknown")
        self.assertInvalid(v2(0x11, bytes(11)), "cut short")
        self.assertInvalid(v2(0x21, bytes(35)), "cut short")

    def test_v2_limit(self) -> None:
        """By what the header says, before it is here."""
        self.assertEqual(parse(v2(0x00, bytes(V2_LIMIT))), (None, b""))
        self.assertInvalid(v2(0x00, bytes(V2_LIMIT + 1))[:16], f"{V2_LIMIT + 1} bytes")

    def test_none(self) -> None:
        """Refused with the first byte that shows it."""
        for data in b"G", b"\x16\x03\x01", b"PROX ", b"\r\n\r\n\0\r\nQUIT\r", b"proxy ":
            self.assertInvalid(data, "does not begin")
        for data in b"", b"P", b"PROXY ", V2, v2(0x11, b"")[:15]:
            self.assertIsNone(parse(data))

    def test_ipv4_as_ipv6(self) -> None:
        """A client has one address, whatever the load balancer's socket is."""
        header = v1("TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.2 1024 443")
        self.assertEqual(parse(header), (ENDS, b""))
        content = packed(
            IPv6Address("::ffff:192.0.2.1"), IPv6Address("::ffff:198.51.100.2"), (1024, 443)
        )
        self.assertEqual(parse(v2(0x21, content)), (ENDS, b""))


class PropertyTests(SynchronousTestCase):
    @given(ends, st.binary(max_size=20))
    def test_twisted_agrees(
        self, ends: tuple[Address, Address, tuple[int, int]], rest: bytes
    ) -> None:
        """Where both understand a header, they read the same, in both versions."""
        source, destination, (source_port, destination_port) = ends
        version = source.version
        line = f"TCP{version} {source} {destination} {source_port} {destination_port}"
        for header, parser in (
            (v1(line), V1Parser()),
            (v2(0x11 if version == 4 else 0x21, packed(*ends)), V2Parser()),
        ):
            ours = parse(header + rest)
            assert ours is not None and ours[0] is not None
            self.assertEqual(ours[1], rest)
            theirs: Any = parser.feed(header)[0]
            for end, address in (
                (ours[0].source, theirs.source),
                (ours[0].destination, theirs.destination),
            ):
                expected = ip_address(address.host)
                mapped = getattr(expected, "ipv4_mapped", None)
                self.assertEqual(end, ((mapped or expected).compressed, address.port))

    @given(openings)
    def test_no_matter_how_it_is_cut(self, data: bytes) -> None:
        """What a beginning decides stays decided; and nothing but HeaderInvalid is raised."""
        whole = self.outcome(data)
        for length in range(len(data)):
            outcome = self.outcome(data[:length])
            if outcome is None:
                continue
            if isinstance(outcome, tuple):
                outcome = outcome[0], outcome[1] + data[length:]
            self.assertEqual(outcome, whole)
            break

    def outcome(self, data: bytes) -> tuple[Ends | None, bytes] | str | None:
        try:
            return parse(data)
        except HeaderInvalid as error:
            return error.message
