"""Tests for :mod:`regproxy.policy.upstreams`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from regproxy.policy import upstreams
from regproxy.policy.upstreams import (
    FIRST,
    LIMIT,
    LONGEST,
    TRIAL,
    Health,
    Sources,
    course,
    is_answer,
    is_failure,
)

SERVERS = ("near", "far", "origin")


class CourseTests(SynchronousTestCase):
    """course: whom to ask, in which order."""

    def course(self, sources: Sources, *resting: str) -> list[str]:
        return course(SERVERS, sources, lambda server: server in resting)

    def test_all_well(self) -> None:
        for sources, expected in (
            (Sources.ORIGIN, ["origin"]),
            (Sources.MIRRORS_FIRST, ["near", "far", "origin"]),
            (Sources.ORIGIN_FIRST, ["origin", "near", "far"]),
            (Sources.MIRRORS, ["near", "far"]),
        ):
            self.assertEqual(self.course(sources), expected)

    def test_resting_come_last(self) -> None:
        """In their own order, behind all that are well."""
        first = Sources.MIRRORS_FIRST
        self.assertEqual(self.course(first, "near"), ["far", "origin", "near"])
        self.assertEqual(self.course(first, "near", "origin"), ["far", "near", "origin"])
        self.assertEqual(self.course(first, *SERVERS), list(SERVERS))
        self.assertEqual(self.course(Sources.ORIGIN, "origin"), ["origin"])

    def test_only_an_origin(self) -> None:
        for sources in Sources:
            expected = [] if sources is Sources.MIRRORS else ["origin"]
            self.assertEqual(course(["origin"], sources, lambda server: False), expected)

    @given(
        st.lists(st.integers(), min_size=1, unique=True),
        st.sampled_from(Sources),
        st.sets(st.integers()),
    )
    def test_nobody_is_lost(self, servers: list[int], sources: Sources, resting: set[int]) -> None:
        """Rest changes the order only: who may answer is asked in the end."""
        rested = course(servers, sources, resting.__contains__)
        self.assertEqual(
            sorted(rested), sorted(course(servers, sources, lambda server: False)), rested
        )
        self.assertEqual(rested, sorted(rested, key=resting.__contains__))


class AnswerTests(SynchronousTestCase):
    """is_answer: what is final."""

    def test_mirror(self) -> None:
        """It gives something, or another is asked."""
        for status in 200, 206, 304, 307:
            self.assertTrue(is_answer(status, origin=False), status)
        for status in 400, 401, 403, 404, 405, 416, 429, 500, 503:
            self.assertFalse(is_answer(status, origin=False), status)

    def test_origin(self) -> None:
        """It can say no."""
        for status in 200, 304, 307, 401, 403, 404, 405, 416:
            self.assertTrue(is_answer(status, origin=True), status)
        for status in 429, 500, 502, 599:
            self.assertFalse(is_answer(status, origin=True), status)
            self.assertTrue(is_failure(status), status)


class HealthTests(SynchronousTestCase):
    """Health, step by step."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.health: Health[str] = Health(self.clock.seconds)

    def fail_now(self, key: str = "x", at_least: float = 0.0) -> None:
        self.health.failed(key, self.health.begin(key), "why", at_least)

    def rest(self) -> float:
        """How long "x" rests from now on."""
        begin = self.clock.seconds()
        while self.health.resting("x"):
            self.clock.advance(0.5)
        return self.clock.seconds() - begin

    def test_well_until_it_fails(self) -> None:
        self.assertFalse(self.health.resting("x"))
        self.assertEqual(self.health.reason("x"), "")
        self.fail_now()
        self.assertTrue(self.health.resting("x"))
        self.assertEqual(self.health.reason("x"), "why")
        self.assertFalse(self.health.resting("y"))

    def test_rests_grow(self) -> None:
        """Each is twice as long as the one before, up to the longest."""
        rests = []
        for _ in range(6):
            self.fail_now()
            rests.append(self.rest())
        self.assertEqual(rests, [FIRST, 10, 20, 40, LONGEST, LONGEST])

    def test_well_again(self) -> None:
        """An answer ends the rest, and the next one is short again."""
        self.fail_now()
        self.rest()
        self.fail_now()
        self.health.worked("x", self.health.begin("x"))
        self.assertFalse(self.health.resting("x"))
        self.assertEqual(self.health.reason("x"), "")
        self.fail_now()
        self.assertEqual(self.rest(), FIRST)

    def test_late_answer(self) -> None:
        """One that was asked for before the failure does not excuse it."""
        began = self.health.begin("x")
        self.clock.advance(1)
        self.fail_now()
        self.health.worked("x", began)
        self.assertTrue(self.health.resting("x"))

    def test_asked_for(self) -> None:
        """Who asks to be left alone is, within bounds; it does not make the next rest longer."""
        self.fail_now(at_least=100)
        self.assertEqual(self.rest(), 100)
        self.fail_now(at_least=1e9)
        self.assertEqual(self.rest(), LIMIT)
        self.fail_now()
        self.assertEqual(self.rest(), 20)

    def test_failures_together_are_one(self) -> None:
        """What began before the failure was noted tells nothing new."""
        began = [self.health.begin("x") for _ in range(20)]
        self.clock.advance(3)
        for moment in began:
            self.health.failed("x", moment, "why")
        self.assertEqual(self.rest(), FIRST)

    def test_late_wish(self) -> None:
        """But it may ask for more time."""
        began = self.health.begin("x")
        self.clock.advance(1)
        self.fail_now()
        self.health.failed("x", began, "later", at_least=50)
        self.assertEqual(self.rest(), 50)

    def test_one_tries(self) -> None:
        """After the rest one request tries; for the others it rests until that is over."""
        self.fail_now()
        self.rest()
        began = self.health.begin("x")
        self.assertTrue(self.health.resting("x"))
        self.clock.advance(10)
        self.health.failed("x", began, "why")
        self.assertEqual(self.rest(), 10)

    def test_trial_has_an_end(self) -> None:
        self.fail_now()
        self.rest()
        self.health.begin("x")
        self.assertEqual(self.rest(), TRIAL)

    def test_trial_given_up(self) -> None:
        """The next one may try at once; a request that tried nothing changes nothing."""
        self.fail_now()
        self.health.gave_up("x", self.health.begin("x"))
        self.assertTrue(self.health.resting("x"))
        self.rest()
        began = self.health.begin("x")
        self.clock.advance(1)
        self.health.gave_up("x", self.health.begin("x"))
        self.assertTrue(self.health.resting("x"))
        self.health.gave_up("x", began)
        self.assertFalse(self.health.resting("x"))

    def test_bounded(self) -> None:
        """The one whose failure is longest ago is forgotten."""
        self.patch(upstreams, "MAX_REMEMBERED", 2)
        for key in "x", "y", "x", "z":
            self.fail_now(key)
        self.assertEqual([self.health.resting(key) for key in "xyz"], [True, False, True])


