"""Targets: what is compared with what, and when it is enough."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bench.case import Case, Contestants, Figure, Sample, Samples, at_least, at_most, run
from bench.setting import Setting


def samples(**values: list[float]) -> Samples:
    return {name: [{"speed": value} for value in runs] for name, runs in values.items()}


class TargetTests(SynchronousTestCase):
    """``Target``."""

    def test_ratio_of_runs(self) -> None:
        """Each run is compared with the one beside it: a slow hour for both changes nothing."""
        found = samples(regproxy=[1, 10, 100], nginx=[2, 20, 400])
        self.assertEqual(at_most("speed", 0.5, of="nginx").found(found), 0.5)

    def test_absolute(self) -> None:
        self.assertEqual(at_most("speed", 1).found(samples(regproxy=[3, 1, 2])), 2)

    def test_at_most(self) -> None:
        target = at_most("speed", 80)
        for value, reached, missed_by in ((79, True, 0), (80, True, 0), (100, False, 0.25)):
            found = samples(regproxy=[value])
            self.assertEqual(target.reached(found), reached, value)
            self.assertEqual(target.missed_by(found), missed_by, value)

    def test_at_least(self) -> None:
        target = at_least("speed", 0.5, of="nginx")
        for value, reached, missed_by in ((6, True, 0), (5, True, 0), (4, False, 0.2)):
            found = samples(regproxy=[value], nginx=[10])
            self.assertEqual(target.reached(found), reached, value)
            self.assertAlmostEqual(target.missed_by(found), missed_by, msg=value)

    def test_unsettled(self) -> None:
        """Runs on both sides of the limit say that it may be chance."""
        target = at_most("speed", 10)
        for values, unsettled in (([8, 9], False), ([9, 11], True), ([11, 12], False)):
            found = samples(regproxy=list(map(float, values)))
            self.assertEqual(target.unsettled(found), unsettled, values)


class RunTests(SynchronousTestCase):
    """``run``."""

    def test_alternates(self) -> None:
        """The contestants take turns, between the beginning and the end of the case."""
        happened: list[str] = []

        def measuring(name: str) -> Sample:
            happened.append(name)
            return {"speed": len(happened)}

        @contextmanager
        def begin(setting: Setting) -> Iterator[Contestants]:
            happened.append("begin")
            yield {"a": lambda: measuring("a"), "b": lambda: measuring("b")}
            happened.append("end")

        case = Case("race", "a race", (Figure("speed", "speed", "m/s"),), (), begin)
        found = run(case, Setting(Path()), runs=2)
        self.assertEqual(happened, ["begin", "a", "b", "a", "b", "end"])
        self.assertEqual(found, samples(a=[2, 4], b=[3, 5]))
