"""Parts of a blob that is still on its way."""

from __future__ import annotations

from functools import partial

from tests.support.faults import Blob, FaultTestCase, KiB, MiB, together
from tests.support.raw_client import Outcome
from tests.support.turns import Entry, Turn

CHUNK = 2 * MiB


class RangeTests(FaultTestCase):
    """206 for a cold blob."""

    def assert_part(self, outcome: Outcome, blob: Blob, start: int, end: int) -> None:
        """The bytes from *start* to *end* (exclusive), and said so."""
        self.assertEqual((outcome.status, outcome.complete), (206, True))
        self.assertEqual(
            outcome.headers["Content-Range"], f"bytes {start}-{end - 1}/{len(blob.content)}"
        )
        part = Blob(blob.host, blob.path, blob.content[start:end])
        self.assertEqual((outcome.size, outcome.digest), (end - start, part.digest))

    def test_first_request(self) -> None:
        """A range is what begins it all; the whole blob is stored in the end."""
        size = 2 * MiB
        blob = self.blob(size, Turn(rate=4 * MiB))
        for wanted, start, end in (
            ("100-199", 100, 200),
            (f"{size - 100}-", size - 100, size),
            ("-100", size - 100, size),
        ):
            self.assert_part(self.fetch(blob, {"Range": f"bytes={wanted}"}), blob, start, end)
        self.wait_for(self.proxy.stored(blob.digest).exists)
        self.assertEqual(sum(entry.bytes for entry in self.requests(blob)), size)

    def test_near(self) -> None:
        """Not far ahead of the transfer: its bytes are waited for."""
        blob = self.blob(2 * MiB, Turn(rate=2 * MiB))
        leader = self.get(blob)
        leader.take(KiB)
        response = self.get(blob, {"Range": f"bytes={MiB}-"})
        self.assertEqual(response.status, 206)
        self.assertLess(self.requests(blob)[0].bytes, MiB)
        self.assert_part(response.finish(), blob, MiB, 2 * MiB)
        self.assert_whole(leader.finish(), blob)
        self.assertEqual(len(self.requests(blob)), 1)

    def test_far(self) -> None:
        """Far ahead of it: they are there before the transfer is, by a request of their own."""
        size, far = 16 * MiB, 12 * MiB
        blob = self.blob(size, Turn(rate=8 * MiB))
        leader = self.get(blob)
        leader.take(KiB)
        response = self.get(blob, {"Range": f"bytes={far}-"})
        self.assertEqual(response.status, 206)
        self.assertEqual(response.take(64 * KiB), blob.content[far : far + 64 * KiB])
        main, *others = self.requests(blob)
        self.assertLess(main.bytes, far)
        self.assertIsNone(main.range)
        self.assertEqual([other.start for other in others], [far])
        response.close()
        self.assert_whole(leader.finish(), blob)
        self.assertLess(sum(entry.bytes for entry in self.requests(blob)), size + 5 * MiB)

    def test_far_on_a_server_without_ranges(self) -> None:
        """Its 200 brings nothing that the transfer does not: right bytes all the same, later."""
        size, far = 16 * MiB, 12 * MiB
        blob = self.blob(size, Turn(rate=16 * MiB, ranges=False))
        leader = self.get(blob)
        leader.take(KiB)
        outcome = self.fetch(blob, {"Range": f"bytes={far}-{far + KiB - 1}"})
        self.assert_part(outcome, blob, far, far + KiB)
        self.assert_whole(leader.finish(), blob)

    def test_far_and_wrong(self) -> None:
        """Wrong bytes of such a request are in no complete response, and nothing is kept."""
        size, far = 12 * MiB, 10 * MiB
        blob = self.blob(size, Turn(rate=8 * MiB), Turn(flip=far + 10))
        leader = self.get(blob)
        leader.take(KiB)
        part = self.fetch(blob, {"Range": f"bytes={far}-{far + KiB - 1}"})
        whole = leader.finish()
        if len(self.requests(blob)) > 1:
            self.assert_cut(part)
            self.assert_cut(whole)
            self.assert_not_stored(blob)
        else:
            self.assert_whole(whole, blob)


class ContainerdTests(FaultTestCase):
    """Open-ended ranges side by side, each closed after one chunk, as containerd 2.1 asks."""

    def test_parallel(self) -> None:
        """The bytes are right, and upstream sends little more than the content once."""
        size = 24 * MiB
        blob = self.blob(size, Turn(rate=8 * MiB))

        def chunk(start: int) -> bytes:
            response = self.get(blob, {"Range": f"bytes={start}-"})
            self.assertEqual(response.status, 206)
            try:
                return response.take(CHUNK)
            finally:
                response.close()

        starts = range(0, size, CHUNK)
        for start, taken in zip(
            starts, together(partial(chunk, start) for start in starts), strict=True
        ):
            self.assertTrue(taken == blob.content[start : start + CHUNK], f"chunk at {start}")
        self.wait_for(self.proxy.stored(blob.digest).exists)
        requests = self.requests(blob)
        self.assertLess(sum(entry.bytes for entry in requests), size * 5 // 4, _told(requests))
        self.assert_whole(self.fetch(blob), blob)


def _told(requests: list[Entry]) -> str:
    return "\n".join(f"{entry.range}: {entry.status}, {entry.bytes} bytes" for entry in requests)
