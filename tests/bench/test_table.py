"""What tables say."""

from __future__ import annotations

from contextlib import nullcontext

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from bench.case import Case, Figure, at_least, at_most
from bench.results import Results
from bench.table import markdown, text

CASE = Case(
    name="race",
    title="a race",
    figures=(Figure("rate", "throughput", "MB/s", 0), Figure("wait", "first byte", "s", 3)),
    targets=(at_least("rate", 1.0, of="nginx"), at_most("wait", 0.1)),
    begin=lambda setting: nullcontext({}),
)
SAMPLES = {
    "regproxy": [{"rate": 1500.4, "wait": 0.0204}, {"rate": 1500.4, "wait": 0.0204}],
    "nginx": [{"rate": 2000.0}, {"rate": 2000.0}],
}


class TableTests(SynchronousTestCase):
    """One target that is missed, and one that is reached."""

    maxDiff = None

    def test_text(self) -> None:
        self.assertEqual(
            text(CASE, SAMPLES),
            [
                "a race",
                "  throughput, MB/s   regproxy 1,500     nginx 2,000",
                "  first byte, s      regproxy 0.020",
                "  throughput at least 1 x nginx: 0.75, missed: 25 % under",
                "  first byte at most 0.1 s: 0.0204, reached",
            ],
        )

    def test_runs_that_differ(self) -> None:
        """What is within the noise is shown as such."""
        samples = {"regproxy": [{"wait": wait, "rate": 1} for wait in (0.05, 0.09, 0.2)]}
        case = evolve(CASE, targets=CASE.targets[1:])
        self.assertEqual(
            text(case, samples)[-1],
            "  first byte at most 0.1 s: 0.09 (0.05 to 0.2), reached; runs differ",
        )

    def test_markdown(self) -> None:
        """Cases that were not run are named, too."""
        results = Results("2031-05-06", {}, {}, {"race": SAMPLES})
        lines = markdown(results, {"other": evolve(CASE, title="another race"), "race": CASE})
        self.assertEqual(
            lines[2:],
            [
                "| another race |  |  |  |  | not measured |",
                "| a race (2 runs) | throughput, MB/s | 1,500 | nginx 2,000"
                " | at least 1 x nginx | 0.75, missed: 25 % under |",
                "|  | first byte, s | 0.020 |  | at most 0.1 s | 0.0204, reached |",
            ],
        )
