"""SIGKILL in the middle of transfers."""

from __future__ import annotations

import hashlib
import random
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from tests.support.faults import PATIENT, Blob, FaultProxy, FaultTestCase, KiB, MiB, together
from tests.support.raw_client import Outcome
from tests.support.turns import Turn

#: Seconds of processor time that a start may take. How long that is, is up to the machine.
START: Final = 5.0
# Proxies that are killed side by side: most of the time goes into starting them.
_LANES: Final = 2


class CrashTests(FaultTestCase):
    """Whatever the moment: what is served is right, and what was fetched is of use."""

    def test_kill(self) -> None:
        """Again and again."""
        check_kills(self, 20)

    def test_resumed(self) -> None:
        """The next process goes on where the last one was."""
        proxy = self.new_proxy()
        size = 32 * MiB
        blob = self.blob(size, Turn(rate=32 * MiB), Turn())
        leader = self.get(blob)
        leader.take(size * 3 // 4)
        proxy.process.kill()
        leader.close()
        proxy.start()
        self.assert_whole(self.fetch(blob), blob)
        _, second = self.requests(blob)
        self.assertGreater(second.start, size // 4)
        self.assertEqual(second.bytes, size - second.start)
        self.wait_for(lambda: not proxy.partial_files())

    def test_damaged_part(self) -> None:
        """What is left of a transfer, and is not what it was: never served."""
        proxy = self.new_proxy()
        size = 32 * MiB
        blob = self.blob(size, Turn(rate=32 * MiB), Turn())
        leader = self.get(blob)
        leader.take(size * 3 // 4)
        proxy.process.kill()
        leader.close()
        for path in (proxy.cache / "fills").iterdir():
            _damage(path)
        proxy.start()
        outcome = self.fetch(blob)
        if outcome.complete:
            self.assert_whole(outcome, blob)
        self.assert_whole(self.fetch(blob), blob)
        self.wait_for(lambda: not proxy.partial_files())


def check_kills(case: FaultTestCase, kills: int) -> float:
    """Kill proxies *kills* times altogether, at every moment of a transfer.

    Returns:
        how many seconds the longest start has taken.
    """
    proxies = [case.new_proxy(limits=PATIENT) for _ in range(_LANES)]
    lanes = [_Lane(case, proxy, kills // _LANES, seed) for seed, proxy in enumerate(proxies)]
    return max(together(lane.run for lane in lanes))


class _Lane:
    """One proxy, killed and started again and again."""

    def __init__(self, case: FaultTestCase, proxy: FaultProxy, kills: int, seed: int) -> None:
        self._case = case
        self._proxy = proxy
        self._client = proxy.client
        self._kills = kills
        self._chance = random.Random(seed)

    def run(self) -> float:
        """Do it; how many seconds the longest start has taken."""
        case, proxy = self._case, self._proxy
        longest = 0.0
        blobs: list[Blob] = []
        for _ in range(self._kills):
            large = case.blob(2 * MiB, Turn(rate=4 * MiB), Turn())
            small = case.blob(64 * KiB)
            blobs += [large, small]
            clients = [partial(self._try, blob) for blob in (large, small)] * 2
            # From before the first byte to after the commit.
            together([*clients, partial(self._kill, self._chance.uniform(0.0, 0.6))])
            begun = monotonic()
            proxy.start()
            longest = max(longest, monotonic() - begun)
            case.assertLess(proxy.cpu(), START)
            for blob in (large, small):
                case.assert_whole(self._fetch(blob), blob)
        for path in (proxy.cache / "blobs").rglob("*"):
            if path.is_file():
                case.assertEqual(hashlib.sha256(path.read_bytes()).hexdigest(), path.name)
        for blob in blobs:
            before = len(case.requests(blob))
            case.assert_whole(self._fetch(blob), blob)
            case.assertEqual(len(case.requests(blob)), before)
        case.wait_for(lambda: not proxy.partial_files())
        return longest

    def _fetch(self, blob: Blob) -> Outcome:
        return self._client.get(blob.host, blob.path).finish()

    def _try(self, blob: Blob) -> None:
        """Fetch as far as it goes; what is complete is right."""
        try:
            outcome = self._fetch(blob)
        except OSError:
            return
        if outcome.complete:
            self._case.assert_whole(outcome, blob)

    def _kill(self, delay: float) -> None:
        sleep(delay)
        self._proxy.process.kill()


def _damage(path: Path) -> None:
    """Flip a bit in the middle of the file at *path*."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
