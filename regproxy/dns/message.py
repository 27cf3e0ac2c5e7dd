"""Messages of the domain name system: RFC 1035 section 4, with EDNS (RFC 6891).

A query is read strictly, and nothing of it goes anywhere but its question and its flags.
Of an answer only the frames of the records are read. What is in them passes as it came, as
RFC 5625 section 4 asks of a proxy, and no name in them is ever followed: there is no loop of
compression pointers to fall into. ``twisted.names`` would decode everything and
encode it anew. It takes a message that breaks off for a whole one, dots within a label for
those between labels, and knows nothing of sizes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from attrs import evolve, frozen

IPAddress = IPv4Address | IPv6Address

HEADER_SIZE: Final = 12
# What everybody has to take over UDP, and what passes without fragments: RFC 1035
# section 4.2.1, and the recommendation of DNS Flag Day 2020.
UDP_SIZE: Final = 512
UDP_SIZE_EDNS: Final = 1232
TCP_SIZE: Final = 65535

# RFC 1035 sections 2.3.4 and 4.1.4.
_NAME_MAX: Final = 255
_LABEL_MAX: Final = 63
_POINTER: Final = 0xC0
_TO_QUESTION: Final = struct.pack("!H", _POINTER << 8 | HEADER_SIZE)

_HEADER: Final = struct.Struct("!6H")
_QUESTION: Final = struct.Struct("!2H")
_RECORD: Final = struct.Struct("!2HIH")
_TTL: Final = struct.Struct("!I")

# RFC 1035 section 4.1.1; AD and CD are of RFC 4035 section 3.
_QR: Final = 0x8000
_OPCODE: Final = 0x7800
_AA: Final = 0x0400
_TC: Final = 0x0200
_RD: Final = 0x0100
_RA: Final = 0x0080
_AD: Final = 0x0020
_CD: Final = 0x0010
_RCODE: Final = 0x000F
# In the TTL of an OPT record: RFC 6891 section 6.1.3.
_DO: Final = 0x8000

_HOST_LABEL: Final = re.compile(rb"[a-z0-9_-]+")


class Type(IntEnum):
    """The types that mean something here."""

    A = 1
    SOA = 6
    AAAA = 28
    OPT = 41
    TKEY = 249
    TSIG = 250
    IXFR = 251
    AXFR = 252


#: The class of the internet.
IN: Final = 1


class RCode(IntEnum):
    """The codes of answers that are made here."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


class MessageInvalid(Exception):
    """Not a message, or not one that was asked for."""


class QueryInvalid(MessageInvalid):
    """A query that cannot be answered; *rcode* says why."""

    def __init__(self, rcode: RCode) -> None:
        super().__init__(rcode.name)
        self.rcode = rcode


@frozen
class Question:
    """What is asked.

    Attributes:
        name: as it stands in the message, in the asker's spelling.
    """

    name: bytes
    type: int
    cls: int = IN

    @classmethod
    def about(cls, host: str, type: int) -> Question:
        """A question about a host.

        Raises:
            MessageInvalid: *host* cannot be the name of one.
        """
        labels = host.encode("ascii", "replace").split(b".")
        name = b"".join(bytes([len(label) & 0xFF]) + label for label in labels) + b"\0"
        question = cls(name, type)
        if len(name) > _NAME_MAX or question.host != host.lower():
            raise MessageInvalid(f"{host!a} is no host name")
        return question

    @property
    def key(self) -> tuple[bytes, int, int]:
        """The same for every spelling (RFC 4343). Lengths of labels are no letters."""
        return self.name.lower(), self.type, self.cls

    @property
    def host(self) -> str | None:
        """The name as hosts have it, in lower case; None when no host can have it."""
        labels = []
        at = 0
        while length := self.name[at]:
            label = self.name[at + 1 : at + 1 + length].lower()
            # A dot in a label must not pass for one between labels.
            if length > _LABEL_MAX or not _HOST_LABEL.fullmatch(label):
                return None
            labels.append(label)
            at += 1 + length
        return b".".join(labels).decode() or None

    def encoded(self) -> bytes:
        """The question section."""
        return self.name + _QUESTION.pack(self.type, self.cls)


@frozen
class EDNS:
    """What an OPT record says: RFC 6891 section 6.1.

    Attributes:
        udp_size: bytes that the sender takes over UDP.
        dnssec_ok: it wants signatures (RFC 3225).
    """

    udp_size: int = UDP_SIZE_EDNS
    version: int = 0
    dnssec_ok: bool = False

    def encoded(self, rcode: int = 0) -> bytes:
        """The record, with the upper bits of *rcode*."""
        extended = (rcode >> 4) << 24 | self.version << 16 | self.dnssec_ok * _DO
        return b"\0" + _RECORD.pack(Type.OPT, self.udp_size, extended, 0)


