"""The test runner's verdict."""

from __future__ import annotations

from collections import Counter
from io import StringIO
from pathlib import Path

from twisted.trial.reporter import TreeReporter
from twisted.trial.unittest import SynchronousTestCase, TestDecorator, Todo, makeTodo

from tests.run import ROOT, Summary, lanes

NO_SKIP: Counter[tuple[str, str]] = Counter()
NAME = "tests.test_run.Sample.nothing"


class Sample(SynchronousTestCase):
    """Something to report on; not run by itself."""

    def nothing(self) -> None:
        """Do nothing."""


def reporter() -> TreeReporter:
    return TreeReporter(StringIO())


def failure() -> tuple[type[BaseException], BaseException, None]:
    return AssertionError, AssertionError("sample"), None


class SummaryOfTests(SynchronousTestCase):
    """Counting what trial reports."""

    def setUp(self) -> None:
        self.result = reporter()
        # Wrapped, as trial wraps what it runs.
        self.sample = TestDecorator(Sample("nothing"))
        self.todo: Todo = makeTodo("later")

    def test_success(self) -> None:
        self.result.addSuccess(self.sample)
        self.assertEqual(Summary.of(self.result), Summary(1, (), NO_SKIP))

    def test_failure_and_error(self) -> None:
        self.result.addFailure(self.sample, failure())
        self.result.addError(self.sample, failure())
        self.assertEqual(Summary.of(self.result), Summary(0, (NAME, NAME), NO_SKIP))

    def test_skips_are_named(self) -> None:
        self.result.addSkip(self.sample, "no podman")
        self.result.addSkip(self.sample, "no podman")
        expected = Counter({("tests.test_run", "no podman"): 2})
        self.assertEqual(Summary.of(self.result), Summary(0, (), expected))

    def test_todo(self) -> None:
        self.result.addExpectedFailure(self.sample, failure(), self.todo)
        self.result.addUnexpectedSuccess(self.sample, self.todo)
        summary = Summary.of(self.result)
        self.assertEqual(
            summary, Summary(0, (NAME,), Counter({("tests.test_run", "todo: later"): 1}))
        )

    def test_interrupted(self) -> None:
        self.result.addSuccess(self.sample)
        self.result.stop()
        self.assertFalse(Summary.of(self.result).good(may_skip=True))


class SummaryTests(SynchronousTestCase):
    """The verdict and its lines."""

    def test_good(self) -> None:
        self.assertTrue(Summary(3, (), NO_SKIP).good(may_skip=False))

    def test_failure_is_not_good(self) -> None:
        self.assertFalse(Summary(3, (NAME,), NO_SKIP).good(may_skip=True))

    def test_nothing_run_is_not_good(self) -> None:
        self.assertFalse(Summary(0, (), NO_SKIP).good(may_skip=True))

    def test_skip_is_good_only_where_allowed(self) -> None:
        summary = Summary(3, (), Counter({("tests.e2e.test_podman", "no podman"): 2}))
        self.assertTrue(summary.good(may_skip=True))
        self.assertFalse(summary.good(may_skip=False))

    def test_lines_without_skips(self) -> None:
        self.assertEqual(Summary(3, (), NO_SKIP).lines(), ["3 passed, 0 failed, 0 skipped"])

    def test_lines_name_what_failed_and_what_was_skipped(self) -> None:
        skipped = Counter({("tests.b", "no docker"): 1, ("tests.a", "no podman"): 2})
        self.assertEqual(
            Summary(3, (NAME,), skipped).lines(),
            [
                f"failed: {NAME}",
                "skipped: tests.a (2: no podman); tests.b (1: no docker)"
                " -- to run them: make e2e-deps, as root",
                "3 passed, 1 failed, 3 skipped",
            ],
        )

    def test_sum(self) -> None:
        one = Summary(3, ("tests.a.T.test",), Counter({("tests.a", "no podman"): 1}))
        other = Summary(
            2, ("tests.b.T.test",), Counter({("tests.a", "no podman"): 2}), interrupted=True
        )
        expected = Summary(
            5,
            ("tests.a.T.test", "tests.b.T.test"),
            Counter({("tests.a", "no podman"): 3}),
            interrupted=True,
        )
        self.assertEqual(one + other, expected)


class LaneTests(SynchronousTestCase):
    """What runs beside what."""

    def test_every_test_is_on_one_lane(self) -> None:
        modules = {
            ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for path in (ROOT / "tests").rglob("test_*.py")
        }
        names = [name for lane in lanes(ROOT / "tests") for name in lane]
        for module in modules:
            covering = [name for name in names if f"{module}.".startswith(f"{name}.")]
            self.assertEqual(len(covering), 1, module)


class MakefileTests(SynchronousTestCase):
    """The remedy that the verdict names exists."""

    def test_target(self) -> None:
        makefile = Path(__file__).parent.parent / "Makefile"
        self.assertIn("\ne2e-deps:", makefile.read_text())
