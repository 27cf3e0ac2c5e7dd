"""Run the tests under trial, then say in plain lines what happened.

``python -m tests.run [name ...]`` is ``trial [name ...]`` with a verdict that hides
nothing: what was skipped is named, a run without a test is a failure, and where
``CI=true`` a skipped test is one too. Without a name it runs all tests, on three lanes.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Final, TextIO

from attrs import frozen
from twisted.trial.itrial import ITestCase
from twisted.trial.reporter import TreeReporter
from twisted.trial.runner import TestLoader, TrialRunner

ROOT: Final = Path(__file__).resolve().parent.parent
#: Its tests wait for clients and servers most of the time: two halves of them run beside the rest.
WAITING: Final = "e2e"


@frozen
class Summary:
    """What came of a run.

    Attributes:
        failed: the names of the tests that failed.
        skipped: how many tests were skipped, for each (module, reason).
        interrupted: the run was stopped before its end.
    """

    passed: int
    failed: tuple[str, ...]
    skipped: Counter[tuple[str, str]]
    interrupted: bool = False

    @classmethod
    def of(cls, result: TreeReporter) -> Summary:
        """Count *result*: a "todo" that passes has failed, one that fails was skipped."""
        undone = [(test, str(reason)) for test, reason in result.skips]
        undone += [(test, f"todo: {todo.reason}") for test, _, todo in result.expectedFailures]
        broken = [test for test, _ in (*result.failures, *result.errors)]
        broken += [test for test, _ in result.unexpectedSuccesses]
        return cls(
            passed=result.successes,
            failed=tuple(test.id() for test in broken),
            skipped=Counter((_module(test), reason) for test, reason in undone),
            interrupted=result.shouldStop,
        )

    def __add__(self, other: Summary) -> Summary:
        """The summary of both runs."""
        return Summary(
            self.passed + other.passed,
            self.failed + other.failed,
            self.skipped + other.skipped,
            self.interrupted or other.interrupted,
        )

    def good(self, *, may_skip: bool) -> bool:
        """Whether the run was a success."""
        if self.failed or self.interrupted or not self.passed:
            return False
        return may_skip or not self.skipped

    def lines(self) -> list[str]:
        """The verdict: what failed, what was skipped, and in the last line the counts."""
        lines = [f"failed: {name}" for name in self.failed]
        if self.skipped:
            named = "; ".join(
                f"{module} ({count}: {reason})"
                for (module, reason), count in sorted(self.skipped.items())
            )
            lines.append(f"skipped: {named} -- to run them: make e2e-deps, as root")
        total = self.skipped.total()
        lines.append(f"{self.passed} passed, {len(self.failed)} failed, {total} skipped")
        return lines


def _module(test: ITestCase) -> str:
    """The module of *test*, by its name: trial wraps what it runs."""
    name: str = test.id()
    return name.rsplit(".", 2)[0]


def run(names: Sequence[str], directory: Path, stream: TextIO) -> Summary:
    """Run the tests of these modules, packages, classes or methods.

    Args:
        names: dotted names, as trial takes them.
        directory: becomes the current directory of the tests, emptied first.
        stream: where trial's report goes.
    """
    suite = TestLoader().loadByNames(list(names), recurse=True)
    runner = TrialRunner(TreeReporter, stream=stream, workingDirectory=str(directory))
    result = runner.run(suite)
    assert isinstance(result, TreeReporter)
    return Summary.of(result)


def lanes(tests: Path) -> list[list[str]]:
    """The names of all tests of the package in the directory *tests*, by lane."""
    waiting = _names(tests / WAITING, f"{tests.name}.{WAITING}")
    others = [name for name in _names(tests, tests.name) if name != f"{tests.name}.{WAITING}"]
    return [waiting[::2], waiting[1::2], others]


def _names(package: Path, name: str) -> list[str]:
    modules = [path.stem for path in package.glob("test_*.py")]
    packages = [path.parent.name for path in package.glob("*/__init__.py")]
    return [f"{name}.{each}" for each in sorted(modules + packages)]


def run_all() -> Summary:
    """Run all tests, each lane in a process of its own.

    Their reports are shown at the end: first the lanes where all is well, so that the
    last lines of a run that fails say why.
    """
    found = lanes(ROOT / "tests")
    with ProcessPoolExecutor(len(found), get_context("spawn")) as pool:
        futures = [
            pool.submit(run_lane, names, ROOT / f"_trial_temp.{number}", _report(number))
            for number, names in enumerate(found)
        ]
        summaries = [future.result() for future in futures]
    total = Summary(0, (), Counter())
    for number, summary in sorted(enumerate(summaries), key=lambda each: len(each[1].failed)):
        print(_report(number).read_text(), flush=True)
        total += summary
    return total


def run_lane(names: Sequence[str], directory: Path, report: Path) -> Summary:
    """Run one lane; its report goes to a file."""
    with report.open("w") as stream:
        return run(names, directory, stream)


def _report(number: int) -> Path:
    return ROOT / f"_trial_temp.{number}.report"


def main() -> int:
    """The command: 0 when all is well, 1 when not."""
    names = sys.argv[1:]
    summary = run(names, ROOT / "_trial_temp", sys.stdout) if names else run_all()
    print(*summary.lines(), sep="\n")
    return 0 if summary.good(may_skip=os.environ.get("CI") != "true") else 1


if __name__ == "__main__":
    sys.exit(main())
