"""Tests for :mod:`regproxy.upstream.socks`, against RFC 1928 and RFC 1929."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.oci.names import Host
from regproxy.upstream.errors import ParentProxyRefused, UpstreamError, UpstreamUnreachable
from regproxy.upstream.handshake import AnswerInvalid, Handshake
from regproxy.upstream.logins import Password
from regproxy.upstream.socks import (
    greeting,
    login_message,
    parse_login,
    parse_method,
    parse_reply,
    request,
    socks5,
)
from tests.oci.strategies import hosts

TARGET = Host("registry.example.test")
LOGIN = Password("team", "geheim")
GRANTED = b"\x05\x00\x00\x01\x0a\x00\x00\x01\x1f\x90"


class MessageTests(SynchronousTestCase):
    """What is sent"""

    def test_greeting(self) -> None:
        """A login is offered only where there is one."""
        self.assertEqual(greeting(None), b"\x05\x01\x00")
        self.assertEqual(greeting(LOGIN), b"\x05\x02\x00\x02")

    def test_login(self) -> None:
        self.assertEqual(login_message(LOGIN), b"\x01\x04team\x06geheim")
        self.assertEqual(login_message(Password("ü", "")), b"\x01\x02\xc3\xbc\x00")

    def test_request(self) -> None:
        for host, address in (
            (Host("a.test", 8443), b"\x03\x06a.test\x20\xfb"),
            (Host("192.0.2.7"), b"\x01\xc0\x00\x02\x07\x01\xbb"),
            (Host("2001:db8::1", 80), b"\x04\x20\x01\x0d\xb8" + bytes(11) + b"\x01\x00\x50"),
        ):
            self.assertEqual(request(host), b"\x05\x01\x00" + address)

    @given(hosts)
    def test_any_request(self, host: Host) -> None:
        """It has the length that its address type announces."""
        message = request(host)
        length = {1: 4, 4: 16}.get(message[3], 1 + message[4])
        self.assertEqual(len(message), 4 + length + 2)
        self.assertEqual(int.from_bytes(message[-2:], "big"), host.port)


class ParseTests(SynchronousTestCase):
    """What is received"""

    def test_method(self) -> None:
        self.assertEqual(parse_method(b"\x05\x02rest"), (2, b"rest"))

    def test_login(self) -> None:
        self.assertEqual(parse_login(b"\x01\x00rest"), (True, b"rest"))
        self.assertEqual(parse_login(b"\x01\x01"), (False, b""))

    def test_reply(self) -> None:
        """Whatever address it names, which is not used."""
        for address in b"\x01abcd", b"\x04" + bytes(16), b"\x03\x05a.b.c", b"\x03\x00":
            whole = b"\x05\x00\x00" + address + b"\x00\x50"
            for cut in range(len(whole)):
                self.assertIsNone(parse_reply(whole[:cut]))
            self.assertEqual(parse_reply(whole + b"rest"), (0, b"rest"))

    def test_not_socks5(self) -> None:
        for parse in parse_method, parse_reply:
            for data in b"H", b"HTTP/1.1 400", b"\x00\x5a", b"\x04\x00":
                self.assertRaises(AnswerInvalid, parse, data)
        self.assertRaises(AnswerInvalid, parse_login, b"\x05\x00")
        self.assertRaises(AnswerInvalid, parse_reply, b"\x05\x00\x00\x02\x00")

    @given(st.binary(max_size=300))
    def test_anything(self, data: bytes) -> None:
        """Every answer is read, waited for, or refused."""
        for parse in parse_method, parse_login, parse_reply:
            try:
                parsed = parse(data)
            except AnswerInvalid:
                continue
            if parsed is not None:
                self.assertTrue(data.endswith(parsed[1]))


class HandshakeTests(SynchronousTestCase):
    """socks5"""

    def run_through(self, handshake: Handshake, *answers: bytes) -> list[bytes]:
        """What is said, when the proxy says *answers*."""
        step = next(handshake)
        said = [step.data]
        for answer in answers:
            parsed = step.parse(answer)
            assert parsed is not None
            self.assertEqual(parsed[1], b"")
            try:
                step = handshake.send(parsed[0])
            except StopIteration:
                return said
            said.append(step.data)
        self.fail("it is not over")

    def refusal(self, *answers: bytes, login: Password | None = None) -> UpstreamError:
        with self.assertRaises(UpstreamError) as caught:
            self.run_through(socks5("the proxy", TARGET, login), *answers)
        error: UpstreamError = caught.exception
        return error

    def test_without_login(self) -> None:
        self.assertEqual(
            self.run_through(socks5("p", TARGET, None), b"\x05\x00", GRANTED),
            [greeting(None), request(TARGET)],
        )

    def test_with_login(self) -> None:
        self.assertEqual(
            self.run_through(socks5("p", TARGET, LOGIN), b"\x05\x02", b"\x01\x00", GRANTED),
            [greeting(LOGIN), login_message(LOGIN), request(TARGET)],
        )

    def test_login_not_wanted(self) -> None:
        """Then it is not sent."""
        self.assertEqual(
            self.run_through(socks5("p", TARGET, LOGIN), b"\x05\x00", GRANTED),
            [greeting(LOGIN), request(TARGET)],
        )

    def test_login_refused(self) -> None:
        for answers, login, message in (
            ((b"\x05\xff",), None, "wants a login, and there is none for it"),
            ((b"\x05\xff",), LOGIN, "accepts no way of logging in that is known here"),
            ((b"\x05\x01",), LOGIN, "accepts no way of logging in that is known here"),
            ((b"\x05\x02",), None, "accepts no way of logging in that is known here"),
            ((b"\x05\x02", b"\x01\x01"), LOGIN, "does not accept this proxy's login"),
        ):
            error = self.refusal(*answers, login=login)
            self.assertIs(type(error), ParentProxyRefused)
            self.assertEqual(error.message, f"the proxy {message}")

    def test_connection_refused(self) -> None:
        where = "registry.example.test:443"
        for code, kind, message in (
            (1, UpstreamUnreachable, f"cannot reach {where}: general failure"),
            (2, ParentProxyRefused, f"gives no connection to {where}: its rules do not allow it"),
            (3, UpstreamUnreachable, f"cannot reach {where}: the network is unreachable"),
            (5, UpstreamUnreachable, f"cannot reach {where}: the connection was refused"),
            (8, ParentProxyRefused, f"gives no connection to {where}: it does not know this type"),
            (99, ParentProxyRefused, f"gives no connection to {where}: it answered 99"),
        ):
            error = self.refusal(b"\x05\x00", bytes([5, code, 0, 1]) + bytes(6))
            self.assertIs(type(error), kind, code)
            self.assertIn(f"the proxy {message}", error.message)
