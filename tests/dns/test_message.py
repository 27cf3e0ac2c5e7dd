"""Tests of regproxy.dns.message. ``twisted.names`` is the other implementation."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase

from regproxy.dns.message import (
    EDNS,
    HEADER_SIZE,
    IN,
    TCP_SIZE,
    UDP_SIZE,
    UDP_SIZE_EDNS,
    Answer,
    MessageInvalid,
    Query,
    QueryInvalid,
    Question,
    RCode,
    Type,
    complaint,
    is_query,
    own_answer,
    read_answer,
    read_query,
    reply,
)
from tests.dns.records import RECORDS, answer_to

HOST = "registry.example.test"
QUESTION = Question.about(HOST, Type.A)
QUERY = Query(QUESTION, 4711)
ADDRESSES = [ip_address(text) for text in ("10.0.0.5", "10.0.0.6", "fd00::5")]

labels = st.binary(min_size=1, max_size=63)
names = st.lists(labels, max_size=3).map(
    lambda name: b"".join(bytes([len(label)]) + label for label in name) + b"\0"
)
words = st.integers(0, 0xFFFF)
questions = st.builds(Question, names, words, words)
queries = st.builds(
    Query,
    questions,
    words,
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.none() | st.builds(EDNS, words, st.integers(0, 255), st.booleans()),
)


def decoded(message: bytes) -> dns.Message:
    """What twisted.names reads."""
    found = dns.Message()
    found.fromStr(message)
    return found


def damaged(message: bytes, data: st.DataObject) -> bytes:
    """*message* with some octets changed, cut off or added."""
    octets = bytearray(message)
    for _ in range(data.draw(st.integers(0, 4))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    return bytes(octets[: data.draw(st.integers(0, len(octets)))]) + data.draw(
        st.binary(max_size=4)
    )


class QuestionTests(SynchronousTestCase):
    """Question"""

    def test_about(self) -> None:
        self.assertEqual(QUESTION.name, b"\x08registry\x07example\x04test\0")
        self.assertEqual(QUESTION.host, HOST)
        self.assertEqual(Question.about("A_b-9.TEST", Type.A).host, "a_b-9.test")

    def test_about_no_host(self) -> None:
        """What cannot be the name of a host is no question that can be asked."""
        for name in (
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "ä.test",
            "a b",
            "a" * 64,
            "a" * 256 + ".test",
            ".".join(["abcdefg"] * 32),
        ):
            with self.assertRaises(MessageInvalid, msg=name):
                Question.about(name, Type.A)

    def test_longest(self) -> None:
        """A name may have 255 octets (RFC 1035 section 2.3.4)."""
        name = ".".join(["a" * 63] * 3 + ["a" * 61])
        question = Question.about(name, Type.A)
        self.assertEqual(len(question.name), 255)
        self.assertEqual(read_query(Query(question).encoded()).question.host, name)

    def test_labels_that_look_like_names(self) -> None:
        """A dot in a label is not one between labels."""
        for name in (
            b"\x15registry.example.test\0",
            b"\x10registry.example\x04test\0",
            b"\x08registry\x07example\x05test.\0",
            b"\x09registry\0\x07example\x04test\0",
            b"\0",
        ):
            self.assertIsNone(Question(name, Type.A).host, name)

    @given(names)
    def test_host_is_a_name(self, name: bytes) -> None:
        """A host leads back to the same question, whatever the spelling."""
        question = Question(name, Type.A)
        if question.host is not None:
            self.assertEqual(Question.about(question.host, Type.A).key, question.key)
            self.assertEqual(Question(name.swapcase(), Type.A).key, question.key)


class QueryTests(SynchronousTestCase):
    """Query, read_query"""

    @given(queries)
    def test_round_trip(self, query: Query) -> None:
        message = query.encoded()
        self.assertTrue(is_query(message))
        self.assertEqual(read_query(message), query)

    @given(queries)
    def test_understood_by_others(self, query: Query) -> None:
        message = decoded(query.encoded())
        self.assertEqual(
            (message.id, message.recDes, message.authenticData, message.checkingDisabled),
            (query.id, query.recursion_desired, query.authentic_data, query.checking_disabled),
        )
        (question,) = message.queries
        self.assertEqual((question.type, question.cls), (query.question.type, query.question.cls))
        self.assertEqual(len(message.additional), int(query.edns is not None))
        for record in message.additional:
            assert query.edns is not None
            options = dns._OPTHeader.fromRRHeader(record)
            self.assertEqual(
                EDNS(options.udpPayloadSize, options.version, bool(options.dnssecOK)), query.edns
            )

    def test_queries_of_others(self) -> None:
        """With a cookie (RFC 7873), and with a signature behind the options (RFC 8945)."""
        message = dns._EDNSMessage(id=7, recDes=True, maxSize=4096, dnssecOK=True)
        message.queries = [dns.Query(HOST.encode(), dns.AAAA)]
        cookie = b"\0\x0a\0\x081234567890"[:12]
        encoded = message.toStr()[:-2] + struct.pack("!H", len(cookie)) + cookie
        signature = b"\0" + struct.pack("!2HIH", Type.TSIG, 255, 0, 3) + b"abc"
        signed = encoded[:11] + b"\x02" + encoded[12:] + signature
        expected = Query(
            Question.about(HOST, Type.AAAA), 7, edns=EDNS(4096, version=0, dnssec_ok=True)
        )
        self.assertEqual(read_query(encoded), expected)
        self.assertEqual(read_query(signed), expected)

    def assert_invalid(self, message: bytes, rcode: RCode) -> None:
        self.assertTrue(is_query(message))
        with self.assertRaises(QueryInvalid) as caught:
            read_query(message)
        self.assertIs(caught.exception.rcode, rcode)
        complaining = decoded(complaint(message, rcode))
        self.assertTrue(complaining.answer)
        self.assertEqual(complaining.rCode, rcode)
        self.assertEqual(complaining.id, int.from_bytes(message[:2]))
        self.assertEqual(complaining.queries, [])

    def test_compressed_question(self) -> None:
        """There is nothing before it that a pointer could point to, and itself least of all."""
        for pointer in (b"\xc0\x0c", b"\xc0\x00", b"\xc0\x10", b"\x01a\xc0\x0c", b"\xff\xff"):
            message = QUERY.encoded()[:HEADER_SIZE] + pointer + b"\0\1\0\1"
            self.assert_invalid(message, RCode.FORMERR)

    def test_reserved_labels(self) -> None:
        """RFC 1035 section 4.1.4: 01 and 10 are reserved; twisted.names takes them for lengths."""
        for length in (0x40, 0x41, 0x80, 0xBF):
            name = bytes([length]) + b"a" * length + b"\0"
            message = QUERY.encoded()[:HEADER_SIZE] + name + b"\0\1\0\1"
            self.assert_invalid(message, RCode.FORMERR)

    def test_too_long(self) -> None:
        name = b"\x3f" + b"a" * 63
        message = QUERY.encoded()[:HEADER_SIZE] + 4 * name + b"\0" + b"\0\1\0\1"
        self.assert_invalid(message, RCode.FORMERR)

    def test_cut_off(self) -> None:
        """At every octet."""
        message = Query(QUESTION, edns=EDNS()).encoded()
        for end in range(HEADER_SIZE, len(message)):
            self.assert_invalid(message[:end], RCode.FORMERR)

    def test_number_of_questions(self) -> None:
        message = QUERY.encoded()
        for count in (0, 2, 0xFFFF):
            changed = message[:4] + struct.pack("!H", count) + message[6:]
            self.assert_invalid(changed + message[HEADER_SIZE:], RCode.FORMERR)

    def test_records_that_are_not_there(self) -> None:
        for at in (6, 8, 10):
            message = bytearray(QUERY.encoded())
            message[at : at + 2] = b"\xff\xff"
            self.assert_invalid(bytes(message), RCode.FORMERR)

    def test_two_options(self) -> None:
        """RFC 6891 section 6.1.1."""
        message = bytearray(Query(QUESTION, edns=EDNS()).encoded()) + EDNS().encoded()
        message[11] = 2
        self.assert_invalid(bytes(message), RCode.FORMERR)

    def test_other_operations(self) -> None:
        """Inverse queries, status, notify, update."""
        for opcode in range(1, 16):
            message = bytearray(QUERY.encoded())
            message[2] |= opcode << 3
            self.assert_invalid(bytes(message), RCode.NOTIMP)
            self.assertEqual(decoded(complaint(bytes(message), RCode.NOTIMP)).opCode, opcode)

    def test_nobody_to_answer(self) -> None:
        """Too short for an id, or an answer itself."""
        for size in range(HEADER_SIZE):
            self.assertFalse(is_query(QUERY.encoded()[:size]))
        answer = reply(QUERY, Answer(RCode.NOERROR), recursive=True, limit=UDP_SIZE)
        self.assertFalse(is_query(answer))
        self.assertFalse(is_query(complaint(QUERY.encoded(), RCode.FORMERR)))

    @given(queries, st.data())
    def test_garbage(self, query: Query, data: st.DataObject) -> None:
        """Whatever comes is read or refused; what was read is of bounded size."""
        message = damaged(query.encoded(), data)
        if is_query(message):
            try:
                found = read_query(message)
            except QueryInvalid:
                return
            self.assertLessEqual(len(found.question.name), 255)
            self.assertEqual(read_query(found.encoded()), found)

    @given(st.binary(max_size=600).map(lambda rest: b"\0\1\1\0\0\1" + rest))
    @example(b"\0\1\1\0\0\1" + b"\xff" * 594)
    def test_noise(self, message: bytes) -> None:
        if is_query(message):
            try:
                read_query(message)
            except QueryInvalid as error:
                self.assertLessEqual(len(complaint(message, error.rcode)), len(message))

    def test_udp_limit(self) -> None:
        """At least what was always allowed, at most what passes without fragments."""
        for size, expected in ((0, 512), (512, 512), (700, 700), (1232, 1232), (65535, 1232)):
            self.assertEqual(Query(QUESTION, edns=EDNS(size)).udp_limit, expected)
        self.assertEqual(QUERY.udp_limit, 512)

    def test_key(self) -> None:
        """Queries of one key may share an answer: spelling, id and sizes do not count."""
        same = [
            QUERY,
            Query(Question.about(HOST.upper(), Type.A), 1),
            Query(QUESTION, edns=EDNS(4096)),
            Query(QUESTION, authentic_data=True),
        ]
        others = [
            Query(Question.about(HOST, Type.AAAA)),
            Query(Question.about("x" + HOST, Type.A)),
            Query(Question(QUESTION.name, Type.A, 3)),
            Query(QUESTION, checking_disabled=True),
            Query(QUESTION, edns=EDNS(dnssec_ok=True)),
        ]
        self.assertEqual(len({query.key for query in same}), 1)
        self.assertEqual(len({query.key for query in (QUERY, *others)}), len(others) + 1)


class AnswerTests(SynchronousTestCase):
    """read_answer"""

    def test_records(self) -> None:
        """Everything of the first two sections passes, in known types and unknown ones."""
        for record in RECORDS:
            message = answer_to(QUERY, [record], [record], [record])
            answer = read_answer(message, QUERY)
            self.assertEqual(answer.counts, (1, 1))
            passed = decoded(reply(QUERY, answer, recursive=True, limit=TCP_SIZE))
            self.assertEqual((passed.answers, passed.authority), ([record], [record]), record)
            self.assertEqual(passed.additional, [])

    def test_in_the_askers_spelling(self) -> None:
        """Names of the answer that point into the question follow it."""
        answer = read_answer(
            answer_to(QUERY, [dns.RRHeader(HOST, payload=dns.Record_A("10.0.0.7"))]), QUERY
        )
        spelled = Query(Question.about("ReGiStRy.Example.TEST", Type.A), 1)
        passed = decoded(reply(spelled, answer, recursive=True, limit=UDP_SIZE))
        self.assertEqual(passed.queries[0].name.name, b"ReGiStRy.Example.TEST")
        self.assertEqual(passed.answers[0].name.name, b"ReGiStRy.Example.TEST")

    def test_not_the_answer(self) -> None:
        """Another id, another question, no answer, another operation, none or two questions."""
        message = answer_to(QUERY, [])
        self.assertEqual(read_answer(message, QUERY).rcode, RCode.NOERROR)
        other = Question.about("other.example.test", Type.A)
        for wrong in (
            answer_to(Query(QUESTION, 4712), []),
            answer_to(Query(other, 4711), []),
            answer_to(Query(Question.about(HOST, Type.AAAA), 4711), []),
            answer_to(Query(Question(QUESTION.name, Type.A, 3), 4711), []),
            QUERY.encoded(),
            message[:2] + bytes([message[2] | 0x08]) + message[3:],
            message[:5] + b"\0" + message[6:],
            message[:5] + b"\2" + message[6:] + message[HEADER_SIZE:],
            b"",
            message[: HEADER_SIZE - 1],
        ):
            with self.assertRaises(MessageInvalid, msg=wrong):
                read_answer(wrong, QUERY)

    def test_cut_off(self) -> None:
        """At every octet; twisted.names takes what is left for the whole."""
        records = [dns.RRHeader(HOST, payload=dns.Record_A(f"10.0.0.{n}")) for n in range(3)]
        message = answer_to(QUERY, records)
        for end in range(len(message)):
            with self.assertRaises(MessageInvalid):
                read_answer(message[:end], QUERY)
        self.assertEqual(len(decoded(message[:-1]).answers), 2)

    def test_loops(self) -> None:
        """A name that points to itself is not followed, here as little as anywhere."""
        head = answer_to(QUERY, [])
        for pointer in (struct.pack("!H", 0xC000 | len(head)), b"\xc0\x00", b"\xff\xff"):
            record = pointer + struct.pack("!2HIH", Type.A, IN, 60, 4) + bytes(4)
            message = head[:7] + b"\1" + head[8:] + record
            self.assertEqual(read_answer(message, QUERY).counts, (1, 0))

    def test_bad_names_of_records(self) -> None:
        head = answer_to(QUERY, [])
        for name in (b"\x40" + b"a" * 64 + b"\0", b"\x80\0", b"\x05ab"):
            record = name + struct.pack("!2HIH", Type.A, IN, 60, 4) + bytes(4)
            with self.assertRaises(MessageInvalid):
                read_answer(head[:7] + b"\1" + head[8:] + record, QUERY)

    def test_truncated(self) -> None:
        """What there is of it is not read."""
        message = bytearray(answer_to(QUERY, [dns.RRHeader(HOST, payload=dns.Record_A("1.1.1.1"))]))
        message[2] |= 2
        self.assertEqual(
            read_answer(bytes(message[:-3]), QUERY), Answer(RCode.NOERROR, truncated=True)
        )

    def test_lifetime(self) -> None:
        """That of the record that has the least; for what there is not, as the zone says."""

        def record(ttl: int) -> dns.RRHeader:
            return dns.RRHeader(HOST, ttl=ttl, payload=dns.Record_A("10.0.0.7"))

        def authority(ttl: int, minimum: int) -> dns.RRHeader:
            soa = dns.Record_SOA("a.test", "b.test", 1, 2, 3, 4, minimum)
            return dns.RRHeader("example.test", dns.SOA, ttl=ttl, payload=soa)

        name_server = dns.RRHeader("test", dns.NS, ttl=30, payload=dns.Record_NS("a.test"))
        alias = dns.RRHeader(HOST, dns.CNAME, ttl=900, payload=dns.Record_CNAME("a.test"))
        for expected, rcode, answers, authorities in (
            (60, 0, [record(60)], []),
            (60, 0, [record(600), record(60)], []),
            (30, 0, [record(600)], [name_server]),
            (0, 0, [record(0)], []),
            (0, 0, [record(1 << 31)], []),
            ((1 << 31) - 1, 0, [record((1 << 31) - 1)], []),
            (300, 0, [], [authority(3600, 300)]),
            (300, 3, [], [authority(300, 3600)]),
            (300, 3, [alias], [authority(300, 3600)]),
            (0, 0, [], []),
            (0, 0, [], [name_server]),
            (0, 3, [], []),
            (0, 3, [alias], []),
            (0, 2, [], [authority(300, 300)]),
            (0, 5, [record(60)], []),
        ):
            message = answer_to(QUERY, answers, authorities, rcode=rcode)
            answer = read_answer(message, QUERY)
            self.assertEqual(answer.lifetime, expected, (answers, authorities))
            self.assertEqual(answer.rcode, rcode)

    def test_aged(self) -> None:
        """Every TTL goes down, none below 0."""
        ttls = [100, 7, 0, 3]
        records = [dns.RRHeader(HOST, ttl=ttl, payload=dns.Record_A("10.0.0.7")) for ttl in ttls]
        answer = read_answer(answer_to(QUERY, records[:2], records[2:]), QUERY)
        aged = decoded(reply(QUERY, answer.aged(5), recursive=True, limit=UDP_SIZE))
        self.assertEqual([record.ttl for record in aged.answers], [95, 2])
        self.assertEqual([record.ttl for record in aged.authority], [0, 0])
        self.assertEqual(answer.aged(0), answer)

    def test_addresses(self) -> None:
        """Those of the type, wherever aliases lead, and no records that only look like it."""
        records = [
            dns.RRHeader(HOST, dns.CNAME, payload=dns.Record_CNAME("a.test")),
            dns.RRHeader("a.test", dns.A, payload=dns.Record_A("10.0.0.7")),
            dns.RRHeader("a.test", dns.AAAA, payload=dns.Record_AAAA("fd00::7")),
            dns.RRHeader("a.test", dns.A, payload=dns.UnknownRecord(b"short")),
            dns.RRHeader("a.test", dns.A, dns.CH, payload=dns.Record_A("10.0.0.8")),
        ]
        stray = dns.RRHeader("b.test", dns.A, payload=dns.Record_A("10.0.0.9"))
        answer = read_answer(answer_to(QUERY, records, [stray]), QUERY)
        self.assertEqual(answer.addresses(Type.A), [ip_address("10.0.0.7")])
        self.assertEqual(answer.addresses(Type.AAAA), [ip_address("fd00::7")])

    @given(st.lists(st.sampled_from(RECORDS), max_size=4), st.data())
    def test_garbage(self, records: list[dns.RRHeader], data: st.DataObject) -> None:
        """Whatever comes is read or refused; what was read can be aged, looked at and sent."""
        message = damaged(answer_to(QUERY, records, records), data)
        try:
            answer = read_answer(message, QUERY)
        except MessageInvalid:
            return
        aged = answer.aged(1)
        self.assertEqual(len(aged.records), len(answer.records))
        aged.addresses(Type.A)
        again = reply(QUERY, aged, recursive=True, limit=TCP_SIZE)
        self.assertEqual(read_answer(again, QUERY).records, aged.records)


class OwnAnswerTests(SynchronousTestCase):
    """own_answer"""

    def given(self, answer: Answer) -> dns.Message:
        return decoded(reply(QUERY, answer, recursive=True, limit=UDP_SIZE))

    def test_addresses(self) -> None:
        """In the given order, of both kinds."""
        message = self.given(own_answer(ADDRESSES, 60))
        self.assertTrue(message.auth)
        self.assertEqual(
            message.answers,
            [
                dns.RRHeader(HOST, dns.A, ttl=60, auth=True, payload=dns.Record_A("10.0.0.5", 60)),
                dns.RRHeader(HOST, dns.A, ttl=60, auth=True, payload=dns.Record_A("10.0.0.6", 60)),
                dns.RRHeader(
                    HOST, dns.AAAA, ttl=60, auth=True, payload=dns.Record_AAAA("fd00::5", 60)
                ),
            ],
        )
        self.assertEqual(message.authority, [])

    def test_nothing(self) -> None:
        """Known to have nothing, for as long as an address would be known."""
        message = self.given(own_answer([], 60))
        self.assertEqual((message.rCode, message.answers), (dns.OK, []))
        soa = dns.Record_SOA(HOST, "nobody.invalid", 1, 3600, 600, 1209600, 60, ttl=60)
        self.assertEqual(
            message.authority, [dns.RRHeader(HOST, dns.SOA, ttl=60, auth=True, payload=soa)]
        )
        sent = reply(QUERY, own_answer([], 60), recursive=True, limit=UDP_SIZE)
        self.assertEqual(read_answer(sent, QUERY).lifetime, 60)


class ReplyTests(SynchronousTestCase):
    """reply"""

    @given(queries, st.sampled_from(RCode), st.booleans(), st.booleans())
    def test_head(self, query: Query, rcode: RCode, authentic: bool, recursive: bool) -> None:
        message = decoded(
            reply(query, Answer(rcode, authentic=authentic), recursive=recursive, limit=UDP_SIZE)
        )
        self.assertEqual((message.answer, message.opCode), (1, dns.OP_QUERY))
        self.assertEqual(message.id, query.id)
        self.assertEqual(message.recDes, query.recursion_desired)
        self.assertEqual(message.recAv, recursive)
        self.assertEqual(message.checkingDisabled, query.checking_disabled)
        wanted = query.authentic_data or query.dnssec_ok
        self.assertEqual(message.authenticData, authentic and wanted)
        self.assertEqual(message.rCode, rcode & 0xF)
        self.assertFalse(message.auth or message.trunc)
        self.assertEqual(len(message.additional), int(query.edns is not None))
        for record in message.additional:
            options = dns._OPTHeader.fromRRHeader(record)
            self.assertEqual(options.udpPayloadSize, UDP_SIZE_EDNS)
            self.assertEqual(options.extendedRCODE, rcode >> 4)
            self.assertEqual((options.version, options.dnssecOK), (0, query.dnssec_ok))

    @given(queries, st.integers(0, 200))
    def test_limit(self, query: Query, count: int) -> None:
        """What does not fit is not there at all, and the asker is told."""
        answer = own_answer(ADDRESSES[:1] * (count + 1), 60)
        for limit in (query.udp_limit, TCP_SIZE):
            message = reply(query, answer, recursive=True, limit=limit)
            self.assertLessEqual(len(message), limit)
            found = decoded(message)
            self.assertEqual(len(found.answers), 0 if found.trunc else count + 1)
            whole = len(reply(query, answer, recursive=True, limit=1 << 20))
            self.assertEqual(bool(found.trunc), whole > limit)
