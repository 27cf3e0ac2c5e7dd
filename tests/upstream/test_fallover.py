"""Tests for :mod:`regproxy.upstream.fallover`."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IResponse
from zope.interface.verify import verifyObject

from regproxy.config.model import RegistrySection
from regproxy.interfaces import IMirrored
from regproxy.oci.names import Host
from regproxy.policy.upstreams import FIRST, LIMIT, Sources
from regproxy.upstream.errors import (
    AddressRefused,
    UpstreamBroken,
    UpstreamLoginFailed,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from regproxy.upstream.fallover import FallOver
from regproxy.upstream.servers import Server
from tests.support.upstream import FakeResponse, Reply

NOW = 1_000_000_000.0
GONE = UpstreamUnreachable("nothing answers there")

Said = Reply | Exception


def server(name: str) -> Server:
    return Server(Host(name), RegistrySection(upstream=(f"https://{name}",)))


NEAR, FAR, ORIGIN = SERVERS = tuple(map(server, ("near.test", "far.test", "registry.example.test")))


class FallOverCase(SynchronousTestCase):
    """Servers that say what the test has them say."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.fall_over = FallOver(self.clock, lambda: NOW + self.clock.seconds())
        self.says: dict[Server, Said | None] = dict.fromkeys(SERVERS, Reply(200))
        self.asked: list[Server] = []
        self.responses: list[FakeResponse] = []
        self.waiting: dict[Server, Deferred[Said]] = {}

    async def ask_server(self, server: Server) -> IResponse:
        self.asked.append(server)
        said = self.says[server]
        if said is None:
            self.waiting[server] = Deferred()
            said = await self.waiting[server]
        if isinstance(said, Exception):
            raise said
        response = FakeResponse(b"GET", said)
        self.responses.append(response)
        return response

    def ask(
        self, sources: Sources = Sources.MIRRORS_FIRST, patience: float | None = None
    ) -> Deferred[IResponse]:
        self.asked.clear()
        self.responses.clear()
        return ensureDeferred(
            self.fall_over.first_answer(SERVERS, sources, patience, self.ask_server)
        )

    def answer(
        self, sources: Sources = Sources.MIRRORS_FIRST, patience: float | None = None
    ) -> IResponse:
        response: IResponse = self.successResultOf(self.ask(sources, patience))
        return response

    def assertAsked(self, *servers: Server) -> None:
        self.assertEqual(self.asked, list(servers))

    def assertNothingHeld(self, answer: IResponse | None = None) -> None:
        """No response is left unread but the answer."""
        held = [response for response in self.responses if not response.ended or not response.taken]
        self.assertLessEqual(len(held), 0 if answer is None else 1)


