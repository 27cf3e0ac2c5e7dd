"""Run the tests under trial, then say in plain lines what happened.

``python -m tests.run [name ...]`` is ``trial [name ...]`` with a verdict that hides
nothing: what was skipped is named, a run without a test is a failure, and where
``CI=true`` a skipped test is one too.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TextIO

from attrs import frozen
from twisted.trial.itrial import ITestCase
from twisted.trial.reporter import TreeReporter
from twisted.trial.runner import TestLoader, TrialRunner

ROOT: Final = Path(__file__).resolve().parent.parent


@frozen
class Summary:
    """What came of a run.

    Attributes:
        skipped: how many tests were skipped, for each (module, reason).
        interrupted: the run was stopped before its end.
    """

    passed: int
    failed: int
    skipped: Counter[tuple[str, str]]
    interrupted: bool = False

    @classmethod
    def of(cls, result: TreeReporter) -> Summary:
        """Count *result*: a "todo" that passes has failed, one that fails was skipped."""
        undone = [(test, str(reason)) for test, reason in result.skips]
        undone += [(test, f"todo: {todo.reason}") for test, _, todo in result.expectedFailures]
        return cls(
            passed=result.successes,
            failed=len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses),
            skipped=Counter((_module(test), reason) for test, reason in undone),
            interrupted=result.shouldStop,
        )

    def good(self, *, may_skip: bool) -> bool:
        """Whether the run was a success."""
        if self.failed or self.interrupted or not self.passed:
            return False
        return may_skip or not self.skipped

    def lines(self) -> list[str]:
        """The verdict; the last line holds the counts, one before it names what was skipped."""
        lines = []
        if self.skipped:
            named = "; ".join(
                f"{module} ({count}: {reason})"
                for (module, reason), count in sorted(self.skipped.items())
            )
            lines.append(f"skipped: {named} -- to run them: make e2e-deps, as root")
        total = self.skipped.total()
        lines.append(f"{self.passed} passed, {self.failed} failed, {total} skipped")
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


def main() -> int:
    """The command: 0 when all is well, 1 when not."""
    summary = run(sys.argv[1:] or ["tests"], ROOT / "_trial_temp", sys.stdout)
    print(*summary.lines(), sep="\n")
    return 0 if summary.good(may_skip=os.environ.get("CI") != "true") else 1


if __name__ == "__main__":
    sys.exit(main())
