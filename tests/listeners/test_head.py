"""Tests for :mod:`regproxy.listeners.head`."""

from __future__ import annotations

import json

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.listeners.head import (
    HEAD_LIMIT,
    Connect,
    HeadTimeout,
    HeadTooLarge,
    Opening,
    Other,
    VersionNotSupported,
    parse,
    render_refusal,
)
from regproxy.oci.errors import BadRequest, Denied, HostInvalid, Misdirected, RegistryError
from regproxy.oci.names import Host

TARGET = Host("registry.example.com")


def request(
    *fields: bytes,
    line: bytes = b"CONNECT registry.example.com:443 HTTP/1.1",
    host: bytes | None = b"registry.example.com:443",
) -> bytes:
    """A CONNECT, valid unless an argument makes it otherwise."""
    lines = [line, *([] if host is None else [b"Host: " + host]), *fields]
    return b"\r\n".join([*lines, b"", b""])


def outcome(data: bytes) -> tuple[Opening, bytes] | type[RegistryError] | None:
    """What comes of *data*, an error being its class."""
    try:
        return parse(data)
    except RegistryError as error:
        return type(error)


class ConnectTests(SynchronousTestCase):
    """Valid CONNECT requests."""

    def assertTarget(self, data: bytes, host: Host, rest: bytes = b"") -> None:
        """*data* is a CONNECT to *host*, followed by *rest*."""
        self.assertEqual(parse(data), (Connect(host), rest))

    def test_target(self) -> None:
        """Host and port are read into a Host."""
        self.assertTarget(request(), TARGET)

    def test_like_go(self) -> None:
        """What the HTTP client of the Go library sends."""
        self.assertTarget(
            b"CONNECT Registry.Example.com:443 HTTP/1.1\r\nHost: Registry.Example.com:443\r\n"
            b"User-Agent: Go-http-client/1.1\r\n\r\n",
            TARGET,
        )

    def test_rest(self) -> None:
        """What follows the head is left over, whatever it looks like."""
        rest = b"\x16\x03\x01\x02\x00\n\n\r\n\r\n"
        self.assertTarget(request() + rest, TARGET, rest)

    def test_ports_and_addresses(self) -> None:
        """Any port and any literal address may be named."""
        for text, host in (
            (b"example.com:8443", Host("example.com", 8443)),
            (b"192.0.2.7:443", Host("192.0.2.7")),
            (b"[2001:DB8::1]:5000", Host("2001:db8::1", 5000)),
        ):
            line = b"CONNECT %s HTTP/1.1" % text
            self.assertTarget(request(line=line, host=text), host)

    def test_host_without_port(self) -> None:
        """A Host field without a port means port 443."""
        self.assertTarget(request(host=b"registry.example.com"), TARGET)

    def test_trailing_dot(self) -> None:
        """A fully qualified name is the same host."""
        line = b"CONNECT registry.example.com.:443 HTTP/1.1"
        self.assertTarget(request(line=line), TARGET)

    def test_http_1_0(self) -> None:
        """HTTP/1.0 has no Host field; one that is there is checked all the same."""
        line = b"CONNECT registry.example.com:443 HTTP/1.0"
        self.assertTarget(request(line=line, host=None), TARGET)
        self.assertTarget(request(line=line), TARGET)
        self.assertIs(outcome(request(line=line, host=b"example.net")), Misdirected)

    def test_no_content(self) -> None:
        """A Content-Length of zero says what is true anyway."""
        self.assertTarget(request(b"Content-Length: 0"), TARGET)

    def test_empty_line_first(self) -> None:
        """One empty line before the request is skipped."""
        self.assertTarget(b"\r\n" + request(), TARGET)

    def test_other_fields(self) -> None:
        """Fields that mean nothing here are not looked at, empty ones included."""
        self.assertTarget(request(b"X-Empty:", b"X-Latin: caf\xe9", b"a:\tb \t"), TARGET)


