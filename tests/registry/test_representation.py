"""Tests for :mod:`regproxy.registry.representation`: conditions, ranges and Location."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from regproxy.config.model import RegistrySection
from regproxy.oci.names import Digest, Host
from regproxy.registry.representation import local_location, mirror_references
from tests.support.front import OPEN, FrontTestCase
from tests.support.upstream import Reply

BLOB = bytes(range(250)) * 4
ETAG = f'"{Digest.of(BLOB)}"'


class StoredTests(FrontTestCase):
    """Stored content, asked for with conditions."""

    def setUp(self) -> None:
        super().setUp()
        self.target = self.upstream.serve_blob(OPEN, "app", BLOB)
        self.get(OPEN, self.target)

    def test_none_match(self) -> None:
        """304 for who has it already."""
        for method in self.get, self.head:
            for field in ETAG, f"W/{ETAG}", "*", f'"x", {ETAG}':
                answer = method(OPEN, self.target, If_None_Match=field)
                self.assertEqual((answer.status, answer["ETag"]), (304, ETAG))
                self.assertIsNone(answer["Content-Length"])
        self.assertEqual(self.get(OPEN, self.target, If_None_Match='"x"').body, BLOB)

    def test_match(self) -> None:
        """412 for who wants something else."""
        answer = self.get(OPEN, self.target, If_Match='"x"')
        self.assertEqual((answer.status, answer.error["code"]), (412, "UNSUPPORTED"))
        self.assertEqual(answer["Proxy-Status"], "regproxy; error=http_request_error")
        self.assertEqual(self.get(OPEN, self.target, If_Match=ETAG).body, BLOB)

    def test_range(self) -> None:
        """206 and the part."""
        for wanted, start, end in (
            ("0-0", 0, 1),
            ("10-19", 10, 20),
            ("990-", 990, 1000),
            ("-7", 993, 1000),
            ("0-5000", 0, 1000),
        ):
            answer = self.get(OPEN, self.target, Range=f"bytes={wanted}")
            self.assertEqual((answer.status, answer.whole), (206, True))
            self.assertEqual(answer.body, BLOB[start:end])
            self.assertEqual(answer["Content-Range"], f"bytes {start}-{end - 1}/1000")
            self.assertEqual(answer["Content-Length"], str(end - start))

    def test_range_outside(self) -> None:
        """416 and the size."""
        answer = self.get(OPEN, self.target, Range="bytes=1000-")
        self.assertEqual((answer.status, answer.error["code"]), (416, "RANGE_INVALID"))
        self.assertEqual(answer["Proxy-Status"], "regproxy; error=http_request_error")
        self.assertEqual(answer["Content-Range"], "bytes */1000")

    def test_range_ignored(self) -> None:
        """Several, or none that can be read, or of something else: the whole."""
        for fields in (
            {"Range": "bytes=0-1,5-6"},
            {"Range": "lines=1-2"},
            {"Range": "bytes=5-1"},
            {"Range": "bytes=0-1", "If_Range": '"x"'},
            {"Range": "bytes=0-1", "If_Range": "Mon, 01 Jan 2024 00:00:00 GMT"},
        ):
            answer = self.get(OPEN, self.target, **fields)
            self.assertEqual((answer.status, answer.body), (200, BLOB))
            self.assertIsNone(answer["Content-Range"])

    def test_if_range(self) -> None:
        answer = self.get(OPEN, self.target, Range="bytes=0-1", If_Range=ETAG)
        self.assertEqual((answer.status, answer.body), (206, BLOB[:2]))

    def test_head_has_no_range(self) -> None:
        """RFC 9110 section 14.2: Range is for GET."""
        answer = self.head(OPEN, self.target, Range="bytes=0-1")
        self.assertEqual((answer.status, answer["Content-Length"]), (200, "1000"))


class FillingTests(FrontTestCase):
    """Content that is still arriving."""

    def setUp(self) -> None:
        super().setUp()
        self.target = self.upstream.serve_blob(OPEN, "app", BLOB)

    def begin(self, length: int = len(BLOB)) -> None:
        """A transfer of which a hundred bytes have come."""
        self.upstream.on("GET", OPEN + self.target, Reply(200, {}, None, length))
        self.leader = self.ask("GET", OPEN, self.target)
        (self.response,) = self.upstream.responses
        self.response.send(BLOB[:100])

    def finish(self) -> None:
        """And now the rest."""
        self.response.send(BLOB[100:])
        self.response.end()
        self.assertEqual(self.leader.answer().body, BLOB)

    def test_range(self) -> None:
        """206 at once, then the bytes as they come."""
        self.begin()
        here = self.ask("GET", OPEN, self.target, Range="bytes=10-19")
        later = self.ask("GET", OPEN, self.target, Range="bytes=90-")
        self.assertEqual(later.answer().body, BLOB[90:100])
        # The last byte is held back until all are known to be right.
        self.assertEqual(here.answer().body, BLOB[10:19])
        self.finish()
        for client, start, end in (here, 10, 20), (later, 90, 1000):
            answer = client.answer()
            self.assertEqual((answer.status, answer.body), (206, BLOB[start:end]))
            self.assertEqual(answer["Content-Range"], f"bytes {start}-{end - 1}/1000")

    def test_range_of_unknown_length(self) -> None:
        """Ignored: Content-Range could not be said."""
        self.begin(length=-1)
        client = self.ask("GET", OPEN, self.target, Range="bytes=0-1")
        self.finish()
        answer = client.answer()
        self.assertEqual((answer.status, answer.body), (200, BLOB))

    def test_head(self) -> None:
        self.begin()
        answer = self.head(OPEN, self.target)
        self.assertEqual((answer.status, answer["Content-Length"]), (200, "1000"))
        self.finish()

    def test_conditions(self) -> None:
        """The digest is known before the bytes are."""
        self.begin()
        self.assertEqual(self.get(OPEN, self.target, If_None_Match=ETAG).status, 304)
        self.assertEqual(self.get(OPEN, self.target, Range="bytes=1000-").status, 416)
        self.finish()


class LocationTests(SynchronousTestCase):
    """local_location"""

    def location(self, value: str, *upstream: str) -> str | None:
        headers = Headers({"location": [value]})
        local_location(headers, RegistrySection(upstream=upstream))
        (location,) = headers.getRawHeaders("location", [])
        return location

    def test_own(self) -> None:
        """An address of the registry becomes a path."""
        for base in "https://10.0.0.7:5000", "https://10.0.0.7:5000/":
            self.assertEqual(
                self.location("https://10.0.0.7:5000/v2/x?y=z", "https://first.example.com", base),
                "/v2/x?y=z",
            )

    def test_other(self) -> None:
        """Everything else stays as it is."""
        for value in (
            "/v2/x",
            "https://storage.example.com/x",
            "https://10.0.0.7:50001/x",
            "https://10.0.0.7:5000.example.com/x",
        ):
            self.assertEqual(self.location(value, "https://10.0.0.7:5000"), value)


class MirrorReferencesTests(SynchronousTestCase):
    """mirror_references"""

    def test_fields(self) -> None:
        """Every line of both fields, at the registry's name and at its upstream's address."""
        headers = Headers(
            {
                "Location": ["https://10.0.0.7:5000/v2/app/blobs/uploads/7?a=b"],
                "Link": ['<https://a.b/v2/_catalog?last=x>; rel="next"', "</help>; rel=help"],
                "Content-Location": ["/v2/app"],
            }
        )
        section = RegistrySection(upstream=("https://10.0.0.7:5000/",))
        mirror_references(headers, Host("a.b"), section)
        self.assertEqual(
            headers,
            Headers(
                {
                    "Location": ["/v2/app/blobs/uploads/7?a=b&ns=a.b"],
                    "Link": [
                        '</v2/_catalog?last=x&ns=a.b>; rel="next"',
                        "</help?ns=a.b>; rel=help",
                    ],
                    "Content-Location": ["/v2/app"],
                }
            ),
        )

    def test_none(self) -> None:
        headers = Headers({"Date": ["x"]})
        mirror_references(headers, Host("a.b"), RegistrySection())
        self.assertEqual(headers, Headers({"Date": ["x"]}))
