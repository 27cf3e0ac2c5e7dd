from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.policy.filling import FillRules, FillState, Phase, WrongSize
from regproxy.policy.spans import Spans

SIZE = 30
PIECES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)), max_size=12)
RULES = FillRules(far=10, window=8, side_requests=2, skip=3, finish_abandoned=20)


class FillStateTests(SynchronousTestCase):
    @given(PIECES)
    def test_every_position_is_written_once(self, pieces: list[tuple[int, int]]) -> None:
        state = FillState(SIZE)
        written: list[int] = []
        for offset, length in pieces:
            if offset + length > SIZE:
                self.assertRaises(WrongSize, state.take, offset, length)
                continue
            new = state.take(offset, length)
            self.assertTrue(all(offset <= start < end <= offset + length for start, end in new))
            written += [position for start, end in new for position in range(start, end)]
            state.wrote(new)
        self.assertEqual(len(written), len(set(written)))
        self.assertEqual(state.stored.total, len(written))
        self.assertEqual(state.arrived, len(written))

    @given(PIECES, st.integers(0, 40))
    def test_missing_is_what_nobody_has_brought(
        self, pieces: list[tuple[int, int]], offset: int
    ) -> None:
        state = FillState(None)
        for start, length in pieces:
            state.take(start, length)
        gap = state.missing(offset)
        assert gap is not None
        self.assertEqual(gap[0], state.covered(offset))
        self.assertEqual(state.take(gap[0], 1), [(gap[0], gap[0] + 1)])

    def test_nothing_is_missing_beyond_the_end(self) -> None:
        state = FillState(SIZE)
        state.take(10, 20)
        self.assertEqual(state.missing(0), (0, 10))
        self.assertIsNone(state.missing(10))
        state.take(0, 10)
        self.assertIsNone(state.missing(0))

    def test_what_an_earlier_try_left(self) -> None:
        left = Spans([(0, 5), (10, 20)])
        state = FillState(SIZE, left)
        self.assertEqual(state.take(0, 12), [(5, 10)])
        self.assertEqual((state.readable(0), state.readable(10)), (5, 10))
        self.assertEqual(left, Spans([(0, 5), (10, 20)]))

    def test_announced(self) -> None:
        state = FillState(None)
        state.take(0, 10)
        self.assertRaises(WrongSize, state.announce, 9)
        state.announce(10)
        state.announce(10)
        self.assertRaises(WrongSize, state.announce, 11)
        self.assertRaises(WrongSize, state.take, 10, 1)

    def test_on_the_way_is_not_readable(self) -> None:
        state = FillState(SIZE)
        new = state.take(0, 10)
        self.assertEqual(state.readable(0), 0)
        state.wrote(new)
        self.assertEqual([state.readable(at) for at in (0, 4, 10)], [10, 6, 0])

    def whole(self) -> FillState:
        state = FillState(SIZE)
        state.wrote(state.take(0, SIZE))
        self.assertFalse(state.whole)
        state.hashed = SIZE
        self.assertTrue(state.whole)
        return state

    def test_right(self) -> None:
        state = self.whole()
        self.assertFalse(state.verified)
        state.conclude(right=True)
        self.assertTrue(state.verified)
        self.assertFalse(state.over)
        state.commit()
        self.assertIs(state.phase, Phase.COMMITTED)
        self.assertTrue(state.verified and state.over)

    def test_nothing_happens_after_the_end(self) -> None:
        for end in (Phase.COMMITTED, Phase.FAILED):
            state = self.whole()
            state.conclude(right=end is Phase.COMMITTED)
            state.commit()
            self.assertIs(state.phase, end)
            state.conclude(right=True)
            state.commit()
            state.fail()
            self.assertIs(state.phase, end)

    def test_wrong(self) -> None:
        state = self.whole()
        state.conclude(right=False)
        self.assertFalse(state.verified)
        self.assertEqual(state.readable(0), 0)

    def test_commit_fails(self) -> None:
        """What was verified stays so, for those who read it already."""
        state = self.whole()
        state.conclude(right=True)
        state.fail()
        self.assertTrue(state.verified and state.over)
        self.assertEqual(state.readable(0), SIZE)


class FillRulesTests(SynchronousTestCase):
    def test_delays_double_up_to_a_bound_and_end(self) -> None:
        rules = FillRules(tries=5, first_delay=1, last_delay=5)
        delays = [rules.delay(failures) for failures in range(1, 7)]
        self.assertEqual(delays, [1, 2, 4, 5, 5, None])

    def test_goes_on_alone(self) -> None:
        """What is not large always; of the rest what is more than half here."""
        for size, here, expected in (
            (None, 0, True),
            (20, 0, True),
            (21, 0, False),
            (40, 20, False),
            (40, 21, True),
        ):
            state = FillState(size, [(0, here)])
            self.assertIs(RULES.goes_on_alone(state), expected, (size, here))

    def test_side_request(self) -> None:
        state = FillState(100, [(50, 60)])
        for head, under_way, offset, end, expected in (
            (0, [], 9, None, None),  # near
            (0, [], 10, None, (10, 18)),  # a window
            (0, [], 10, 12, (10, 12)),  # up to where the reader stops
            (0, [], 45, None, (45, 50)),  # up to what is here
            (0, [], 55, None, None),  # here
            (0, [], 97, None, (97, 100)),  # up to the end
            (0, [(14, 20)], 10, None, (10, 14)),  # up to what is on the way
            (0, [(5, 20)], 10, None, None),  # on the way
            (0, [(70, 80), (90, 95)], 20, None, None),  # enough of them
            (30, [], 10, None, None),  # behind the transfer
        ):
            self.assertEqual(
                RULES.side_request(state, head, under_way, offset, end),
                expected,
                (head, under_way, offset, end),
            )

    def test_no_side_request_into_the_unknown(self) -> None:
        """Without a size nobody knows whether there is such a part."""
        self.assertIsNone(RULES.side_request(FillState(None), 0, [], 50, None))

    @given(PIECES, PIECES, st.integers(0, 40), st.integers(0, 99), st.integers(1, 50))
    def test_side_requests_bring_only_what_nobody_brings(
        self,
        pieces: list[tuple[int, int]],
        others: list[tuple[int, int]],
        head: int,
        offset: int,
        length: int,
    ) -> None:
        state = FillState(100, [(start, start + count) for start, count in pieces])
        under_way = [(start, start + count) for start, count in others]
        end = min(100, offset + length)
        span = RULES.side_request(state, head, under_way, offset, end)
        if span is None:
            return
        start, stop = span
        self.assertEqual(start, offset)
        self.assertTrue(start < stop <= min(end, start + RULES.window))
        self.assertEqual(state.take(start, stop - start), [span])
        self.assertFalse(any(one < stop and start < two for one, two in under_way if one < two))
