from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import UNKNOWN_LENGTH

from regproxy.oci.errors import Denied
from regproxy.web.channel import LINGER, StrictChannel
from regproxy.web.request_body import BodyBroken, RequestBody
from regproxy.web.site import StrictRequest
from tests.support.sites import LIMITS, House, Response, responses
from tests.support.streams import MemoryStream

HOST = b"Host: r.test\r\n"
GOOD = b"GET /v2/ HTTP/1.1\r\n" + HOST + b"\r\n"


class ChannelCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.house = House()
        self.stream = self.house.connect()

    def tearDown(self) -> None:
        self.stream.lose(ConnectionDone())
        self.assertEqual(self.house.clock.getDelayedCalls(), [])

    def take(self) -> list[Response]:
        return responses(self.stream.take())

    def advance(self, seconds: float) -> None:
        self.house.clock.advance(seconds)


class MalformedTests(ChannelCase):
    """A malformed head gets its status, words that a registry client shows, and a log line."""

    def check_refused(self, data: bytes, status: int, *, rest: bytes = GOOD) -> str:
        house = House()
        stream = house.connect()
        stream.send(data + rest)
        stream.send(rest)
        taken = stream.take()
        stream.finish()
        (response,) = responses(taken)
        self.assertEqual(response.status, status, data)
        self.assertEqual(response.headers["content-type"], "application/json")
        self.assertEqual(response.headers["connection"], "close")
        self.assertEqual(response.headers["proxy-status"], "regproxy; error=http_request_error")
        (error,) = response.json["errors"]
        self.assertEqual(error["code"], "UNSUPPORTED")
        self.assertTrue(stream.disconnecting or stream.write_closed)
        self.assertEqual(house.statuses, [status])
        self.assertEqual(house.log.records[0].reason, error["message"])
        self.assertEqual(house.clock.getDelayedCalls(), [])
        message: str = error["message"]
        return message

    def test_request_line(self) -> None:
        for line in (
            b"GET /",
            b"GET  / HTTP/1.1",
            b"GET / HTTP/2.0",
            b"GET / HTTP/0.9",
            b"GET / http/1.1",
            b"G@T / HTTP/1.1",
            b"GET /\x00 HTTP/1.1",
            b"\x16\x03\x01\x02",
            b" GET / HTTP/1.1",
        ):
            self.check_refused(line + b"\r\n" + HOST + b"\r\n", 400)

    def test_fields(self) -> None:
        for field in (
            b"no colon",
            b"Space : x",
            b": x",
            b"Nul: \x00",
            b"Bare: a\rb",
            b"Bare: a\nb",
            b"Folded: a\r\n b",
            b"Folded: a\r\n\tb",
            b"Content-Length: -1",
            b"Content-Length: +1",
            b"Content-Length: 1, 1",
            b"Content-Length: 0x10",
            b"Content-Length: 1\r\nContent-Length: 1",
            b"Content-Length: 1\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: gzip",
            b"Transfer-Encoding: gzip, chunked",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            # More digits than int() takes.
            b"Content-Length: " + b"9" * 5000,
        ):
            self.check_refused(b"GET / HTTP/1.1\r\n" + HOST + field + b"\r\n\r\n", 400)

    def test_folding_is_named(self) -> None:
        message = self.check_refused(b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", 400)
        self.assertIn("white space", message)

    def test_too_large(self) -> None:
        for head in (
            b"GET /" + b"x" * 17000 + b" HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: " + b"x" * 17000 + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + (b"A: " + b"x" * 1000 + b"\r\n") * 17 + b"\r\n",
            b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 501 + b"\r\n",
            b"x" * 17000,
        ):
            self.check_refused(head, 431)

    def test_body(self) -> None:
        head = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
        for body in (b"x\r\n", b"-1\r\n", b"1\r\nabc", b"1" * 2000, b"0\r\n" + b"a" * 70_000):
            self.check_refused(head + body, 400)

    def test_nothing_is_answered_after_a_refusal(self) -> None:
        """twisted.web would take the trailer's rest for the end of a good request."""
        self.stream.send(b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n")
        self.stream.send(b"A: " + b"x" * 70_000 + b"\r\n")
        self.stream.send(b"\r\n" + GOOD)
        self.assertEqual([response.status for response in self.take()], [400])

    def test_earlier_answers_stand(self) -> None:
        self.stream.send(GOOD + b"nonsense\r\n\r\n" + GOOD)
        self.assertEqual([response.status for response in self.take()], [200, 400])
        self.assertEqual(self.house.statuses, [200, 400])

    def test_way_in_is_logged(self) -> None:
        self.stream.send(b"nonsense\r\n\r\n")
        (record,) = self.house.log.records
        self.assertEqual((record.way, record.method, record.client), ("proxy", "", "192.168.1.1"))


# What a client may send on one connection, and how each is answered.
REQUESTS = [
    (GOOD, 200),
    (b"HEAD /v2/ HTTP/1.1\r\n" + HOST + b"\r\n", 200),
    (b"POST /up HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello", 200),
    (
        b"POST /up HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
        b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nTrailer: x\r\n\r\n",
        200,
    ),
    (b"\r\n" + GOOD, 200),
    (b"GET /v2/ HTTP/1.1\r\n\r\n", 400),
    (b"GET /v2/ HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400),
    (b"GET http://other.test/ HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    (b"GET /v2/ HTTP/1.1\r\nA: b\r\n c\r\n\r\n", 400),
    (b"GET /v2/ HTTP/1.1\r\nA: " + b"x" * 17000 + b"\r\n\r\n", 431),
    (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
]


class SplitTests(SynchronousTestCase):
    """TCP knows no messages: where a stream is cut changes nothing."""

    @given(st.lists(st.sampled_from(REQUESTS), max_size=5), st.data())
    def test_every_split(self, requests: list[tuple[bytes, int]], data: st.DataObject) -> None:
        stream = b"".join(text for text, _ in requests)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
        pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        self.assertEqual(self.answers(requests, pieces), self.answers(requests, [stream]))

    def test_every_byte_alone(self) -> None:
        for request in REQUESTS:
            stream = GOOD + request[0] + GOOD
            pieces = [stream[at : at + 1] for at in range(len(stream))]
            requests = [(GOOD, 200), request, (GOOD, 200)]
            self.assertEqual(self.answers(requests, pieces), self.answers(requests, [stream]))

    def answers(self, requests: list[tuple[bytes, int]], pieces: list[bytes]) -> list[Response]:
        expected = []
        for _, status in requests:
            expected.append(status)
            if status != 200:
                break
        house = House()
        stream = house.connect()
        for piece in pieces:
            if stream.reading:
                stream.send(piece)
        taken = stream.take()
        stream.finish()
        methods = [text.split()[0].decode() for text, _ in requests]
        answers = responses(taken, *methods)
        self.assertEqual([answer.status for answer in answers], expected)
        self.assertEqual(house.statuses, expected)
        self.assertEqual(house.clock.getDelayedCalls(), [])
        for answer in answers:
            # The clock on the wall goes on meanwhile.
            answer.headers.pop("date", None)
        return answers


class HeadDeadlineTests(ChannelCase):
    """A head has an absolute deadline, however it drips."""

    def check_timed_out(self) -> None:
        self.assertEqual([response.status for response in self.take()], [408])
        self.assertEqual(self.house.statuses[-1], 408)

    def drip(self, data: bytes) -> None:
        for at in range(len(data)):
            if self.stream.reading:
                self.stream.send(data[at : at + 1])
                self.advance(1)

    def test_nothing_comes(self) -> None:
        self.advance(LIMITS.head)
        self.check_timed_out()

    def test_head_drips(self) -> None:
        self.drip(b"GET / HTTP/1.1\r\n" + b"A: " + b"x" * 100)
        self.check_timed_out()

    def test_request_line_drips(self) -> None:
        self.drip(b"GET /" + b"x" * 100)
        self.check_timed_out()

    def test_second_head_drips(self) -> None:
        self.stream.send(GOOD)
        self.assertEqual(len(self.take()), 1)
        self.advance(LIMITS.head + 1)
        self.drip(b"GET /" + b"x" * 100)
        self.check_timed_out()

    def test_second_head_begins_with_the_first(self) -> None:
        """Its beginning waits in the buffer while the first request is answered."""
        self.stream.send(GOOD + b"GET /")
        self.assertEqual(len(self.take()), 1)
        self.advance(LIMITS.head)
        self.check_timed_out()

    def test_does_not_run_while_a_request_is_answered(self) -> None:
        house = House.answering(lambda request: None)
        stream = house.connect()
        stream.send(GOOD + b"GET /")
        house.clock.advance(10 * LIMITS.idle)
        self.assertEqual(stream.take(), b"")
        stream.lose(ConnectionDone())

    def test_does_not_run_while_a_body_comes(self) -> None:
        self.stream.send(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 50\r\n\r\n")
        self.drip(b"x" * 50)
        self.assertEqual([response.status for response in self.take()], [200])

    def test_idle(self) -> None:
        self.stream.send(GOOD)
        self.take()
        self.advance(LIMITS.idle)
        self.assertTrue(self.stream.disconnecting)
        self.assertEqual(self.house.statuses, [200])


class EndingTests(ChannelCase):
    """The process ends: whoever asks again asks another one."""

    def test_last_answer(self) -> None:
        self.stream.send(GOOD)
        (kept,) = self.take()
        self.assertNotIn("connection", kept.headers)
        self.house.log.ending = True
        self.stream.send(GOOD * 2)
        self.assertTrue(self.stream.disconnecting)
        (last,) = self.take()
        self.assertEqual((last.status, last.headers["connection"]), (200, "close"))
        self.assertEqual(self.house.statuses, [200, 200])


class CloseTests(ChannelCase):
    """A close is waited for, but not for ever."""

    def close(self) -> None:
        self.stream.send(b"GET / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        self.assertTrue(self.stream.disconnecting)

    def test_client_takes_its_time(self) -> None:
        """What is written is not cut off after a mere 15 seconds."""
        self.close()
        self.advance(LIMITS.stall - 1)
        self.assertFalse(self.stream.aborted)
        self.assertEqual([response.status for response in self.take()], [200])
        self.assertTrue(self.stream.lost)

    def test_client_takes_nothing(self) -> None:
        self.close()
        self.advance(LIMITS.stall)
        self.assertTrue(self.stream.aborted)

    def test_refused_client_takes_nothing(self) -> None:
        self.stream.send(b"nonsense\r\n\r\n")
        assert StrictChannel.abortTimeout is not None
        self.advance(StrictChannel.abortTimeout)
        self.assertTrue(self.stream.aborted)

    def test_nothing_that_follows_is_read(self) -> None:
        """TLS still delivers what came before the peer agreed to the close."""
        self.close()
        self.stream.send(GOOD)
        self.assertEqual(len(self.take()), 1)
        self.assertEqual(self.house.statuses, [200])


def post(length: int | None = None, *fields: bytes) -> bytes:
    """The head of a request with a body of *length* bytes, or a chunked one."""
    framing = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
    return b"\r\n".join([b"POST /up HTTP/1.1", HOST.strip(), framing, *fields, b"", b""])


class BodyCase(SynchronousTestCase):
    """Requests are processed when their head is whole; the test takes their bodies."""

    def setUp(self) -> None:
        self.requests: list[StrictRequest] = []
        self.house = House.answering(self.requests.append)
        self.stream = self.house.connect()

    def tearDown(self) -> None:
        self.stream.lose(ConnectionDone())
        self.assertEqual(self.house.clock.getDelayedCalls(), [])

    def body(self) -> RequestBody:
        """The body of the latest request."""
        body = self.requests[-1].body
        assert body is not None
        return body

    def start(self) -> tuple[StringTransport, Deferred[None]]:
        """Begin to take the latest request's body."""
        consumer = StringTransport()
        return consumer, self.body().startProducing(consumer)

    def finish(self, status: int = 200) -> None:
        """Answer the latest request."""
        self.requests[-1].setResponseCode(status)
        self.requests[-1].setHeader(b"Content-Length", b"0")
        self.requests[-1].finish()

    def take(self) -> list[Response]:
        return responses(self.stream.take())


class BodyTests(BodyCase):
    def test_with_length(self) -> None:
        self.stream.send(post(10) + b"01234")
        self.assertEqual(self.body().length, 10)
        consumer, producing = self.start()
        self.assertEqual(consumer.value(), b"01234")
        self.stream.send(b"56")
        self.assertEqual(consumer.value(), b"0123456")
        self.stream.send(b"789")
        self.successResultOf(producing)
        self.finish()
        self.assertEqual([response.status for response in self.take()], [200])
        self.assertTrue(self.stream.reading)

    def test_chunked(self) -> None:
        self.stream.send(post() + b"3\r\nabc\r\n")
        self.assertIs(self.body().length, UNKNOWN_LENGTH)
        consumer, producing = self.start()
        self.assertEqual(consumer.value(), b"abc")
        self.stream.send(b"2\r\nde\r\n0\r\n")
        self.assertNoResult(producing)
        self.stream.send(b"\r\n")
        self.successResultOf(producing)
        self.assertEqual(consumer.value(), b"abcde")
        self.finish()

    def test_without(self) -> None:
        for head in (GOOD, post(0), b"PUT / HTTP/1.1\r\n" + HOST + b"\r\n"):
            self.stream.send(head)
            self.assertIsNone(self.requests[-1].body)
            self.finish()

    def test_is_kept_nowhere(self) -> None:
        """50 MiB go to a consumer that is ten times as slow: twisted.web would keep them all."""
        piece, pieces = bytes(1 << 16), 800
        self.stream.send(post(len(piece) * pieces))
        consumer = Slow(self.body())
        producing = self.body().startProducing(consumer)
        tracemalloc.start()
        try:
            for _ in range(10 * pieces):
                if self.stream.reading:
                    self.stream.send(piece)
                    pieces -= 1
                if pieces == 0:
                    break
                consumer.turn()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        self.assertEqual(pieces, 0)
        self.assertLess(peak, 4 * len(piece))
        self.body().resumeProducing()
        self.successResultOf(producing)
        self.assertEqual(consumer.taken, 50 << 20)
        self.finish()

    def test_pipelined(self) -> None:
        """What follows a body is the next request, and waits for its turn."""
        for first in (post(3) + b"abc", post() + b"3\r\nabc\r\n0\r\n\r\n"):
            self.stream.send(first + post(2) + b"de" + GOOD)
            for content in (b"abc", b"de"):
                consumer, producing = self.start()
                self.successResultOf(producing)
                self.assertEqual(consumer.value(), content)
                count = len(self.requests)
                self.finish()
                self.assertEqual(len(self.requests), count + 1)
            self.finish()
            self.assertEqual([response.status for response in self.take()], [200] * 3)

    def test_answered_within_its_last_bytes(self) -> None:
        """An answer that waits for nothing but the body's end leaves the connection open."""
        self.stream.send(post(3))
        _, producing = self.start()
        producing.addCallback(lambda _: self.finish())
        self.stream.send(b"abc" + GOOD)
        self.finish()
        self.assertEqual([response.status for response in self.take()], [200, 200])

    def test_malformed(self) -> None:
        """Whoever takes it learns that it will never be whole; the client gets a 400."""
        self.stream.send(post() + b"3\r\nabc\r\n")
        consumer, producing = self.start()
        self.stream.send(b"nonsense\r\n")
        self.failureResultOf(producing, BodyBroken)
        self.assertEqual(consumer.value(), b"abc")
        self.assertEqual([response.status for response in self.take()], [400])
        self.assertEqual(self.house.statuses, [400])

    def test_malformed_in_the_middle_of_the_answer(self) -> None:
        self.stream.send(post())
        self.requests[0].write(b"some")
        self.stream.send(b"nonsense\r\n")
        self.assertTrue(self.stream.aborted)
        self.assertEqual(self.house.statuses, [200])

    def test_client_leaves(self) -> None:
        for head in (post(10), post()):
            self.stream.send(head)
            _, producing = self.start()
            self.stream.send(b"2\r\nab")
            self.stream.lose(ConnectionDone())
            self.failureResultOf(producing, BodyBroken)
            self.assertEqual(self.house.statuses, [499])
            self.setUp()

    def test_stalls(self) -> None:
        self.stream.send(post(10) + b"abc")
        _, producing = self.start()
        self.house.clock.advance(LIMITS.stall)
        self.failureResultOf(producing, BodyBroken)
        self.assertEqual([response.status for response in self.take()], [408])
        self.assertEqual(self.house.statuses, [408])

    def test_idle_timer_does_not_run(self) -> None:
        """A slow registry is not the client's fault."""
        self.stream.send(post(10) + b"abc")
        _, producing = self.start()
        self.body().pauseProducing()
        self.house.clock.advance(10 * LIMITS.idle)
        self.assertFalse(self.stream.aborted or self.stream.disconnecting)
        self.assertNoResult(producing)
        self.body().stopProducing()


class Slow(StringTransport):
    """A consumer that takes one piece in ten turns."""

    def __init__(self, body: RequestBody) -> None:
        super().__init__()
        self.taken = 0
        self._body = body
        self._turns = 0

    def write(self, data: bytes) -> None:
        self.taken += len(data)
        self._body.pauseProducing()

    def turn(self) -> None:
        """Time passes."""
        self._turns += 1
        if self._turns % 10 == 0:
            self._body.resumeProducing()


class ContinueTests(BodyCase):
    """100 Continue, when the body is wanted (RFC 9110 section 10.1.1)."""

    expecting = post(3, b"Expect: 100-continue")

    def test_wanted(self) -> None:
        self.stream.send(self.expecting)
        self.assertEqual(self.stream.take(), b"")
        _, producing = self.start()
        self.assertEqual(self.stream.take(), b"HTTP/1.1 100 Continue\r\n\r\n")
        self.stream.send(b"abc")
        self.successResultOf(producing)
        self.finish()
        self.assertEqual([response.status for response in self.take()], [200])

    def test_not_wanted(self) -> None:
        self.stream.send(self.expecting)
        self.finish(405)
        self.assertEqual([response.status for response in self.take()], [405])

    def test_not_expected(self) -> None:
        """Nor by a request after one that was, nor from HTTP/1.0, which does not know it."""
        self.stream.send(post(0, b"Expect: 100-continue"))
        self.finish()
        self.take()
        self.check_silent(post(3))
        self.stream.finish()
        self.stream = self.house.connect()
        self.check_silent(self.expecting.replace(b"HTTP/1.1", b"HTTP/1.0"))

    def check_silent(self, head: bytes) -> None:
        self.stream.send(head)
        _, producing = self.start()
        self.assertEqual(self.stream.take(), b"")
        self.stream.send(b"abc")
        self.successResultOf(producing)
        self.finish()


class EarlyAnswerTests(BodyCase):
    """An answer that does not wait for the body reaches a client that goes on sending."""

    def check_last(self, status: int) -> None:
        (response,) = self.take()
        self.assertEqual((response.status, response.headers["connection"]), (status, "close"))
        self.assertTrue(self.stream.write_closed)
        self.assertFalse(self.stream.aborted)

    def test_nobody_took_it(self) -> None:
        self.stream.send(post(10) + b"abc")
        self.assertFalse(self.stream.reading)
        self.finish(401)
        self.check_last(401)
        # What is not read resets the connection, and the client does not see the answer.
        self.assertTrue(self.stream.reading)
        self.stream.send(b"defghij" + GOOD)
        self.assertEqual(len(self.requests), 1)
        self.stream.finish()
        self.assertEqual(self.house.statuses, [401])

    def test_before_the_first_byte(self) -> None:
        """In the same read there may be more, or all, or another request."""
        house = House.answering(lambda request: request.answer_error(Denied("no")))
        for rest in (b"", b"abc", b"abcdefghij", b"abcdefghij" + GOOD):
            stream = house.connect()
            stream.send(post(10) + rest)
            (response,) = responses(stream.take())
            self.assertEqual(response.status, 403)
            stream.finish()

    def test_in_the_middle(self) -> None:
        self.stream.send(post())
        consumer, producing = self.start()
        self.stream.send(b"3\r\nabc\r\n")
        self.finish(401)
        self.failureResultOf(producing, BodyBroken)
        self.check_last(401)
        self.stream.send(b"3\r\ndef\r\n0\r\n\r\n" + GOOD)
        self.assertEqual(consumer.value(), b"abc")
        self.assertEqual(len(self.requests), 1)

    def test_body_ends_after_the_head_of_the_answer(self) -> None:
        """The close was announced: it happens, and at once."""
        self.stream.send(post(3))
        self.requests[0].setHeader(b"Content-Length", b"4")
        self.requests[0].write(b"answ")
        self.stream.send(b"abc" + GOOD)
        self.requests[0].finish()
        self.assertTrue(self.stream.disconnecting)
        (response,) = self.take()
        self.assertEqual(response.headers["connection"], "close")

    def test_client_that_never_closes(self) -> None:
        self.stream.send(post(10))
        self.finish(401)
        self.take()
        self.house.clock.advance(LINGER - 1)
        self.stream.send(b"x")
        self.assertFalse(self.stream.aborted)
        self.house.clock.advance(1)
        self.assertTrue(self.stream.aborted)


class IncompleteTests(ChannelCase):
    """A client that leaves before its request is whole is logged, without a traceback."""

    def test_leaves(self) -> None:
        for data, statuses in (
            (b"", []),
            (b"GE", []),
            (b"GET / HTTP/1.1\r\n", [499]),
            (b"GET / HTTP/1.1\r\nHost: r.t", [499]),
            (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\nxxx", [499]),
            (GOOD + b"GET / HTTP/1.1\r\n", [200, 499]),
        ):
            house = House()
            stream: MemoryStream = house.connect()
            stream.send(data)
            stream.finish()
            self.assertEqual(house.statuses, statuses, data)
            self.assertEqual(house.clock.getDelayedCalls(), [])
