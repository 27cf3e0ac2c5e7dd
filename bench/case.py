"""What a benchmark is, as data: what it measures, and what has to be reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from enum import Enum
from statistics import median
from typing import Final

from attrs import field, frozen

from bench.setting import Setting

#: The figures of one run of one contestant, by the names of figures.
Sample = dict[str, float]
#: Measures one run, for each contestant.
Contestants = Mapping[str, Callable[[], Sample]]
#: The samples of all runs, for each contestant.
Samples = Mapping[str, list[Sample]]

#: The contestant that this is all about.
SUBJECT: Final = "regproxy"


class Bound(Enum):
    """On which side of its limit a figure has to be."""

    AT_MOST = "at most"
    AT_LEAST = "at least"


@frozen
class Figure:
    """Something that is measured.

    Attributes:
        digits: how many are shown after the point.
    """

    name: str
    label: str
    unit: str
    digits: int = 2

    def show(self, value: float) -> str:
        """*value* as people read it."""
        return f"{value:,.{self.digits}f}"


@frozen
class Target:
    """What a figure of the subject has to reach.

    Attributes:
        of: the contestant whose figure is the measure; None for an absolute *limit*.
        contestant: whose figure it is.
    """

    figure: str
    bound: Bound
    limit: float
    of: str | None = None
    contestant: str = SUBJECT

    def all_found(self, samples: Samples) -> list[float]:
        """Of each run the figure, or its ratio to the other one's.

        The runs alternate, so that each ratio is of two that were measured one after the other.
        """
        mine = [sample[self.figure] for sample in samples[self.contestant]]
        if self.of is None:
            return mine
        others = [sample[self.figure] for sample in samples[self.of]]
        return [mine / other for mine, other in zip(mine, others, strict=True)]

    def found(self, samples: Samples) -> float:
        """The median over all runs."""
        return median(self.all_found(samples))

    def unsettled(self, samples: Samples) -> bool:
        """Whether some runs are on the one side of the limit and some on the other."""
        found = self.all_found(samples)
        return min(found) <= self.limit <= max(found) and min(found) < max(found)

    def reached(self, samples: Samples) -> bool:
        """Whether it is."""
        found = self.found(samples)
        return found <= self.limit if self.bound is Bound.AT_MOST else found >= self.limit

    def missed_by(self, samples: Samples) -> float:
        """By which part of the limit the figure is on the wrong side of it; 0 when it is not."""
        if self.reached(samples):
            return 0.0
        return abs(self.found(samples) - self.limit) / self.limit


def at_most(
    figure: str, limit: float, *, of: str | None = None, contestant: str = SUBJECT
) -> Target:
    """A target from above."""
    return Target(figure, Bound.AT_MOST, limit, of, contestant)


def at_least(figure: str, limit: float, *, of: str | None = None) -> Target:
    """A target from below."""
    return Target(figure, Bound.AT_LEAST, limit, of)


@frozen
class Case:
    """One benchmark.

    Attributes:
        name: on the command line.
        title: in the table.
        begin: starts what takes part and stops it at the end; all is warm in between.
    """

    name: str
    title: str
    figures: tuple[Figure, ...]
    targets: tuple[Target, ...]
    begin: Callable[[Setting], AbstractContextManager[Contestants]] = field(repr=False)


def run(case: Case, setting: Setting, runs: int) -> dict[str, list[Sample]]:
    """Measure all contestants of *case*, one after the other, as often as *runs* says."""
    with case.begin(setting) as contestants:
        samples: dict[str, list[Sample]] = {name: [] for name in contestants}
        for _ in range(runs):
            for name, measure in contestants.items():
                samples[name].append(measure())
    return samples


CPU_PER_GIB: Final = Figure("cpu_per_gib", "CPU of the server", "s/GiB")
RATE: Final = Figure("rate", "throughput", "MB/s", 0)
CLIENT: Final = Figure("client", "clients' core busy", "%", 0)