@frozen
class Query:
    """A question, and how it is asked.

    Attributes:
        authentic_data: the asker understands the AD bit (RFC 6840 section 5.7).
    """

    question: Question
    id: int = 0
    recursion_desired: bool = True
    authentic_data: bool = False
    checking_disabled: bool = False
    edns: EDNS | None = None

    @property
    def dnssec_ok(self) -> bool:
        """See EDNS."""
        return self.edns is not None and self.edns.dnssec_ok

    @property
    def key(self) -> tuple[object, ...]:
        """Queries with the same key have the same answer."""
        return *self.question.key, self.dnssec_ok, self.checking_disabled

    @property
    def udp_limit(self) -> int:
        """The largest answer over UDP, in bytes."""
        if self.edns is None:
            return UDP_SIZE
        return min(max(self.edns.udp_size, UDP_SIZE), UDP_SIZE_EDNS)

    def encoded(self) -> bytes:
        """The message that asks this."""
        flags = (
            self.recursion_desired * _RD | self.authentic_data * _AD | self.checking_disabled * _CD
        )
        edns = self.edns
        header = _HEADER.pack(self.id, flags, 1, 0, 0, int(edns is not None))
        return header + self.question.encoded() + (b"" if edns is None else edns.encoded())


@frozen
class Answer:
    """What there is to say to a question, whoever asks it.

    Attributes:
        counts: how many records the sections "answer" and "authority" have. Nothing is
            kept of the third one: who needs that can ask for it.
        records: both sections. Names in them may point into the question before them.
        ttls: where in *records* a TTL stands.
        lifetime: how many seconds it may be kept.
        authentic: its sender vouches for it (AD).
        truncated: it did not fit.
    """

    rcode: int
    counts: tuple[int, int] = (0, 0)
    records: bytes = b""
    ttls: tuple[int, ...] = ()
    lifetime: int = 0
    authoritative: bool = False
    authentic: bool = False
    truncated: bool = False

    def aged(self, seconds: int) -> Answer:
        """The same after some time."""
        records = bytearray(self.records)
        for at in self.ttls:
            (ttl,) = _TTL.unpack_from(records, at)
            _TTL.pack_into(records, at, max(0, ttl - seconds))
        return evolve(self, records=bytes(records))

    def addresses(self, type: Type) -> list[IPAddress]:
        """The addresses in it, for a question of this *type*."""
        family, size = (IPv4Address, 4) if type is Type.A else (IPv6Address, 16)
        return [
            family(record.data)
            for record in _records(self.records, 0, self.counts[0])
            if (record.type, record.cls, len(record.data)) == (type, IN, size)
        ]


def is_query(data: bytes) -> bool:
    """Whether there is somebody to answer.

    Never answer an answer: two servers would go on for ever.
    """
    return len(data) >= HEADER_SIZE and not data[2] << 8 & _QR


def read_query(data: bytes) -> Query:
    """Read what :func:`is_query`.

    Raises:
        QueryInvalid: it is malformed, or asks for something that there is not.
    """
    id, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(data)
    if flags & _OPCODE:
        raise QueryInvalid(RCode.NOTIMP)
    try:
        if questions != 1:
            raise MessageInvalid("expected one question")
        question, end = _question(data)
        count = answers + authorities + additionals
        options = [r for r in _records(data, end, count) if r.type == Type.OPT]
        if len(options) > 1:
            raise MessageInvalid("more than one OPT record")
    except MessageInvalid:
        raise QueryInvalid(RCode.FORMERR) from None
    edns = None
    for option in options:
        edns = EDNS(option.cls, option.ttl >> 16 & 0xFF, bool(option.ttl & _DO))
    return Query(question, id, bool(flags & _RD), bool(flags & _AD), bool(flags & _CD), edns)


def read_answer(data: bytes, query: Query) -> Answer:
    """Read the answer to *query*.

    Raises:
        MessageInvalid: it is none, or malformed.
    """
    if len(data) < HEADER_SIZE:
        raise MessageInvalid("no message")
    id, flags, questions, answers, authorities, _ = _HEADER.unpack_from(data)
    if (id, flags & (_QR | _OPCODE), questions) != (query.id, _QR, 1):
        raise MessageInvalid("no answer to this query")
    question, start = _question(data)
    if question.key != query.question.key:
        raise MessageInvalid("an answer to another question")
    rcode = flags & _RCODE
    if flags & _TC:
        return Answer(rcode, truncated=True)
    records = list(_records(data, start, answers + authorities))
    end = records[-1].end if records else start
    return Answer(
        rcode,
        (answers, authorities),
        data[start:end],
        tuple(record.ttl_at - start for record in records),
        _lifetime(rcode, records[:answers], records[answers:]),
        authentic=bool(flags & _AD),
    )


