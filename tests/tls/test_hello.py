"""Tests for :mod:`regproxy.tls.hello`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.names import Host
from regproxy.tls.hello import HELLO_LIMIT, Alert, ClientHello, HelloInvalid, HelloReader
from tests.oci.strategies import hosts
from tests.support.hellos import (
    GREASE,
    RANDOM,
    cut,
    extension,
    message,
    real_hello,
    records,
    server_names,
    vector,
)

Answer = ClientHello | None | tuple[str, Alert | None]

sizes = st.lists(st.integers(1, 300), max_size=20)
edges = st.lists(st.integers(0, 3000), max_size=20)
names = hosts.map(lambda host: host.name.encode()) | st.binary(max_size=20)
# Something that gets the reader further and further into its work.
bodies = st.binary(max_size=300)
extensions = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.builds(extension, st.sampled_from([0, 1, GREASE, 65535]), st.binary(max_size=40)),
        st.lists(names, max_size=2).map(lambda found: server_names(*found)),
    ),
    max_size=4,
)
messages = st.one_of(
    bodies.map(lambda body: b"\x01" + vector(3, body)),
    extensions.map(lambda found: message(*found)),
)
openings = st.one_of(
    bodies,
    bodies.map(lambda rest: b"\x16\x03\x01" + rest),
    st.builds(records, bodies, sizes),
    st.builds(records, messages, sizes),
    st.builds(lambda first, rest: records(first) + rest, messages, bodies),
)


def answer(pieces: Iterable[bytes]) -> Answer:
    """What the reader says in the end."""
    reader = HelloReader()
    try:
        for piece in pieces:
            hello = reader.feed(piece)
            if hello is not None:
                return hello
    except HelloInvalid as error:
        return error.message, error.alert
    return None


def openssl_server_names(wire: bytes) -> list[bytes | None]:
    """Whom the client wants as OpenSSL sees it; nothing when it does not get so far."""
    names: list[bytes | None] = []
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_tlsext_servername_callback(
        lambda connection: names.append(connection.get_servername())
    )
    connection = SSL.Connection(context)
    connection.set_accept_state()
    connection.bio_write(wire)
    with contextlib.suppress(SSL.Error):
        connection.do_handshake()
    return names


class HelloTestCase(SynchronousTestCase):
    def assertName(self, wire: bytes, name: str | None) -> None:
        self.assertEqual(answer([wire]), ClientHello(RANDOM, name))

    def assertInvalid(self, wire: bytes, message: str, alert: Alert | None) -> None:
        found = answer([wire])
        assert isinstance(found, tuple), found
        self.assertIn(message, found[0])
        self.assertEqual(found[1], alert)


class NameTests(HelloTestCase):
    """Which name the client asks for."""

    def test_of_a_real_client(self) -> None:
        for name in "ghcr.io", "registry-1.docker.io", None:
            hello = answer([real_hello(name)])
            assert isinstance(hello, ClientHello)
            self.assertEqual(hello.server_name, name)
            self.assertEqual(len(hello.random), 32)

    def test_randoms_differ(self) -> None:
        self.assertNotEqual(answer([real_hello("ghcr.io")]), answer([real_hello("ghcr.io")]))

    def test_case_and_trailing_dot(self) -> None:
        for name in b"GHCR.io", b"ghcr.io.", b"gHcR.IO.":
            self.assertName(records(message(server_names(name))), "ghcr.io")

    def test_grease(self) -> None:
        """Extensions that nobody knows, with and without content, before and after."""
        grease = extension(GREASE, b""), extension(GREASE + 0x1010, b"\0")
        self.assertName(
            records(message(grease[0], server_names(b"a.example"), grease[1])), "a.example"
        )

    def test_none(self) -> None:
        self.assertName(records(message()), None)
        self.assertName(records(message(extension(GREASE, b""))), None)

    def test_before_there_were_extensions(self) -> None:
        whole = message()
        # Without the length of the extensions, which is 0.
        self.assertName(records(b"\x01" + vector(3, whole[4:-2])), None)

    def test_what_follows_is_not_read(self) -> None:
        wire = records(message(server_names(b"a.example")) + b"\x02")
        self.assertName(wire + b"garbage", "a.example")

    def test_no_name_for_this_proxy(self) -> None:
        for name in (
            b"192.0.2.7",
            b"2001:db8::7",
            b"[2001:db8::7]",
            b"127.1",
            b"0x7f.1",
            b"a.example:443",
            b"*.example",
            b"a b.example",
            b"a\0.example",
            b"b\xc3\xbccher.example",
            b"..",
            b".",
            b"",
            b"a" * 64 + b".example",
            b"a." * 200 + b"example",
        ):
            self.assertInvalid(
                records(message(server_names(name))), "server name", Alert.UNRECOGNIZED_NAME
            )

    def test_long_names_are_not_repeated_whole(self) -> None:
        found = answer([records(message(server_names(b"*" * 5000)))])
        assert isinstance(found, tuple)
        self.assertLess(len(found[0]), 200)

    def test_several(self) -> None:
        """In one extension, or in two."""
        for extensions in (
            [server_names(b"a.example", b"b.example")],
            [server_names(b"a.example", b"a.example")],
            [server_names(b"a.example"), server_names(b"b.example")],
            [server_names(), server_names(b"a.example")],
        ):
            self.assertInvalid(records(message(*extensions)), "server_name", Alert.DECODE_ERROR)

    def test_other_types_of_name(self) -> None:
        self.assertInvalid(
            records(message(server_names(b"a.example", kind=1))), "not one", Alert.DECODE_ERROR
        )

    @given(st.text(max_size=40))
    def test_only_host_names(self, text: str) -> None:
        """Whatever comes out is the name of a host."""
        found = answer([records(message(server_names(text.encode())))])
        if isinstance(found, ClientHello):
            assert found.server_name is not None
            self.assertEqual(Host.parse(found.server_name), Host(found.server_name))
            self.assertFalse(Host(found.server_name).is_address)
        else:
            self.assertIsNotNone(found)


class FormTests(HelloTestCase):
    """What is no ClientHello."""

    def test_no_tls(self) -> None:
        for opening in b"GET / HTTP/1.1\r\n\r\n", b"\x17\x03\x03\0\x01x", b"SSH-2.0-x\r\n", b"\0":
            self.assertInvalid(opening, f"{opening[0]:#04x}", None)
        self.assertInvalid(b"\x16\x02\x00\x00\x05xxxxx", "version 2", None)

    def test_ssl2(self) -> None:
        self.assertInvalid(b"\x80\x2e\x01\x03\x01\x00\x15", "SSLv2", None)

    def test_another_record_in_between(self) -> None:
        whole = message(server_names(b"a.example"))
        wire = records(whole[:20]) + b"\x15\x03\x03\x00\x02\x01\x00" + records(whole[20:])
        self.assertInvalid(wire, "0x15", Alert.UNEXPECTED_MESSAGE)

    def test_another_message(self) -> None:
        self.assertInvalid(records(message(kind=2)), "message 2", Alert.UNEXPECTED_MESSAGE)

    def test_records(self) -> None:
        """Empty ones, and those that are too long (RFC 8446 section 5.1)."""
        for length in 0, (1 << 14) + 1, 65535:
            wire = b"\x16\x03\x01" + length.to_bytes(2)
            self.assertInvalid(wire, f"{length} bytes", Alert.DECODE_ERROR)

    def test_limit(self) -> None:
        """The length that a message says it has is what counts."""
        room = HELLO_LIMIT - len(message(extension(GREASE, b""))) + 4
        fits = message(extension(GREASE, bytes(room)))
        self.assertEqual(len(fits), HELLO_LIMIT + 4)
        self.assertName(records(fits, [1] * 200), None)
        too_long = message(extension(GREASE, bytes(room + 1)))
        self.assertInvalid(records(too_long[:4]), f"{HELLO_LIMIT + 1} bytes", Alert.DECODE_ERROR)

    def test_truncated(self) -> None:
        """A message that is shorter than what is in it, cut anywhere."""
        body = message(server_names(b"a.example"))[4:]
        before_extensions = len(message()) - 4 - 2
        for length in range(len(body)):
            found = answer([records(b"\x01" + vector(3, body[:length]))])
            if length == before_extensions:
                self.assertEqual(found, ClientHello(RANDOM, None))
            else:
                assert isinstance(found, tuple), length
                self.assertEqual(found[1], Alert.DECODE_ERROR)

    def test_bad_lengths(self) -> None:
        """A wrong length within the extension, and bytes behind what is in it."""
        name = b"\0" + vector(2, b"a.example")
        for content in (
            b"",
            vector(2, b""),
            vector(2, name)[:-1],
            vector(2, name) + b"\0",
            vector(2, name + b"\0"),
            vector(2, b"\0" + (10).to_bytes(2) + b"a.example"),
            vector(2, b"\0" + (8).to_bytes(2) + b"a.example"),
        ):
            self.assertInvalid(records(message(extension(0, content))), "", Alert.DECODE_ERROR)
        whole = message(server_names(b"a.example"))
        self.assertInvalid(
            records(b"\x01" + vector(3, whole[4:] + b"\0")), "length", Alert.DECODE_ERROR
        )

    def test_alerts(self) -> None:
        """As in RFC 8446 sections 5.1 and 6."""
        self.assertEqual(Alert.UNRECOGNIZED_NAME.record, b"\x15\x03\x03\x00\x02\x02\x70")


class PropertyTests(SynchronousTestCase):
    @given(hosts, st.lists(st.integers(1, 60), max_size=10), edges)
    def test_fragments(self, host: Host, sizes: list[int], edges: list[int]) -> None:
        """Any cut into records and segments gives the same answer."""
        whole = message(extension(GREASE, b"x"), server_names(host.name.encode()))
        found = answer(cut(records(whole, sizes), edges))
        self.assertEqual(found, answer([records(whole)]))
        if not host.is_address:
            self.assertEqual(found, ClientHello(RANDOM, host.name))

    @given(openings, edges)
    def test_segments(self, opening: bytes, edges: list[int]) -> None:
        """Whatever came, it cannot matter how the network cut it; nothing else is raised."""
        self.assertEqual(answer(cut(opening, edges)), answer([opening]))

    @given(st.integers(0, 600), st.integers(1, 255))
    def test_damaged(self, offset: int, damage: int) -> None:
        """One wrong byte in a real client's hello is read, refused or waited for."""
        wire = bytearray(real_hello("ghcr.io"))
        wire[offset % len(wire)] ^= damage
        self.assertEqual(answer([bytes(wire)]), answer(bytes([byte]) for byte in wire))

    @given(st.lists(names, max_size=2), st.integers(0, 600), st.integers(0, 255))
    def test_openssl_agrees(self, found: list[bytes], offset: int, damage: int) -> None:
        """OpenSSL, which reads the same bytes later, never finds another name."""
        wire = bytearray(records(message(extension(GREASE, b""), server_names(*found))))
        wire[offset % len(wire)] ^= damage
        theirs = openssl_server_names(bytes(wire))
        ours = answer([bytes(wire)])
        if theirs and isinstance(ours, ClientHello):
            name = theirs[0]
            self.assertEqual(
                ours.server_name,
                None if name is None else name.decode("latin-1").lower().removesuffix("."),
            )

    def test_openssl_finds_names(self) -> None:
        """Otherwise the property above would say nothing."""
        self.assertEqual(
            openssl_server_names(records(message(server_names(b"A.example")))), [b"A.example"]
        )
        self.assertEqual(openssl_server_names(records(message())), [None])
