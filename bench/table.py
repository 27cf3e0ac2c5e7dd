"""Results as a table."""

from __future__ import annotations

from statistics import median

from bench.case import SUBJECT, Bound, Case, Figure, Samples, Target


def lines(case: Case, samples: Samples) -> list[str]:
    """What *case* brought: its title, its figures side by side, its targets."""
    width = max(len(name) for name in samples)
    shown = [case.title]
    for figure in case.figures:
        values = middles(figure, samples)
        cells = "   ".join(f"{name:>{width}} {value:>9}" for name, value in values.items())
        shown.append(
            f"  {figure.label + ', ' + figure.unit if figure.unit else figure.label:<36} {cells}"
        )
    shown += [f"  {verdict(case, target, samples)}" for target in case.targets]
    return shown


def middles(figure: Figure, samples: Samples) -> dict[str, str]:
    """The median of each contestant that has this figure, as text."""
    return {
        name: figure.show(median(sample[figure.name] for sample in runs))
        for name, runs in samples.items()
        if all(figure.name in sample for sample in runs)
    }


def demand(case: Case, target: Target) -> str:
    """What *target* wants."""
    figure = next(each for each in case.figures if each.name == target.figure)
    subject = "" if target.contestant == SUBJECT else f"{target.contestant}: "
    if target.of is not None:
        return f"{subject}{figure.label} {target.bound.value} {target.limit:g} x {target.of}"
    return f"{subject}{figure.label} {target.bound.value} {target.limit:g} {figure.unit}".rstrip()


def verdict(case: Case, target: Target, samples: Samples) -> str:
    """What it wants, what was found, and whether that is enough."""
    found = f"{demand(case, target)}: {target.found(samples):.3g}"
    if target.reached(samples):
        return f"{found}, reached"
    way = "over" if target.bound is Bound.AT_MOST else "under"
    return f"{found}, MISSED: {100 * target.missed_by(samples):.0f} % {way}"
