from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

from OpenSSL import SSL
from OpenSSL.crypto import X509, PKey
from twisted.internet.address import IPv4Address
from twisted.internet.defer import ensureDeferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IOpenSSLContextFactory, IPushProducer
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from zope.interface import implementer

from regproxy.oci.errors import BadGateway, BadRequest, Denied, Misdirected, RegistryError
from regproxy.oci.names import Host
from regproxy.web.sender import send
from regproxy.web.site import MEANINGLESS_BODY, Entry, StrictRequest, reason_phrase
from tests.support.blobs import MemoryBlob
from tests.support.certificates import make_leaf
from tests.support.sites import LIMITS, House, Response, responses
from tests.support.streams import MemoryStream

HOST = b"Host: r.test\r\n"
GET = b"GET /v2/?n=secret HTTP/1.1\r\n" + HOST + b"\r\n"
BIG = bytes(range(256)) * 4096


def serve(blob: MemoryBlob) -> Callable[[StrictRequest], object]:
    """Answer every request with *blob*; note failures on the request."""

    async def answer(request: StrictRequest) -> None:
        assert blob.size is not None
        request.setHeader(b"Content-Length", b"%d" % blob.size)
        await send(partial(request.outlet, 0), blob, 0, blob.size)
        request.finish()

    def begin(request: StrictRequest) -> None:
        answering = ensureDeferred(answer(request))
        answering.addErrback(lambda failure: failure.trap(ConnectionAborted))

    return begin


def finishing(look: Callable[[StrictRequest], object]) -> Callable[[StrictRequest], None]:
    """Answer every request with nothing, once *look* has seen it."""

    def answer(request: StrictRequest) -> None:
        look(request)
        request.finish()

    return answer


class HeadTests(SynchronousTestCase):
    """What twisted.web lets through and RFC 9110 and RFC 9112 do not."""

    def ask(self, *lines: bytes, house: House | None = None) -> Response:
        house = house or House()
        (response,) = responses(house.ask(b"\r\n".join([*lines, b"", b""])))
        self.assertEqual(house.statuses, [response.status])
        return response

    def check_refused(self, *lines: bytes) -> None:
        response = self.ask(*lines)
        self.assertEqual(response.status, 400, lines)
        self.assertEqual(response.headers["connection"], "close")
        self.assertEqual(response.headers["content-type"], "application/json")
        self.assertEqual([error["code"] for error in response.json["errors"]], ["UNSUPPORTED"])

    def test_refused(self) -> None:
        for lines in (
            (b"GET / HTTP/1.1",),
            (b"GET / HTTP/1.1", b"Host: r.test", b"Host: r.test"),
            (b"GET / HTTP/1.0", b"Host: r.test", b"Host: r.test"),
            (b"GET / HTTP/1.1", b"Host: "),
            (b"GET / HTTP/1.1", b"Host: r test"),
            (b"GET / HTTP/1.1", b"Host: u@r.test"),
            (b"GET / HTTP/1.1", b"Host: r.test/path"),
            (b"GET http://r.test/ HTTP/1.1", b"Host: other.test"),
            (b"GET http://r.test:81/ HTTP/1.1", b"Host: r.test"),
            (b"GET http://u:p@r.test/ HTTP/1.1", b"Host: r.test"),
            (b"GET v2 HTTP/1.1", b"Host: r.test"),
            (b"GET /\xa0 HTTP/1.1", b"Host: r.test"),
            (b"CONNECT r.test:443 HTTP/1.1", b"Host: r.test"),
            (b"GET / HTTP/1.1", b"Host: r.test", b"Transfer-Encoding: identity"),
        ):
            self.check_refused(*lines)

    def test_chunked_on_http_1_0(self) -> None:
        house = House()
        data = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        (response,) = responses(house.ask(data))
        self.assertEqual(response.status, 400)

    def test_nothing_follows_a_refusal(self) -> None:
        """Whoever disagrees with us about one head may disagree about where it ended."""
        house = House()
        (response,) = responses(house.ask(b"GET / HTTP/1.1\r\n\r\n" + GET))
        self.assertEqual(response.status, 400)

    def test_understood(self) -> None:
        for lines, authority in (
            ((b"GET / HTTP/1.1", b"Host: r.test"), "r.test:80"),
            ((b"GET / HTTP/1.1", b"Host: R.test:5000"), "r.test:5000"),
            ((b"GET http://r.test/ HTTP/1.1", b"Host: r.test:80"), "r.test:80"),
            ((b"GET https://r.test/ HTTP/1.1", b"Host: r.test"), "r.test"),
            ((b"GET / HTTP/1.0",), "None"),
            ((b"GET http://r.test/ HTTP/1.0",), "r.test:80"),
        ):
            response = self.ask(*lines)
            self.assertEqual(response.status, 200, lines)
            self.assertEqual(response.json["authority"], authority)

    def test_passwords_do_not_reach_the_log(self) -> None:
        house = House()
        self.ask(b"GET http://u:hunter2@r.test/ HTTP/1.1", b"Host: r.test", house=house)
        self.assertNotIn("hunter2", str(house.log.records))

    def test_options_of_the_server(self) -> None:
        self.assertEqual(self.ask(b"OPTIONS * HTTP/1.1", b"Host: r.test").status, 200)

    def test_forms_are_not_read_into_memory(self) -> None:
        form = b"application/x-www-form-urlencoded"
        seen: list[object] = []
        house = House.answering(finishing(lambda request: seen.append(request.args)))
        house.ask(
            b"POST /?a=b HTTP/1.1\r\n%sContent-Type: %s\r\nContent-Length: 3\r\n\r\nc=d"
            % (HOST, form)
        )
        self.assertEqual(seen, [{b"a": [b"b"]}])


