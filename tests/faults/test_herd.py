"""Many clients and one transfer, which is none of theirs."""

from __future__ import annotations

from functools import partial

from tests.support.faults import PATIENT, FaultTestCase, KiB, MiB, together
from tests.support.raw_client import Outcome
from tests.support.turns import Framing, Turn

#: Bytes of memory that the proxy may take, however many clients there are.
PEAK = 200 * MiB


class HerdTests(FaultTestCase):
    """Clients that come at once, and leave."""

    def test_herd(self) -> None:
        """Two hundred clients, a cold blob: one GET, and memory does not grow with them."""
        self.new_proxy(limits=PATIENT)
        blob = self.blob(MiB, Turn(rate=MiB))
        outcomes = together([partial(self.fetch, blob)] * 200)
        for outcome in outcomes:
            self.assert_whole(outcome, blob)
        (request,) = self.requests(blob)
        self.assertEqual(request.bytes, len(blob.content))
        self.assertLess(self.proxy.peak(), PEAK)

    def test_without_length(self) -> None:
        """The same when upstream does not say how much will come."""
        for framing in (Framing.CHUNKED, Framing.CLOSE):
            with self.subTest(framing=framing):
                blob = self.blob(MiB, Turn(framing=framing, rate=2 * MiB))
                for outcome in together([partial(self.fetch, blob)] * 5):
                    self.assert_whole(outcome, blob)
                self.assertEqual(len(self.requests(blob)), 1)

    def test_bytes_go_on_as_they_come(self) -> None:
        """A client has the first bytes long before upstream has sent the last."""
        blob = self.blob(2 * MiB, Turn(rate=2 * MiB))
        response = self.get(blob)
        self.assertEqual(response.take(KiB), blob.content[:KiB])
        (request,) = self.requests(blob)
        self.assertLess(request.bytes, MiB)
        self.assert_whole(response.finish(), blob)

    def test_late_follower(self) -> None:
        """Who joins in the middle gets what is on disk at once, then the rest."""
        blob = self.blob(2 * MiB, Turn(rate=2 * MiB))
        leader = self.get(blob)
        leader.take(MiB)
        follower = self.get(blob)
        self.assertIn("collapsed", follower.headers["Cache-Status"])
        self.assertEqual(follower.take(MiB // 2), blob.content[: MiB // 2])
        self.assertLess(self.requests(blob)[0].bytes, 2 * MiB)
        for response in (leader, follower):
            self.assert_whole(response.finish(), blob)
        self.assertEqual(len(self.requests(blob)), 1)

    def test_leader_leaves(self) -> None:
        """The others do not notice."""
        blob = self.blob(2 * MiB, Turn(rate=2 * MiB))
        leader = self.get(blob)
        leader.take(KiB)

        def leave() -> Outcome | None:
            leader.take(MiB // 2)
            leader.close()
            return None

        leader_left, *outcomes = together([leave] + [partial(self.fetch, blob)] * 5)
        self.assertIsNone(leader_left)
        for outcome in outcomes:
            assert outcome is not None
            self.assert_whole(outcome, blob)
        self.assertEqual(len(self.requests(blob)), 1)

    def test_slow_reader(self) -> None:
        """Who does not read slows nobody down, and gets the right bytes later."""
        blob = self.blob(16 * MiB)
        slow = self.client.get(blob.host, blob.path, small_window=True)
        self.assert_whole(self.fetch(blob), blob)
        self.wait_for(self.proxy.stored(blob.digest).exists)
        self.assert_whole(slow.finish(), blob)
        self.assertEqual(len(self.requests(blob)), 1)


class AbandonedTests(FaultTestCase):
    """All clients leave. What is small, or more than half done, is fetched to its end."""

    def abandon(self, size: int, leave_at: int) -> None:
        """Have three clients leave a transfer of *size* bytes in the middle."""
        blob = self.abandoned = self.blob(size, Turn(rate=3 * MiB), Turn())
        responses = [self.get(blob) for _ in range(3)]
        for response in responses:
            response.take(leave_at)
        for response in responses:
            response.close()

    def test_finished(self) -> None:
        """By default that is what happens, and the next client finds the content here."""
        self.abandon(2 * MiB, MiB // 2)
        blob = self.abandoned
        self.wait_for(self.proxy.stored(blob.digest).exists)
        self.wait_for(lambda: not self.proxy.partial_files(blob.digest))
        self.assert_whole(self.fetch(blob), blob)
        (request,) = self.requests(blob)
        self.assertEqual(request.bytes, len(blob.content))

    def test_large(self) -> None:
        """Above ``finish_abandoned``, with less than half here, it ends and leaves no file."""
        self.new_proxy(cache={"finish_abandoned": "1MiB"})
        self.abandon(8 * MiB, MiB // 2)
        blob = self.abandoned
        self.wait_for(lambda: self.requests(blob)[0].ended is not None)
        self.assertLess(self.requests(blob)[0].bytes, 4 * MiB)
        self.wait_for(lambda: not self.proxy.partial_files())
        self.assertFalse(self.proxy.stored(blob.digest).exists())
        self.assert_whole(self.fetch(blob), blob)

    def test_large_and_half_done(self) -> None:
        """Above ``finish_abandoned``, with more than half here, it goes on."""
        self.new_proxy(cache={"finish_abandoned": "1MiB"})
        self.abandon(3 * MiB, 2 * MiB)
        blob = self.abandoned
        self.wait_for(self.proxy.stored(blob.digest).exists)
        self.wait_for(lambda: not self.proxy.partial_files())
        self.assertEqual(len(self.requests(blob)), 1)