class OrderTests(FallOverCase):
    """Whose answer it is"""

    def test_first(self) -> None:
        """A mirror's answer says that it is one."""
        answer = self.answer()
        self.assertAsked(NEAR)
        verifyObject(IMirrored, answer)
        verifyObject(IResponse, answer)
        self.assertEqual(answer.code, 200)

    def test_origin(self) -> None:
        """The origin's is none."""
        answer = self.answer(Sources.ORIGIN)
        self.assertAsked(ORIGIN)
        self.assertFalse(IMirrored.providedBy(answer))

    def test_mirrors_have_it_not(self) -> None:
        """What a mirror refuses, the origin decides."""
        for status in 400, 401, 403, 404, 416, 500, 503, 429:
            self.setUp()
            self.says |= {NEAR: Reply(status), FAR: Reply(status), ORIGIN: Reply(404)}
            answer = self.answer()
            self.assertEqual(answer.code, 404)
            self.assertAsked(NEAR, FAR, ORIGIN)
            self.assertFalse(IMirrored.providedBy(answer))
            self.assertNothingHeld(answer)

    def test_mirrors_fail(self) -> None:
        self.says |= {NEAR: GONE, FAR: UpstreamLoginFailed("no")}
        self.assertEqual(self.answer().code, 200)
        self.assertAsked(NEAR, FAR, ORIGIN)

    def test_all_fail(self) -> None:
        """It is the origin's failure that is told, whoever was last."""
        self.says |= {NEAR: GONE, FAR: GONE, ORIGIN: UpstreamTimeout("too slow")}
        for order in [NEAR, FAR, ORIGIN], [NEAR, FAR, ORIGIN]:
            self.failureResultOf(self.ask(), UpstreamTimeout)
            self.assertAsked(*order)
        self.clock.advance(60)
        self.says |= {NEAR: Reply(404)}
        self.failureResultOf(self.ask(), UpstreamTimeout)
        self.says |= {FAR: Reply(200)}
        self.failureResultOf(self.ask(Sources.ORIGIN), UpstreamTimeout)

    def test_origins_error(self) -> None:
        """A 503 is passed on as it is when nobody else has an answer."""
        self.says |= {NEAR: GONE, ORIGIN: Reply(503, {}, b"why")}
        for sources in Sources.MIRRORS_FIRST, Sources.ORIGIN_FIRST:
            self.says[FAR] = Reply(404)
            answer = self.answer(sources)
            self.assertEqual(answer.code, 503)
            self.assertFalse(IMirrored.providedBy(answer))
            self.assertNothingHeld(answer)

    def test_origin_first(self) -> None:
        """Its answer is final; its failure is not, and is dropped for a mirror's answer."""
        self.says[ORIGIN] = Reply(403)
        self.assertEqual(self.answer(Sources.ORIGIN_FIRST).code, 403)
        self.assertAsked(ORIGIN)
        for failure in GONE, Reply(503, {}, b"why"), Reply(429):
            self.says[ORIGIN] = failure
            answer = self.answer(Sources.ORIGIN_FIRST)
            self.assertEqual(answer.code, 200)
            self.assertTrue(IMirrored.providedBy(answer))
            self.assertNothingHeld(answer)

    def test_mirrors_only(self) -> None:
        self.says |= {NEAR: Reply(404), FAR: UpstreamBroken("broke off")}
        self.failureResultOf(self.ask(Sources.MIRRORS), UpstreamBroken)
        self.assertAsked(NEAR, FAR)
        asking = self.fall_over.first_answer([ORIGIN], Sources.MIRRORS, None, self.ask_server)
        self.failureResultOf(ensureDeferred(asking), UpstreamUnreachable)

    def test_cancelled(self) -> None:
        """In the middle, with the origin's error in hand."""
        self.says |= {ORIGIN: Reply(503, {}, b"why"), NEAR: None}
        asking = self.ask(Sources.ORIGIN_FIRST)
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.assertNothingHeld()
        self.assertAsked(ORIGIN, NEAR)


class HealthTests(FallOverCase):
    """What is remembered"""

    def test_resting_mirror(self) -> None:
        """One that failed is asked again after its rest, and not before."""
        for failure in GONE, Reply(500), Reply(429):
            self.setUp()
            self.says[NEAR] = failure
            self.answer()
            self.assertAsked(NEAR, FAR)
            self.says[NEAR] = Reply(200)
            self.clock.advance(FIRST - 0.1)
            self.answer()
            self.assertAsked(FAR)
            self.clock.advance(0.1)
            self.answer()
            self.assertAsked(NEAR)

    def test_well_mirror(self) -> None:
        """That it has not got something is no failure; nor is what it must not be asked."""
        for said in Reply(404), Reply(401), UpstreamLoginFailed("no"), AddressRefused("no"):
            self.says[NEAR] = said
            for _ in range(2):
                self.answer()
                self.assertAsked(NEAR, FAR)

    def test_retry_after(self) -> None:
        """A mirror may say for how long, in seconds or as a date, within bounds."""
        for value, rest in (
            ("100", 100),
            ("Sun, 09 Sep 2001 01:48:20 GMT", 100),
            ("999999", LIMIT),
            ("1", FIRST),
        ):
            self.setUp()
            self.says[NEAR] = Reply(429, {"Retry-After": value})
            self.answer()
            self.clock.advance(rest - 0.1)
            self.answer()
            self.assertAsked(FAR)
            self.clock.advance(0.1)
            self.answer()
            self.assertEqual(self.asked[0], NEAR, value)

    def test_last_resort(self) -> None:
        """No error comes from a rest alone: those that rest are asked when all else fails."""
        self.says[NEAR] = GONE
        self.answer()
        self.says |= {NEAR: Reply(200), FAR: GONE, ORIGIN: GONE}
        self.assertEqual(self.answer().code, 200)
        self.assertAsked(FAR, ORIGIN, NEAR)

    def test_origins_errors_are_no_illness(self) -> None:
        """A 500 is told at once, so there is nothing to save by not asking."""
        self.says[ORIGIN] = Reply(500)
        for _ in range(3):
            self.assertEqual(self.answer(Sources.ORIGIN, patience=0).code, 500)

    def test_spoiled(self) -> None:
        """Content that breaks off is a failure; wrong content a bad one."""
        for wrong, rest in (False, FIRST), (True, LIMIT):
            self.setUp()
            answer = self.answer()
            IMirrored(answer).spoiled("it broke off", wrong=wrong)
            self.clock.advance(rest - 0.1)
            self.answer()
            self.assertAsked(FAR)
            self.clock.advance(0.1)
            self.answer()
            self.assertAsked(NEAR)

    def test_log(self) -> None:
        """Once when it fails and once when it is well; not what a mirror has not got."""
        self.says |= {NEAR: Reply(404), FAR: Reply(503)}
        with capturedLogs() as events:
            for _ in range(3):
                self.answer()
                self.clock.advance(60)
            self.says[FAR] = Reply(200)
            self.answer()
            self.answer()
        self.assertEqual(
            [formatEvent(event) for event in events],
            [
                "far.test has failed and is left alone for a while: it answered 503",
                "far.test answers again",
            ],
        )


