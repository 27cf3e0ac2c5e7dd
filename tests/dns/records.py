"""Messages as ``twisted.names`` makes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from twisted.names import dns

from regproxy.dns.message import Query

_NAME: Final = "a.example.test"

#: Of types with and without names in them, and of types that nobody knows.
RECORDS: Final = [
    dns.RRHeader(_NAME, dns.A, ttl=60, payload=dns.Record_A("192.0.2.7", 60)),
    dns.RRHeader(_NAME, dns.AAAA, ttl=60, payload=dns.Record_AAAA("2001:db8::7", 60)),
    dns.RRHeader(_NAME, dns.CNAME, ttl=0, payload=dns.Record_CNAME("b.example.test", 0)),
    dns.RRHeader(_NAME, dns.NS, ttl=86400, payload=dns.Record_NS("ns.example.test", 86400)),
    dns.RRHeader(
        "example.test",
        dns.SOA,
        ttl=300,
        payload=dns.Record_SOA("ns.example.test", "x.example.test", 1, 2, 3, 4, 5, 300),
    ),
    dns.RRHeader(_NAME, dns.TXT, ttl=60, payload=dns.Record_TXT(b"a", b"b" * 200, ttl=60)),
    dns.RRHeader(_NAME, dns.MX, ttl=60, payload=dns.Record_MX(10, "mx.example.test", 60)),
    # HTTPS (RFC 9460) and a type for private use.
    dns.RRHeader(_NAME, 65, ttl=60, payload=dns.UnknownRecord(b"\0\1\0\0\1\0\3\2h2", 60)),
    dns.RRHeader(_NAME, 65280, ttl=1 << 31, payload=dns.UnknownRecord(bytes(range(256)), 1 << 31)),
    dns.RRHeader("", 65281, ttl=60, payload=dns.UnknownRecord(b"", 60)),
]


def answer_to(
    query: Query,
    answers: Sequence[dns.RRHeader],
    authorities: Sequence[dns.RRHeader] = (),
    additional: Sequence[dns.RRHeader] = (),
    *,
    rcode: int = dns.OK,
) -> bytes:
    """The message that answers *query* with these records."""
    message = dns.Message(query.id, answer=1, recDes=1, recAv=1, rCode=rcode, maxSize=0)
    asked = dns.Message()
    asked.fromStr(query.encoded())
    message.queries = asked.queries
    message.answers = list(answers)
    message.authority = list(authorities)
    message.additional = list(additional)
    return message.toStr()
