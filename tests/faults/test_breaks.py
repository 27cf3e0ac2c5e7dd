"""Transfers that break off, stall, drip, or bring the wrong bytes."""

from __future__ import annotations

from functools import partial

from tests.support.faults import IDLE, FaultTestCase, KiB, MiB, together
from tests.support.turns import End, Framing, Turn

SIZE = MiB
STOP = SIZE // 2


class ResumeTests(FaultTestCase):
    """Upstream fails in the middle and is well again at the next request."""

    def check_resumed(self, *turns: Turn, follow: bool = True) -> None:
        """Several clients get it all, as if nothing had happened, and later ones from the store.

        Args:
            turns: those that fail; at each request after the first at least one byte
                has come, so that it must be for a range.
        """
        blob = self.blob(SIZE, *turns)
        clients = 4 if follow else 1
        for outcome in together([partial(self.fetch, blob)] * clients):
            self.assert_whole(outcome, blob)
        first, *others = self.requests(blob)
        self.assertIsNone(first.range)
        self.assertTrue(others)
        for request in others:
            self.assertGreater(request.start, 0)
        self.assert_whole(self.fetch(blob), blob)
        self.assertEqual(len(self.requests(blob)), 1 + len(others))
        self.wait_for(lambda: not self.proxy.partial_files(blob.digest))

    def test_truncated(self) -> None:
        """The connection ends before the length: the rest is asked for."""
        self.check_resumed(Turn(stop=STOP), Turn())

    def test_truncated_often(self) -> None:
        """As long as each try brings something."""
        self.check_resumed(Turn(stop=STOP), Turn(stop=STOP + 256 * KiB), Turn())

    def test_reset(self) -> None:
        """The connection is reset."""
        self.check_resumed(Turn(stop=STOP, end=End.RESET), Turn())

    def test_stall(self) -> None:
        """Nothing comes any more."""
        self.check_resumed(Turn(stop=STOP, end=End.STALL), Turn())

    def test_drip(self) -> None:
        """One byte a second is as good as nothing."""
        self.check_resumed(Turn(rate=1), Turn())

    def test_server_without_ranges(self) -> None:
        """What a server that answers 200 sends again is read and skipped."""
        self.check_resumed(Turn(stop=STOP), Turn(ranges=False))

    def test_break_in_the_resumption(self) -> None:
        """An error in between counts as a break."""
        self.check_resumed(Turn(stop=STOP), Turn(status=503), Turn())

    def test_exact_amount(self) -> None:
        """What has come is not fetched again."""
        blob = self.blob(SIZE, Turn(stop=STOP), Turn())
        self.assert_whole(self.fetch(blob), blob)
        first, second = self.requests(blob)
        self.assertEqual((first.bytes, second.start), (STOP, STOP))
        self.assertEqual(second.bytes, SIZE - STOP)

    def test_wrong_range(self) -> None:
        """Another content under the same name at the second try: nobody gets a mixture."""
        other = self.upstream.put(bytes(SIZE))
        blob = self.blob(SIZE, Turn(stop=STOP), Turn(content=other))
        for outcome in together([partial(self.fetch, blob)] * 3):
            self.assert_cut(outcome)
        self.assert_not_stored(blob)


class WrongBytesTests(FaultTestCase):
    """No client gets a complete response with a wrong byte, and nothing is kept."""

    def check_wrong(self, wrong: Turn) -> None:
        """All clients of the one try know; the next try is a new one and brings it all."""
        blob = self.blob(SIZE, wrong, Turn())
        outcomes = together([partial(self.fetch, blob)] * 6)
        for outcome in outcomes:
            if outcome.complete and outcome.status == 200:
                # It came after the first try had failed.
                self.assert_whole(outcome, blob)
        self.assertIn(False, [outcome.complete for outcome in outcomes])
        self.assert_whole(self.fetch(blob), blob)
        self.assertGreater(len(self.requests(blob)), 1)

    def test_bit_flipped(self) -> None:
        """A single bit, in the middle of a body of the right length."""
        self.check_wrong(Turn(flip=STOP, rate=4 * MiB))

    def test_last_byte(self) -> None:
        """A bit of the very last byte."""
        self.check_wrong(Turn(flip=SIZE - 1, rate=4 * MiB))

    def test_without_length(self) -> None:
        """So with a body whose end only the framing tells."""
        for framing in (Framing.CHUNKED, Framing.CLOSE):
            with self.subTest(framing=framing):
                self.check_wrong(Turn(flip=STOP, framing=framing, rate=4 * MiB))

    def test_always_wrong(self) -> None:
        """Nothing is kept of it, however often it is tried."""
        blob = self.blob(SIZE, Turn(flip=STOP))
        for number in range(1, 4):
            self.assert_cut(self.fetch(blob))
            self.assert_not_stored(blob)
            self.assertEqual(len(self.requests(blob)), number)
        self.assert_serves()

    def test_range(self) -> None:
        """A part of wrong content is no complete response either."""
        blob = self.blob(SIZE, Turn(flip=STOP, rate=2 * MiB))
        leader = self.get(blob)
        leader.take(KiB)
        part = self.fetch(blob, {"Range": f"bytes={STOP - 10}-{STOP + 10}"})
        self.assertEqual(part.status, 206)
        self.assertFalse(part.complete)
        self.assert_cut(leader.finish())
        self.assert_not_stored(blob)

    def test_too_much(self) -> None:
        """More bytes than the content has, in a body without a length."""
        for framing in (Framing.CHUNKED, Framing.CLOSE):
            with self.subTest(framing=framing):
                self.check_wrong(Turn(surplus=1000, framing=framing))

    def test_announced_too_little(self) -> None:
        """A Content-Length that ends inside the content."""
        self.check_wrong(Turn(announced=SIZE - 1000))

    def test_more_than_announced(self) -> None:
        """What comes after the announced length is not part of the answer, nor of the next."""
        blob = self.blob(SIZE, Turn(announced=SIZE, surplus=1000))
        self.assert_whole(self.fetch(blob), blob)
        self.assert_serves()


class NothingTests(FaultTestCase):
    """Upstream gives nothing at all, or stops in the middle: noticed in time."""

    def test_silent_from_the_start(self) -> None:
        """No head of an answer: 504 after ``upstream_head``."""
        blob = self.blob(SIZE, Turn(stop=-1, end=End.STALL))
        outcome = self.fetch(blob)
        self.assert_error(outcome, 504, "connection_timeout")
        self.assert_not_stored(blob)

    def test_closed_from_the_start(self) -> None:
        """The connection ends before the head: 502."""
        for end in (End.CLOSE, End.RESET):
            with self.subTest(end=end):
                blob = self.blob(SIZE, Turn(stop=-1, end=end))
                self.assert_error(self.fetch(blob), 502, "connection_terminated")
                self.assert_not_stored(blob)

    def test_idle_is_bounded(self) -> None:
        """A stall is noticed within the configured time, and the client has its bytes soon."""
        blob = self.blob(SIZE, Turn(stop=STOP, end=End.STALL), Turn())
        self.assert_whole(self.fetch(blob), blob)
        first, _ = self.requests(blob)
        assert first.ended is not None and first.first is not None
        self.assertLess(first.ended - first.first, 5 * IDLE)