class RefusedTests(SynchronousTestCase):
    """CONNECT requests that are answered with an error."""

    def assertRefused(self, data: bytes, error: type[RegistryError] = BadRequest) -> None:
        """*data* is refused with *error*."""
        self.assertIs(outcome(data), error, data)

    def test_request_line(self) -> None:
        """Single spaces, an authority with a port, a version."""
        for line in (
            b"CONNECT  registry.example.com:443 HTTP/1.1",
            b"CONNECT registry.example.com:443  HTTP/1.1",
            b"CONNECT registry.example.com:443 HTTP/1.1 ",
            b"CONNECT registry.example.com:443",
            b"CONNECT HTTP/1.1",
            b"CONNECT registry.example.com:443 http/1.1",
            b"CONNECT registry.example.com:443 HTTP/11",
            b"CONNECT registry.example.com HTTP/1.1",
            b"CONNECT registry.example.com: HTTP/1.1",
            b"CONNECT :443 HTTP/1.1",
            b"CONNECT /v2/ HTTP/1.1",
            b"CONNECT https://registry.example.com:443 HTTP/1.1",
            b"CONNECT 2001:db8::1:443 HTTP/1.1",
            b"CONNECT ex\xe4mple.com:443 HTTP/1.1",
        ):
            self.assertRefused(request(line=line))

    def test_invalid_host(self) -> None:
        """The host has to be one."""
        for target in (b"-a.example:443", b"127.1:443", b"a.example:0", b"a.example:65536"):
            self.assertRefused(request(line=b"CONNECT %s HTTP/1.1" % target), HostInvalid)

    def test_credentials_are_not_repeated(self) -> None:
        """A target with user and password is refused, and not quoted."""
        line = b"CONNECT user:secret@registry.example.com:443 HTTP/1.1"
        for data in (request(line=line), request(host=b"user:secret@registry.example.com")):
            error = self.assertRaises(BadRequest, parse, data)
            self.assertNotIn("secret", error.message)

    def test_version(self) -> None:
        """Only versions are answered whose rules are followed."""
        for version in (b"0.9", b"1.2", b"2.0"):
            line = b"CONNECT registry.example.com:443 HTTP/" + version
            self.assertRefused(request(line=line), VersionNotSupported)

    def test_host_field(self) -> None:
        """HTTP/1.1 has exactly one valid Host field."""
        self.assertRefused(request(host=None))
        self.assertRefused(request(b"host: registry.example.com:443"))
        self.assertRefused(request(host=b""))

    def test_host_field_differs(self) -> None:
        """Target and Host field name the same host and port."""
        for host in (b"example.net:443", b"registry.example.com:80", b"example.net"):
            self.assertRefused(request(host=host), Misdirected)

    def test_port_only_in_target(self) -> None:
        """A Host field without a port does not mean any port."""
        line = b"CONNECT registry.example.com:5000 HTTP/1.1"
        self.assertRefused(request(line=line, host=b"registry.example.com"), Misdirected)

    def test_content(self) -> None:
        """A CONNECT with content is an attempt to be read in two ways."""
        for field in (
            b"Content-Length: 5",
            b"Content-Length: 00",
            b"Content-Length: 0, 5",
            b"Transfer-Encoding: chunked",
            b"transfer-encoding: identity",
        ):
            self.assertRefused(request(field))

    def test_field_lines(self) -> None:
        """A field is a name, a colon and printable text, on one line."""
        for line in (
            b"no colon",
            b": no name",
            b"Name : space before the colon",
            b" folded",
            b"X: bare\rCR",
            b"X: zero\0",
            b"X: delete\x7f",
        ):
            self.assertRefused(request(line))

    def test_bare_line_feeds(self) -> None:
        """Lines end with CR LF; the first that does not is enough."""
        self.assertRefused(request().replace(b"\r\n", b"\n"))
        self.assertRefused(b"CONNECT registry.example.com:443 HTTP/1.1\n")

    def test_limit(self) -> None:
        """A head may be as long as the limit, and no longer."""
        room = HEAD_LIMIT - len(request(b"X: "))
        longest = request(b"X: " + b"x" * room)
        self.assertEqual(len(longest), HEAD_LIMIT)
        self.assertEqual(parse(longest + b"rest"), (Connect(TARGET), b"rest"))
        self.assertRefused(request(b"X: " + b"x" * (room + 1)), HeadTooLarge)
        self.assertRefused((b"CONNECT " + b"x" * HEAD_LIMIT)[:HEAD_LIMIT], HeadTooLarge)