class HealthMachine(RuleBasedStateMachine):
    """Any history of one upstream, against what must hold for all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.health: Health[str] = Health(self.clock.seconds)
        self.under_way: list[float] = []
        self.last_bad = float("-inf")
        self.last_asked = 0.0
        self.failed_since_it_worked = False

    @rule(seconds=st.floats(0, 100))
    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def begin(self) -> None:
        self.under_way.append(self.health.begin("x"))

    @precondition(lambda self: self.under_way)
    @rule(at_least=st.floats(0, 2000))
    def fail(self, at_least: float) -> None:
        self.health.failed("x", self.under_way.pop(0), "why", at_least)
        self.last_bad = self.clock.seconds()
        self.last_asked = max(self.last_asked, min(at_least, LIMIT))
        self.failed_since_it_worked = True
        assert self.health.resting("x")

    @precondition(lambda self: self.under_way)
    @rule()
    def work(self) -> None:
        began = self.under_way.pop(0)
        self.health.worked("x", began)
        if began >= self.last_bad:
            self.failed_since_it_worked = False
            assert not self.health.resting("x")

    @precondition(lambda self: self.under_way)
    @rule()
    def give_up(self) -> None:
        self.health.gave_up("x", self.under_way.pop(0))

    @invariant()
    def who_never_failed_never_rests(self) -> None:
        if not self.failed_since_it_worked:
            assert not self.health.resting("x")

    @invariant()
    def no_rest_is_for_ever(self) -> None:
        """Whatever happened: left in peace for the longest rest and a trial, it is due again."""
        bound = max(LONGEST, self.last_asked)
        latest = max([self.last_bad + bound, *(moment + TRIAL for moment in self.under_way)])
        if self.clock.seconds() > latest:
            assert not self.health.resting("x")


class HistoryTests(SynchronousTestCase):
    """Health over time"""

    def test_any_history(self) -> None:
        run_state_machine_as_test(HealthMachine)