def own_answer(addresses: Sequence[IPAddress], ttl: int) -> Answer:
    """An answer with authority: these addresses, or else that there is nothing of the type.

    The latter has an SOA record, for whoever keeps negative answers (RFC 2308 section 5). It
    makes the name a zone of its own, since of what is above it we know nothing.
    """
    if addresses:
        records = [
            _TO_QUESTION
            + _RECORD.pack(
                Type.A if address.version == 4 else Type.AAAA, IN, ttl, len(address.packed)
            )
            + address.packed
            for address in addresses
        ]
        counts = len(records), 0
    else:
        # The name itself as server, a mail address that does not exist (RFC 6761), and
        # for secondary servers, which there are not, the times of RFC 1912 section 2.2.
        data = _TO_QUESTION + b"\x06nobody\x07invalid\0"
        data += struct.pack("!5I", 1, 3600, 600, 1209600, ttl)
        records = [_TO_QUESTION + _RECORD.pack(Type.SOA, IN, ttl, len(data)) + data]
        counts = 0, 1
    return Answer(RCode.NOERROR, counts, b"".join(records), authoritative=True)


def reply(query: Query, answer: Answer, *, recursive: bool, limit: int) -> bytes:
    """The message that gives *answer* to who sent *query*.

    Args:
        recursive: what to say about recursion.
        limit: bytes. Of an answer that is longer only its head is sent, for the asker to
            come back over TCP.
    """
    records, counts = answer.records, answer.counts
    edns = b""
    if query.edns is not None:
        edns = EDNS(dnssec_ok=query.edns.dnssec_ok).encoded(answer.rcode)
    question = query.question.encoded()
    truncated = HEADER_SIZE + len(question) + len(records) + len(edns) > limit
    if truncated:
        records, counts = b"", (0, 0)
    flags = (
        _QR
        | answer.authoritative * _AA
        | truncated * _TC
        | query.recursion_desired * _RD
        | recursive * _RA
        | (answer.authentic and (query.authentic_data or query.dnssec_ok)) * _AD
        | query.checking_disabled * _CD
        | answer.rcode & _RCODE
    )
    header = _HEADER.pack(query.id, flags, 1, *counts, int(bool(edns)))
    return header + question + records + edns


def complaint(data: bytes, rcode: RCode) -> bytes:
    """The answer to a query that could not be read: its head, and what is wrong with it."""
    id, flags, *_ = _HEADER.unpack_from(data)
    return _HEADER.pack(id, _QR | flags & (_OPCODE | _RD) | rcode, 0, 0, 0, 0)


@frozen
class _Record:
    """The frame of a record, its *data*, and where its TTL and its end are."""

    type: int
    cls: int
    ttl: int
    ttl_at: int
    data: bytes
    end: int


def _question(data: bytes) -> tuple[Question, int]:
    """The question, and where it ends."""
    start = at = HEADER_SIZE
    while True:
        length = _byte(data, at)
        # Before the first name there is nothing that a pointer could point to.
        if length > _LABEL_MAX:
            raise MessageInvalid("no name")
        at += 1 + length
        if not length:
            break
    end = at + _QUESTION.size
    if at - start > _NAME_MAX or end > len(data):
        raise MessageInvalid("no question")
    return Question(data[start:at], *_QUESTION.unpack_from(data, at)), end


def _records(data: bytes, at: int, count: int) -> Iterator[_Record]:
    for _ in range(count):
        while length := _byte(data, at):
            if length >= _POINTER:
                at += 1
                break
            if length > _LABEL_MAX:
                raise MessageInvalid("no name")
            at += 1 + length
        at += 1
        start = at + _RECORD.size
        if start > len(data):
            raise MessageInvalid("no record")
        type, cls, ttl, size = _RECORD.unpack_from(data, at)
        end = start + size
        if end > len(data):
            raise MessageInvalid("a record breaks off")
        yield _Record(type, cls, ttl, at + 4, data[start:end], end)
        at = end


def _byte(data: bytes, at: int) -> int:
    if at >= len(data):
        raise MessageInvalid("breaks off")
    return data[at]


def _lifetime(rcode: int, answers: Sequence[_Record], authorities: Sequence[_Record]) -> int:
    """For how many seconds an answer may be kept.

    That there is nothing may be kept as long as an SOA record says (RFC 2308 section 5).
    """
    # A TTL with the first bit set counts as 0 (RFC 2181 section 8).
    times = [record.ttl if record.ttl < 1 << 31 else 0 for record in (*answers, *authorities)]
    start_of_authority = [record for record in authorities if record.type == Type.SOA]
    for record in start_of_authority:
        # The last field is the TTL of negative answers.
        times.append(int.from_bytes(record.data[-4:]))
    negative = rcode == RCode.NXDOMAIN or not answers
    if rcode not in (RCode.NOERROR, RCode.NXDOMAIN) or (negative and not start_of_authority):
        return 0
    return min(times)
