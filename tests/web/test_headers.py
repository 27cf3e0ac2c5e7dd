from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from regproxy.web.headers import field_text, relayed_headers, request_headers, response_headers

NAMES = st.sampled_from(
    [b"Accept", b"X-One", b"X-Two", b"Link", b"Te", b"Keep-Alive", b"Authorization", b"Host"]
)


def names(headers: Headers) -> set[bytes]:
    return {name.lower() for name, _ in headers.getAllRawHeaders()}


class FieldTests(SynchronousTestCase):
    def test_text(self) -> None:
        """Whatever a client sends, and be it twice."""
        for values, expected in (
            ([b"a"], "a"),
            ([b"a", b"b"], "a, b"),
            ([b"\xff\xc3\xa4"], "\xff\xc3\xa4"),
            ([b""], ""),
        ):
            self.assertEqual(field_text(Headers({b"X-One": values}), "x-one"), expected)
        self.assertIsNone(field_text(Headers(), "x-one"))


class RequestHeadersTests(SynchronousTestCase):
    def test_end_to_end_fields_cross(self) -> None:
        sent = Headers({b"Accept": [b"a/b", b"c/d"], b"Range": [b"bytes=1-"]})
        self.assertEqual(request_headers(sent), sent)

    def test_fields_that_stay(self) -> None:
        for name in (
            b"Host",
            b"Authorization",
            b"Proxy-Authorization",
            b"Content-Length",
            b"Transfer-Encoding",
            b"Accept-Encoding",
            b"Expect",
            b"Cookie",
            b"Connection",
            b"Proxy-Connection",
            b"Keep-Alive",
            b"TE",
            b"Trailer",
            b"Upgrade",
        ):
            self.assertEqual(names(request_headers(Headers({name: [b"x"]}))), set(), name)

    def test_the_clients_are_left_as_they_are(self) -> None:
        sent = Headers({b"Host": [b"r.test"]})
        request_headers(sent)
        self.assertTrue(sent.hasHeader(b"host"))


class RelayedHeadersTests(SynchronousTestCase):
    def test_the_message_crosses(self) -> None:
        """Logins and cookies are the host's business, as codings are."""
        sent = Headers(
            {
                b"Authorization": [b"Basic eA=="],
                b"Cookie": [b"a=b"],
                b"Accept-Encoding": [b"gzip"],
                b"If-None-Match": [b'"x"'],
            }
        )
        self.assertEqual(relayed_headers(sent), sent)

    def test_the_connection_stays(self) -> None:
        for name in (
            b"Host",
            b"Content-Length",
            b"Expect",
            b"Proxy-Authorization",
            b"Proxy-Connection",
            b"Transfer-Encoding",
            b"Connection",
            b"Upgrade",
            b"TE",
        ):
            self.assertEqual(names(relayed_headers(Headers({name: [b"x"]}))), set(), name)
        sent = Headers({b"Connection": [b"close, X-Private"], b"X-Private": [b"y"]})
        self.assertEqual(names(relayed_headers(sent)), set())


class ResponseHeadersTests(SynchronousTestCase):
    def test_the_origins_fields_cross(self) -> None:
        given = Headers(
            {
                b"Link": [b'</v2/x/tags/list?last=a>; rel="next"'],
                b"OCI-Subject": [b"sha256:0"],
                b"Www-Authenticate": [b"Bearer realm=x"],
                b"Date": [b"x"],
                b"Server": [b"x"],
                b"Content-Length": [b"3"],
            }
        )
        self.assertEqual(response_headers(given), given)

    def test_fields_of_the_connection_stay(self) -> None:
        for name in (b"Connection", b"Transfer-Encoding", b"Proxy-Authenticate", b"Upgrade"):
            self.assertEqual(names(response_headers(Headers({name: [b"x"]}))), set(), name)


class ConnectionFieldTests(SynchronousTestCase):
    """RFC 9110 section 7.6.1: Connection names further fields that stay."""

    @given(st.dictionaries(NAMES, st.just([b"x"])), st.lists(st.lists(NAMES)))
    def test_named_fields_stay(
        self, fields: dict[bytes, list[bytes]], named: list[list[bytes]]
    ) -> None:
        headers = Headers(fields)
        for line in named:
            headers.addRawHeader(b"Connection", b" , ".join(line))
        gone = {name.lower() for line in named for name in line}
        for rule in (request_headers, response_headers):
            plain = names(rule(Headers(fields)))
            self.assertEqual(names(rule(headers)), plain - gone)