class PatienceTests(FallOverCase):
    """An origin that is known to be down, and requests that have something else"""

    def setUp(self) -> None:
        super().setUp()
        self.says[ORIGIN] = GONE
        self.failureResultOf(self.ask(Sources.ORIGIN), UpstreamUnreachable)

    def test_none(self) -> None:
        """Not asked, with the reason of the failure that is known."""
        failure = self.failureResultOf(self.ask(Sources.ORIGIN, 0), UpstreamUnreachable)
        self.assertEqual(failure.value.message, "nothing answers there")
        self.assertAsked()

    def test_no_error_comes_from_a_rest(self) -> None:
        """Who has nothing else asks all the same; and all know that it is well again."""
        self.says[ORIGIN] = Reply(200)
        self.assertEqual(self.answer(Sources.ORIGIN).code, 200)
        self.assertEqual(self.answer(Sources.ORIGIN, 0).code, 200)

    def test_after_the_rest(self) -> None:
        """The next request tries, however impatient; others go without until that is over."""
        self.clock.advance(FIRST)
        self.says[ORIGIN] = None
        first = self.ask(Sources.ORIGIN, 0)
        self.assertAsked(ORIGIN)
        self.failureResultOf(self.ask(Sources.ORIGIN, 0), UpstreamUnreachable)
        self.assertAsked()
        self.waiting[ORIGIN].callback(Reply(200))
        self.assertEqual(self.successResultOf(first).code, 200)
        self.says[ORIGIN] = Reply(200)
        self.assertEqual(self.answer(Sources.ORIGIN, 0).code, 200)

    def test_trial_cancelled(self) -> None:
        """When the client that tries leaves, the next one tries."""
        self.clock.advance(FIRST)
        self.says[ORIGIN] = None
        first = self.ask(Sources.ORIGIN, 0)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.says[ORIGIN] = Reply(200)
        self.assertEqual(self.answer(Sources.ORIGIN, 0).code, 200)

    def test_some(self) -> None:
        """It is asked, and given that much time."""
        self.says[ORIGIN] = None
        for said in Reply(200), None:
            asking = self.ask(Sources.ORIGIN, 2)
            self.assertAsked(ORIGIN)
            self.clock.advance(1.9)
            self.assertNoResult(asking)
            if said is not None:
                self.waiting[ORIGIN].callback(said)
                self.assertEqual(self.successResultOf(asking).code, 200)
                self.says[ORIGIN] = GONE
                self.failureResultOf(self.ask(Sources.ORIGIN), UpstreamUnreachable)
                self.says[ORIGIN] = None
            else:
                self.clock.advance(0.1)
                failure = self.failureResultOf(asking, UpstreamUnreachable)
                self.assertEqual(failure.value.message, "nothing answers there")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_mirror_is_well(self) -> None:
        """Then there is nothing to be impatient about."""
        self.assertEqual(self.answer(Sources.MIRRORS_FIRST, 0).code, 200)
        self.assertEqual(self.answer(Sources.ORIGIN_FIRST, 0).code, 200)
        self.assertAsked(NEAR)

    def test_nothing_remembered(self) -> None:
        """An upstream that has not failed is waited for."""
        self.clock.advance(FIRST)
        self.says[ORIGIN] = Reply(200)
        self.answer(Sources.ORIGIN)
        self.says[ORIGIN] = None
        asking = self.ask(Sources.ORIGIN, 0)
        self.clock.advance(25)
        self.assertNoResult(asking)
        self.waiting[ORIGIN].errback(UpstreamTimeout("too slow"))
        self.failureResultOf(asking, UpstreamTimeout)
