"""SIGKILL in the middle of transfers."""

from __future__ import annotations

import hashlib
import random
from functools import partial
from time import monotonic, sleep
from typing import Final

from tests.support.faults import Blob, FaultTestCase, MiB, together
from tests.support.faulty_upstream import Turn
from tests.support.raw_client import Outcome

ROUNDS: Final = 20
#: Seconds that a start may take.
START: Final = 5.0


class CrashTests(FaultTestCase):
    """Whatever the moment: what is served is right, and what was fetched is of use."""

    def test_kill(self) -> None:
        """Again and again."""
        check_kills(self, ROUNDS)


def check_kills(case: FaultTestCase, rounds: int) -> None:
    """Kill a proxy of the test's own *rounds* times; go on where it was."""
    chance = random.Random(1)
    proxy = case.new_proxy()
    blobs: list[Blob] = []
    resumed = 0
    for _ in range(rounds):
        blob = case.blob(2 * MiB, Turn(rate=4 * MiB))
        small = case.blob(64 << 10)
        # From before the first byte to after the commit.
        delay = chance.uniform(0.0, 0.7)
        together(
            [partial(_leave, case, blob), partial(_leave, case, small)] * 2
            + [partial(_kill, case, delay)]
        )
        begun = monotonic()
        proxy.start()
        case.assertLess(monotonic() - begun, START)
        case.watch(proxy.process)
        for each in (blob, small):
            case.assert_whole(case.fetch(each), each)
        resumed += any(request.start > 0 for request in case.requests(blob))
        blobs += [blob, small]
    for path in (proxy.cache / "blobs").rglob("*"):
        if path.is_file():
            case.assertEqual(hashlib.sha256(path.read_bytes()).hexdigest(), path.name)
    for blob in blobs:
        before = len(case.requests(blob))
        case.assert_whole(case.fetch(blob), blob)
        case.assertEqual(len(case.requests(blob)), before)
    # Each kill in the middle of a body left a part to go on from.
    case.assertGreater(resumed, rounds // 4)
    case.wait_for(lambda: not proxy.partial_files())


def _leave(case: FaultTestCase, blob: Blob) -> Outcome | None:
    """Fetch as far as it goes."""
    try:
        outcome = case.fetch(blob)
    except OSError:
        return None
    if outcome.complete:
        case.assert_whole(outcome, blob)
    return outcome


def _kill(case: FaultTestCase, delay: float) -> None:
    sleep(delay)
    case.proxy.process.kill()
