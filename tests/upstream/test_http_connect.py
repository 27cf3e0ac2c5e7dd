"""Tests for :mod:`regproxy.upstream.http_connect`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy import __version__
from regproxy.oci.names import Host
from regproxy.upstream.errors import (
    ParentProxyRefused,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from regproxy.upstream.handshake import AnswerInvalid
from regproxy.upstream.http_connect import http_connect, parse_answer, request_head
from regproxy.upstream.logins import Password

TARGET = Host("registry.example.test")
LOGIN = Password("team", "geheim")


class RequestHeadTests(SynchronousTestCase):
    """request_head"""

    def test_plain(self) -> None:
        """The port is always there, and an IPv6 address in brackets."""
        for host, authority in (TARGET, "registry.example.test:443"), (Host("::1", 80), "[::1]:80"):
            self.assertEqual(
                request_head(host, None).decode().split("\r\n"),
                [
                    f"CONNECT {authority} HTTP/1.1",
                    f"Host: {authority}",
                    f"User-Agent: regproxy/{__version__}",
                    "",
                    "",
                ],
            )

    def test_login(self) -> None:
        self.assertIn(
            b"\r\nProxy-Authorization: Basic dGVhbTpnZWhlaW0=\r\n", request_head(TARGET, LOGIN)
        )


class ParseAnswerTests(SynchronousTestCase):
    """parse_answer"""

    def test_good(self) -> None:
        """Status and rest, whatever the fields say about a body."""
        for head in (
            b"HTTP/1.1 200 Connection established\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nVia: x\r\nContent-Length: 5\r\n\r\n",
            b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 \n\n",
            b"HTTP/1.1 200 \xfctf\nA: b\r\n\n",
        ):
            self.assertEqual(parse_answer(head + b"rest"), (200, b"rest"), head)

    def test_interim(self) -> None:
        """Interim answers are passed over."""
        self.assertEqual(
            parse_answer(b"HTTP/1.1 102 Wait\r\nA: b\r\n\r\nHTTP/1.1 407 No\r\n\r\n"), (407, b"")
        )
        self.assertIsNone(parse_answer(b"HTTP/1.1 102 Wait\r\n\r\n"))

    def test_not_http(self) -> None:
        for data in (
            b"SSH-2.0-x",
            b"\x15\x03\x01",
            b"HTTP/2 200\r\n\r\n",
            b"HTTP/1.1 99 x\r\n\r\n",
            b"HTTP/1.1 2000 x\r\n\r\n",
            b"HTTP/1.1  200\r\n\r\n",
            b"HTTP/1.1 100 x\r\n\r\nSSH-",
        ):
            self.assertRaises(AnswerInvalid, parse_answer, data)

    @given(
        st.lists(st.integers(100, 199), max_size=3),
        st.integers(200, 599),
        st.binary(max_size=20),
        st.data(),
    )
    def test_cut_anywhere(
        self, interim: list[int], status: int, rest: bytes, data: st.DataObject
    ) -> None:
        """How the network cuts the bytes does not matter."""
        heads = [b"HTTP/1.1 %d x\r\nVia: y\r\n\r\n" % code for code in [*interim, status]]
        whole = b"".join(heads)
        cut = data.draw(st.integers(0, len(whole) - 1))
        self.assertIsNone(parse_answer(whole[:cut]))
        self.assertEqual(parse_answer(whole + rest), (status, rest))


class HandshakeTests(SynchronousTestCase):
    """http_connect"""

    def refusal(self, status: int, login: Password | None = None) -> UpstreamError:
        handshake = http_connect("the proxy", TARGET, login)
        self.assertEqual(next(handshake).data, request_head(TARGET, login))
        with self.assertRaises(UpstreamError) as caught:
            handshake.send(status)
        error: UpstreamError = caught.exception
        return error

    def test_established(self) -> None:
        for status in 200, 204:
            handshake = http_connect("the proxy", TARGET, LOGIN)
            next(handshake)
            self.assertRaises(StopIteration, handshake.send, status)

    def test_refused(self) -> None:
        """Who is at fault, and what to do; never the login."""
        where = "registry.example.test:443"
        for status, login, kind, message in (
            (407, None, ParentProxyRefused, "wants a login, and there is none for it"),
            (407, LOGIN, ParentProxyRefused, "does not accept this proxy's login"),
            (403, LOGIN, ParentProxyRefused, f"gives no tunnel to {where}: it answered 403"),
            (302, None, ParentProxyRefused, f"gives no tunnel to {where}: it answered 302"),
            (500, None, ParentProxyRefused, f"gives no tunnel to {where}: it answered 500"),
            (502, None, UpstreamUnreachable, f"cannot reach {where}: it answered 502"),
            (503, LOGIN, UpstreamUnreachable, f"cannot reach {where}: it answered 503"),
            (504, None, UpstreamTimeout, f"could not reach {where} in time"),
        ):
            error = self.refusal(status, login)
            self.assertIs(type(error), kind, status)
            self.assertEqual(error.message, f"the proxy {message}")
