"""Herds and kills in numbers that are too many for every run, with figures: ``make soak``.

The figures are printed, not judged: they say as much about the machine as about the proxy.
What is right and what is wrong is judged.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from functools import partial
from statistics import median
from threading import Barrier
from time import monotonic, process_time
from typing import Final

from tests.faults.test_crash import check_kills
from tests.faults.test_herd import PEAK
from tests.support.faults import PATIENT, Blob, FaultTestCase, MiB, together
from tests.support.plain_herd import fetch_at_once
from tests.support.process import free_port
from tests.support.proxy import ADDRESS
from tests.support.turns import End, Turn

_SIZE: Final = MiB
_STOP: Final = _SIZE // 2
# When the first byte and the last one came, on the monotonic clock.
Arrived = tuple[float, float]


class HerdSoak(FaultTestCase):
    """Clients that come at once for one cold blob, by CONNECT and TLS and by the plain mirror."""

    def check_herd(self, clients: int, size: int, rate: int) -> None:
        """*clients* for *size* bytes that upstream sends at *rate* bytes per second."""
        self.new_proxy(limits=PATIENT)
        blob = self.blob(size, Turn(rate=rate))
        barrier = Barrier(clients)

        def fetch() -> Arrived:
            barrier.wait()
            outcome = self.fetch(blob)
            self.assert_whole(outcome, blob)
            assert outcome.first is not None
            return outcome.first, outcome.ended

        calls: list[Callable[[], Arrived]] = [fetch] * clients
        self.report("TLS", blob, rate, partial(together, calls))

    def check_plain_herd(self, clients: int, size: int, rate: int) -> None:
        """The same by the mirror, which is all that one core needs for two hundred."""
        port = free_port()
        self.new_proxy(limits=PATIENT, mirror={"listen": [f"tcp:{port}:interface={ADDRESS}"]})
        blob = self.blob(size, Turn(rate=rate))
        target = blob.path.replace("/v2/", f"/v2/{blob.host}/", 1)

        def fetch_all() -> list[Arrived]:
            arrivals = fetch_at_once((ADDRESS, port), target, blob.content, clients)
            return [(each.first or 0.0, each.ended or 0.0) for each in arrivals]

        self.report("mirror", blob, rate, fetch_all)

    def report(
        self, way: str, blob: Blob, rate: int, fetch_all: Callable[[], list[Arrived]]
    ) -> None:
        """Say how a herd fared; one transfer was enough, and memory did not grow with it."""
        begun, own_cpu, cpu = monotonic(), process_time(), self.proxy.cpu()
        arrived = fetch_all()
        own_cpu, cpu = process_time() - own_cpu, self.proxy.cpu() - cpu
        size = len(blob.content)
        (request,) = self.requests(blob)
        self.assertEqual(request.bytes, size)
        self.assertLess(self.proxy.peak(), PEAK)
        assert request.first is not None and request.ended is not None
        firsts = [first for first, _ in arrived]
        own = request.ended - request.first
        took = max(ended for _, ended in arrived) - request.first
        print(
            f"\n{len(arrived)} clients, {way}, {size // MiB} MiB at {rate // MiB} MiB/s:"
            f" upstream's first byte after {request.first - begun:.2f} s, the clients' at the"
            f" median {median(firsts) - request.first:.2f} s and at the last"
            f" {max(firsts) - request.first:.2f} s later; upstream took {own:.2f} s"
            f" (at best {size / rate:.2f} s), all clients {took:.2f} s ({took / own:.3f}x);"
            f" processor time: proxy {cpu:.1f} s, clients {own_cpu:.1f} s;"
            f" peak {self.proxy.peak() / MiB:.0f} MiB"
        )

    def test_two_hundred(self) -> None:
        """Many clients."""
        self.check_herd(200, 16 * MiB, 4 * MiB)

    def test_twenty(self) -> None:
        """Many bytes."""
        self.check_herd(20, 256 * MiB, 25 * MiB)

    def test_two_hundred_plain(self) -> None:
        """Many clients of the mirror."""
        self.check_plain_herd(200, 16 * MiB, 4 * MiB)

    def test_twenty_plain(self) -> None:
        """Many bytes by the mirror."""
        self.check_plain_herd(20, 256 * MiB, 25 * MiB)


class CrashSoak(FaultTestCase):
    """SIGKILL in the middle of transfers."""

    def test_kill(self) -> None:
        """Again and again and again."""
        print(f"\nthe longest start took {check_kills(self, 200):.1f} s")


class HopelessSoak(FaultTestCase):
    """Upstream never gets well. The clients are told in time, and nothing is served of it."""

    def test_given_up(self) -> None:
        """Whatever it is that goes on for ever."""
        turns = {
            "truncated": [Turn(stop=_STOP)],
            "reset": [Turn(stop=_STOP, end=End.RESET)],
            "stall": [Turn(stop=_STOP, end=End.STALL)],
            "drip": [Turn(rate=1)],
            "announced too much": [Turn(announced=_SIZE + 1000)],
            "errors": [Turn(stop=_STOP), Turn(status=503)],
            "refusals": [Turn(stop=_STOP), Turn(status=404)],
        }
        blobs = {name: self.blob(_SIZE, *each) for name, each in turns.items()}
        outcomes = together(partial(self.fetch, blob) for blob in blobs.values())
        for (name, blob), outcome in zip(blobs.items(), outcomes, strict=True):
            with self.subTest(upstream=name):
                self.assert_cut(outcome)
                self.assertFalse(self.proxy.stored(blob.digest).exists())
                self.assertLessEqual(len(self.requests(blob)), 8)
        self.assert_serves()


class NamesSoak(FaultTestCase):
    """Clients of the TLS listener that ask for ever other names."""

    def test_ten_thousand(self) -> None:
        """Half of them are served and half refused; what is kept of them is bounded."""
        port = free_port()
        proxy = self.new_proxy(
            tls={"listen": [f"tcp:{port}:interface={ADDRESS}"]},
            interception={"hosts": ["*.served.example.test"]},
        )
        context = ssl.create_default_context(cafile=str(proxy.ca_file))

        def visit(number: int) -> None:
            name = f"n{number}.{'served' if number % 2 else 'other'}.example.test"
            with socket.create_connection((ADDRESS, port), timeout=30) as connection:
                if number % 2:
                    context.wrap_socket(connection, server_hostname=name).close()
                else:
                    with self.assertRaisesRegex(ssl.SSLError, "(?i)unrecognized.name"):
                        context.wrap_socket(connection, server_hostname=name)

        # As many certificates as are kept, and the memory that they leave in pieces.
        for number in range(5_000):
            visit(number)
        proxy.reset_peak()
        before, begun, cpu = proxy.peak(), monotonic(), proxy.cpu()
        for number in range(5_000, 15_000):
            visit(number)
        grown = proxy.peak() - before
        print(
            f"\n10,000 names in {monotonic() - begun:.1f} s, {proxy.cpu() - cpu:.1f} s of the"
            f" proxy's processor time; {grown / MiB:.1f} MiB more than at the beginning"
        )
        self.assertLess(grown, 8 * MiB)
        self.assert_serves()