class OtherTests(SynchronousTestCase):
    """Connections that open with something else."""

    def test_other_methods(self) -> None:
        """Any other request is left whole, as soon as it cannot be a CONNECT."""
        for data in (b"G", b"GET / HTTP/1.1\r\n", b"CONNECTX", b"CONF", b"connect ", b"\n", b"\rX"):
            self.assertEqual(parse(data), (Other.REQUEST, data))

    def test_empty_lines(self) -> None:
        """Empty lines are not taken from a request that is handed on; two are none of a CONNECT."""
        for data in (b"\r\nGET", b"\r\n\r\n", b"\r\n\r\nCONNECT "):
            self.assertEqual(parse(data), (Other.REQUEST, data))

    def test_tls(self) -> None:
        """A TLS handshake is known by its first byte."""
        self.assertEqual(parse(b"\x16\x03"), (Other.TLS, b"\x16\x03"))

    def test_undecided(self) -> None:
        """As long as it may become a CONNECT, more is needed."""
        for data in (b"", b"C", b"CONNECT", b"CONNECT ", b"\r", b"\r\n", b"\r\nCON"):
            self.assertIs(parse(data), None)
        self.assertIs(parse(request()[:-1]), None)


openings = st.one_of(
    st.builds(
        lambda head, at, noise, rest: head[:at] + noise + head[at:] + rest,
        st.sampled_from(
            [
                request(),
                b"\r\n" + request(),
                request(host=b"example.net"),
                request(b"Content-Length: 7"),
                request().replace(b"\r\n", b"\n"),
                b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            ]
        ),
        st.integers(0, 100),
        st.sampled_from([b"", b"", b"", b"\n", b"\r", b"\r\n", b" ", b"\0"]),
        st.binary(max_size=40),
    ),
    st.binary(max_size=40),
)


class SplitTests(SynchronousTestCase):
    """It does not matter how the network cuts the bytes."""

    @given(openings)
    @example(request(b"X: " + b"x" * HEAD_LIMIT))
    def test_what_a_beginning_decides_stays(self, data: bytes) -> None:
        """The first beginning that decides, decides as the whole does."""
        whole = outcome(data)
        # The last beginnings of a long head are the ones that matter.
        cuts = [*range(60), *range(max(60, len(data) - 200), len(data))]
        for cut in cuts:
            begun = outcome(data[:cut])
            if isinstance(begun, tuple):
                opening, rest = begun
                begun = opening, rest + data[cut:]
            if begun is not None:
                self.assertEqual(begun, whole)
                break


class RenderTests(SynchronousTestCase):
    """The response to a client that is refused."""

    def test_response(self) -> None:
        """A complete response with a registry's error body, after which nothing comes."""
        error = Denied("not from here")
        head, _, body = render_refusal(error).partition(b"\r\n\r\n")
        self.assertEqual(
            head.split(b"\r\n"),
            [
                b"HTTP/1.1 403 Forbidden",
                b"Content-Type: application/json",
                b"Content-Length: %d" % len(body),
                b"Connection: close",
                b"Proxy-Status: regproxy; error=http_request_denied",
            ],
        )
        self.assertEqual(
            json.loads(body), {"errors": [{"code": "DENIED", "message": "not from here"}]}
        )

    def test_request_at_fault(self) -> None:
        """RFC 9209 section 2.3.17."""
        refusal = render_refusal(BadRequest("malformed"))
        self.assertIn(b"\r\nProxy-Status: regproxy; error=http_request_error\r\n", refusal)

    def test_further_fields(self) -> None:
        """Fields that the error brings are sent."""
        error = Denied("later")
        error.headers["Retry-After"] = "5"
        self.assertIn(b"\r\nRetry-After: 5\r\n", render_refusal(error))

    def test_statuses(self) -> None:
        """The errors of this module have the statuses of their names."""
        for error, status in (
            (HeadTooLarge(), b"431 Request Header Fields Too Large"),
            (HeadTimeout(), b"408 Request Timeout"),
            (VersionNotSupported(), b"505 HTTP Version Not Supported"),
        ):
            self.assertEqual(render_refusal(error).partition(b"\r\n")[0], b"HTTP/1.1 " + status)