class MeaninglessBodyTests(SynchronousTestCase):
    """The body of a GET or HEAD is read past, unless it is large."""

    def setUp(self) -> None:
        self.house = House.answering(finishing(lambda request: None))

    def ask(self, method: bytes, framing: bytes, body: bytes = b"") -> list[int]:
        head = b"%s / HTTP/1.1\r\n%s%s\r\n\r\n" % (method, HOST, framing)
        stream = self.house.connect()
        stream.send(head + body)
        taken = stream.take()
        stream.finish()
        self.assertEqual(self.house.clock.getDelayedCalls(), [])
        return [int(line.split()[1]) for line in taken.split(b"\r\n") if line.startswith(b"HTTP/")]

    def test_large(self) -> None:
        for method in (b"GET", b"HEAD"):
            framing = b"Content-Length: %d" % (MEANINGLESS_BODY + 1)
            self.assertEqual(self.ask(method, framing), [413])
        self.assertEqual(self.house.statuses, [413, 413])

    def test_small(self) -> None:
        self.assertEqual(self.ask(b"GET", b"Content-Length: 3", b"abc"), [200])
        self.assertEqual(self.ask(b"GET", b"Content-Length: %d" % MEANINGLESS_BODY), [200])
        self.assertEqual(self.ask(b"GET", b"Transfer-Encoding: chunked", b"0\r\n\r\n"), [200])

    def test_large_where_it_has_a_meaning(self) -> None:
        framing = b"Content-Length: %d" % (1 << 40)
        for method in (b"POST", b"PUT", b"PATCH"):
            self.assertEqual(self.ask(method, framing), [200])

    def test_before_a_late_answer(self) -> None:
        """It has been read past by then, and the connection is good for more."""
        waiting: list[StrictRequest] = []
        self.house = House.answering(waiting.append)
        stream = self.house.connect()
        stream.send(GET.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n"))
        self.assertTrue(stream.reading)
        stream.send(b"abc" + GET)
        for request in (0, 1):
            waiting[request].setHeader(b"Content-Length", b"0")
            waiting[request].finish()
        answers = responses(stream.take())
        self.assertEqual([answer.status for answer in answers], [200, 200])
        self.assertNotIn("connection", answers[0].headers)
        stream.finish()


class LogTests(SynchronousTestCase):
    def test_notes(self) -> None:
        def answer(request: StrictRequest) -> None:
            request.note(registry="r.test", repository="a/b", reference="latest", cache="hit")
            request.note(reason="fresh")
            request.setResponseCode(404)
            request.setHeader(b"Content-Length", b"3")
            request.write(b"abc")
            request.finish()

        house = House.answering(answer)
        house.ask(GET)
        (record,) = house.log.records
        self.assertEqual(record.client, "192.168.1.1")
        self.assertEqual((record.way, record.method), ("proxy", "GET"))
        self.assertEqual((record.registry, record.repository), ("r.test", "a/b"))
        self.assertEqual((record.reference, record.cache), ("latest", "hit"))
        self.assertEqual((record.reason, record.status, record.bytes), ("fresh", 404, 3))

    def test_without_notes(self) -> None:
        house = House(entry=Entry("connect", Host("r.test", 80)))
        house.ask(GET)
        (record,) = house.log.records
        self.assertEqual(record.reference, "/v2/")
        self.assertEqual((record.registry, record.cache), ("r.test:80", "none"))
        self.assertNotIn("secret", str(record))

    def test_under_way(self) -> None:
        """What is sent can be seen before the answer is whole, and is counted once only."""

        def answer(request: StrictRequest) -> None:
            request.note(registry="r.test")
            request.setHeader(b"Content-Length", b"5")
            request.write(b"abc")
            waiting.append(request)

        waiting: list[StrictRequest] = []
        house = House.answering(answer)
        whole, left = house.connect(), house.connect()
        for stream in (whole, left):
            stream.send(GET)
        under_way = house.log.under_way
        self.assertEqual(
            [(each.registry, each.sentLength) for each in under_way], [("r.test", 3)] * 2
        )
        waiting[0].write(b"de")
        waiting[0].finish()
        self.assertEqual(under_way, {waiting[1]})
        left.lose(ConnectionAborted())
        self.assertEqual(under_way, set())
        self.assertEqual([record.bytes for record in house.log.records], [5, 3])

    def test_refused_request_is_not_under_way(self) -> None:
        house = House()
        house.ask(b"GET / HTTP/1.1\r\n\r\n")
        self.assertEqual(house.statuses, [400])
        self.assertEqual(house.log.under_way, set())

    def test_order_of_pipelined_requests(self) -> None:
        house = House()
        house.ask(b"".join(b"GET /%d HTTP/1.1\r\n%s\r\n" % (n, HOST) for n in range(3)))
        self.assertEqual([record.reference for record in house.log.records], ["/0", "/1", "/2"])

    def test_client_leaves_before_the_answer(self) -> None:
        house = House.answering(lambda request: None)
        house.ask(GET + GET)
        self.assertEqual(house.statuses, [499])


class ErrorTests(SynchronousTestCase):
    def answer(self, answer: Callable[[StrictRequest], object], data: bytes = GET) -> Response:
        self.house = House.answering(answer)
        (response,) = responses(self.house.ask(data), data.split()[0].decode())
        return response

    def test_error(self) -> None:
        error = Denied("not here")
        error.headers["Retry-After"] = "3"
        response = self.answer(lambda request: request.answer_error(error))
        self.assertEqual(response.status, 403)
        self.assertEqual(response.headers["proxy-status"], "regproxy; error=http_request_denied")
        self.assertEqual(response.headers["retry-after"], "3")
        self.assertEqual(response.json["errors"], [{"code": "DENIED", "message": "not here"}])
        self.assertEqual(self.house.log.records[0].reason, "not here")

    def test_client_is_at_fault(self) -> None:
        response = self.answer(lambda request: request.answer_error(BadRequest("no")))
        self.assertEqual(response.headers["proxy-status"], "regproxy; error=http_request_error")

    def test_upstreams_own_word(self) -> None:
        """An error without a token is no error of this proxy."""
        response = self.answer(lambda request: request.answer_error(RegistryError("no")))
        self.assertNotIn("proxy-status", response.headers)

    def test_head(self) -> None:
        data = b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n"
        response = self.answer(lambda request: request.answer_error(BadRequest("no")), data)
        self.assertEqual((response.status, response.body), (400, b""))
        self.assertEqual(self.house.log.records[0].bytes, 0)

    def test_fields_of_the_answer_that_failed(self) -> None:
        """An error is not the content, and must not be kept or resumed as if it were."""

        def answer(request: StrictRequest) -> None:
            request.setResponseCode(206)
            for name in (b"ETag", b"Content-Range", b"Docker-Content-Digest", b"Cache-Status"):
                request.setHeader(name, b"x")
            request.answer_error(RegistryError("broken"))

        response = self.answer(answer)
        self.assertEqual(response.status, 500)
        self.assertEqual(set(response.headers), {"date", "content-type", "content-length"})

    def test_reason_phrase(self) -> None:
        """A 5xx says why in its status line, in printable ASCII and not for ever."""
        for message, phrase in {
            "upstream is down": b"Bad Gateway: upstream is down",
            "a\r\nX: é": b"Bad Gateway: a??X: ?",
            "x" * 500: b"Bad Gateway: " + b"x" * 187,
        }.items():
            self.assertEqual(reason_phrase(BadGateway(message)), phrase)
        self.assertEqual(reason_phrase(BadRequest("no")), b"Bad Request")
        # twisted.web does not know it.
        self.assertEqual(reason_phrase(Misdirected("no")), b"Misdirected Request")

    def test_client_is_gone(self) -> None:
        waiting: list[StrictRequest] = []
        house = House.answering(waiting.append)
        house.ask(GET)
        (request,) = waiting
        self.assertTrue(request.over)
        request.answer_error(BadRequest("no"))
        request.cut("no")
        self.assertEqual(house.statuses, [499])

    def test_after_the_answer(self) -> None:
        waiting: list[StrictRequest] = []
        house = House.answering(finishing(waiting.append))
        stream = house.connect()
        stream.send(GET)
        (request,) = waiting
        self.assertTrue(request.over)
        request.cut("too late")
        self.assertFalse(stream.aborted)
        stream.finish()

    def test_resource_raises(self) -> None:
        response = self.answer(lambda request: 1 // 0)
        self.assertEqual(response.status, 500)
        self.assertEqual(response.json["errors"][0]["code"], "UNKNOWN")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_resource_raises_in_the_middle(self) -> None:
        def answer(request: StrictRequest) -> None:
            request.write(b"x")
            raise KeyError

        house = House.answering(answer)
        stream = house.connect()
        stream.send(GET)
        self.assertTrue(stream.aborted)
        stream.take()
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.assertEqual(house.log.records[0].reason, "internal error")

    def test_method_not_allowed(self) -> None:
        house = House(Resource())
        self.assertIn(b" 404 ", house.ask(GET).partition(b"\r\n")[0])


class BackPressureTests(SynchronousTestCase):
    """A client that does not read costs little memory, and not for ever."""

    def setUp(self) -> None:
        self.blob = MemoryBlob.whole(BIG)
        self.house = House.answering(serve(self.blob))
        self.stream = self.house.connect()

    def tearDown(self) -> None:
        self.stream.lose(ConnectionDone())
        self.assertEqual(self.house.clock.getDelayedCalls(), [])

    def take_all(self) -> bytes:
        taken = b""
        while data := self.stream.take():
            taken += data
        return taken

    def test_slow_reader(self) -> None:
        self.stream.send(GET)
        (response,) = responses(self.take_all())
        self.assertEqual(response.body, BIG)
        self.assertLess(self.stream.held_most, len(BIG) / 2)
        self.assertEqual(self.house.statuses, [200])

    def test_reader_that_stops(self) -> None:
        self.stream.send(GET)
        self.stream.take()
        self.house.clock.advance(LIMITS.stall - 1)
        self.stream.take()
        self.house.clock.advance(LIMITS.stall - 1)
        self.assertFalse(self.stream.aborted)
        self.house.clock.advance(1)
        self.assertTrue(self.stream.aborted)
        self.stream.take()
        (record,) = self.house.log.records
        self.assertEqual((record.status, record.reason), (200, "client took nothing for too long"))

    def test_end_of_a_body_that_nobody_reads(self) -> None:
        """The body is not over when it is written: the close must not cut it."""
        self.stream.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        while self.house.statuses == []:
            self.house.clock.advance(LIMITS.stall - 1)
            self.stream.take()
        self.assertTrue(self.stream.disconnecting)
        self.assertFalse(self.stream.aborted)

    def test_client_leaves(self) -> None:
        self.stream.send(GET)
        self.stream.lose(ConnectionDone())
        self.assertEqual(self.house.statuses, [499])

    def test_pipelined_requests(self) -> None:
        """The second answer begins while the client is behind with the first."""
        self.stream.send(GET * 3)
        answers = responses(self.take_all())
        self.assertEqual([answer.body for answer in answers], [BIG] * 3)
        self.assertLess(self.stream.held_most, len(BIG) / 2)


class ProducerTests(SynchronousTestCase):
    def test_unregistered_without_being_registered(self) -> None:
        house = House.answering(finishing(StrictRequest.unregisterProducer))
        house.ask(GET)
        self.assertEqual(house.statuses, [200])

    def test_registered_after_the_client_left(self) -> None:
        waiting: list[StrictRequest] = []
        House.answering(waiting.append).ask(GET)
        producer = Producer()
        waiting[0].registerProducer(producer, True)
        self.assertEqual(producer.told, ["stop"])
        waiting[0].unregisterProducer()

    def test_client_leaves_while_it_is_behind(self) -> None:
        waiting: list[StrictRequest] = []
        house = House.answering(waiting.append)
        stream = house.connect()
        stream.send(GET)
        producer = Producer()
        waiting[0].setHeader(b"Content-Length", b"%d" % len(BIG))
        waiting[0].registerProducer(producer, True)
        waiting[0].write(BIG)
        self.assertEqual(producer.told, ["pause"])
        # Without a word to the producer.
        stream.unregisterProducer()
        stream.lose(ConnectionDone())
        self.assertEqual(house.clock.getDelayedCalls(), [])


@implementer(IPushProducer)
class Producer:
    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


class EntryTests(SynchronousTestCase):
    def test_entered_by(self) -> None:
        entries: list[Entry] = []
        house = House.answering(finishing(lambda request: entries.append(request.entry)))
        entry = Entry("connect", Host("r.test"), impersonated=True)
        for factory in (house.site.entered_by(entry), house.site):
            factory.doStart()
            protocol = factory.buildProtocol(IPv4Address("TCP", "192.0.2.7", 1234))
            assert protocol is not None
            stream = MemoryStream(protocol)
            stream.send(GET)
            stream.finish()
            factory.doStop()
        self.assertEqual(entries, [entry, Entry("proxy")])
        self.assertEqual([record.way for record in house.log.records], ["connect", "proxy"])
        self.assertEqual(house.clock.getDelayedCalls(), [])


@implementer(IOpenSSLContextFactory)
class ServerTLS:
    def getContext(self) -> SSL.Context:
        identity = make_leaf(None, dns=["r.test"])
        context = SSL.Context(SSL.TLS_METHOD)
        context.use_certificate(X509.from_cryptography(identity.certificate))
        context.use_privatekey(PKey.from_cryptography_key(identity.key))
        return context


class ClientTLS:
    """A TLS client in memory, which answers only what it is told to."""

    def __init__(self, server: MemoryStream, name: bytes) -> None:
        self.server = server
        self.connection = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
        self.connection.set_tlsext_host_name(name)
        self.connection.set_connect_state()
        self.data = b""

    def shake_hands(self) -> None:
        for _ in range(3):
            try:
                self.connection.do_handshake()
            except SSL.WantReadError:
                self.exchange()

    def exchange(self) -> None:
        """Send what there is to send, and receive what there is to receive."""
        with contextlib.suppress(SSL.WantReadError):
            self.server.send(self.connection.bio_read(1 << 20))
        self.receive()

    def receive(self) -> int:
        """Receive; how many bytes came over the wire."""
        taken = self.server.take()
        if taken:
            self.connection.bio_write(taken)
        return len(taken)

    def read(self) -> bytes:
        """What has been received, decrypted."""
        data = b""
        while True:
            try:
                data += self.connection.recv(1 << 16)
            except (SSL.WantReadError, SSL.ZeroReturnError):
                return data

    def send(self, data: bytes) -> None:
        self.connection.send(data)
        self.server.send(self.connection.bio_read(1 << 20))


class TLSTests(SynchronousTestCase):
    def connect(self, answer: Callable[[StrictRequest], Any], name: bytes = b"r.test") -> ClientTLS:
        self.house = House.answering(answer)
        # The handshake's writes are not collected: TLS's own clock stands still.
        factory = TLSMemoryBIOFactory(ServerTLS(), False, self.house.site, self.house.clock)
        protocol = factory.buildProtocol(None)
        assert protocol is not None
        client = ClientTLS(MemoryStream(protocol), name)
        client.shake_hands()
        return client

    def test_server_name(self) -> None:
        names: list[str | None] = []
        client = self.connect(lambda request: names.append(request.server_name()), b"R.test")
        client.send(GET)
        self.assertEqual(names, ["r.test"])
        client.server.lose(ConnectionDone())

    def test_default_port(self) -> None:
        hosts: list[object] = []
        client = self.connect(lambda request: hosts.append(request.authority))
        client.send(GET)
        self.assertEqual(hosts, [Host("r.test", 443)])
        client.server.lose(ConnectionDone())

    def test_no_server_name_without_tls(self) -> None:
        names: list[str | None] = []
        House.answering(lambda request: names.append(request.server_name())).ask(GET)
        self.assertEqual(names, [None])

    def test_peer_that_never_agrees_to_the_close(self) -> None:
        client = self.connect(lambda request: request.answer_error(BadRequest("no")))
        client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        client.receive()
        self.assertIn(b" 400 ", client.read())
        self.assertFalse(client.server.disconnecting)
        self.house.clock.advance(LIMITS.stall)
        self.assertTrue(client.server.aborted)
        client.server.take()
        self.assertEqual(self.house.clock.getDelayedCalls(), [])

    def test_answer_before_the_body(self) -> None:
        """A client that goes on sending is read from until it has agreed to the close."""
        client = self.connect(lambda request: request.answer_error(Denied("no")))
        client.send(b"PUT / HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n" % (HOST, 1 << 30))
        client.send(bytes(1 << 15))
        client.receive()
        self.assertIn(b" 403 ", client.read())
        for _ in range(10):
            client.send(bytes(1 << 15))
            self.assertTrue(client.server.reading)
        self.assertEqual(client.receive(), 0)
        client.connection.shutdown()
        client.exchange()
        client.server.take()
        self.assertTrue(client.server.lost)
        self.assertEqual(self.house.clock.getDelayedCalls(), [])

    def test_peer_that_never_shakes_hands(self) -> None:
        self.house = House()
        factory = TLSMemoryBIOFactory(ServerTLS(), False, self.house.site, self.house.clock)
        protocol = factory.buildProtocol(None)
        assert protocol is not None
        stream = MemoryStream(protocol)
        self.house.clock.advance(LIMITS.head)
        self.house.clock.advance(LIMITS.stall)
        self.assertTrue(stream.aborted)
        stream.take()
        self.assertEqual(self.house.clock.getDelayedCalls(), [])

    def take_all(self, client: ClientTLS) -> list[Response]:
        wire = b""
        for _ in range(10 * len(BIG) // 1000):
            if not client.receive() and not self.house.clock.getDelayedCalls():
                break
            self.house.clock.advance(0)
            wire += client.read()
        client.server.lose(ConnectionDone())
        return responses(wire)

    def test_pipelined_requests(self) -> None:
        client = self.connect(serve(MemoryBlob.whole(BIG)))
        client.send(GET * 3)
        self.assertEqual([answer.body for answer in self.take_all(client)], [BIG] * 3)
        self.assertLess(client.server.held_most, len(BIG) / 2)

    def test_behind_with_an_earlier_answer(self) -> None:
        """TLS tells once that the client is behind: the second answer has to know it too."""
        serve_slowly = serve(MemoryBlob.whole(BIG))

        def answer(request: StrictRequest) -> None:
            if request.uri == b"/at-once":
                request.setHeader(b"Content-Length", b"%d" % len(BIG))
                request.write(BIG)
                request.finish()
            else:
                serve_slowly(request)

        client = self.connect(answer)
        client.send(GET.replace(b"/v2/?n=secret", b"/at-once") + GET)
        self.assertEqual([answer.body for answer in self.take_all(client)], [BIG] * 2)
        self.assertLess(client.server.held_most, len(BIG) * 1.5)


class DisconnectTests(SynchronousTestCase):
    def test_failure_is_not_logged_as_one(self) -> None:
        """Clients abort as they like: no traceback, and no Deferred left behind."""
        house = House.answering(serve(MemoryBlob(BIG, arrived=10, size=len(BIG))))
        stream = house.connect()
        stream.send(GET)
        stream.lose(ConnectionAborted())
        self.assertEqual(house.statuses, [499])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_reason(self) -> None:
        failures: list[Failure] = []
        house = House.answering(lambda request: request.notifyFinish().addErrback(failures.append))
        house.ask(GET)
        failures[0].trap(ConnectionDone)
