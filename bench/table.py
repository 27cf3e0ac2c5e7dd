"""Results as tables: for a terminal, and for the documentation."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from bench.case import SUBJECT, Bound, Case, Figure, Samples, Target
from bench.results import Results


def text(case: Case, samples: Samples) -> list[str]:
    """The lines for a terminal: the title, the figures side by side, the targets."""
    labels = {figure.name: _label(figure) for figure in case.figures}
    width = max(map(len, labels.values()))
    shown = [case.title]
    for figure in case.figures:
        cells = (f"{name} {value:<8}" for name, value in _medians(figure, samples).items())
        shown.append(f"  {labels[figure.name]:<{width}}   {'  '.join(cells)}".rstrip())
    for target in case.targets:
        shown.append(f"  {_demand(case, target)}: {_verdict(target, samples)}")
    return shown


def markdown(results: Results, cases: dict[str, Case]) -> list[str]:
    """The lines for the documentation: one row for each figure."""
    shown = [
        "| case | figure | regproxy | beside it | must be | |",
        "|---|---|---:|---|---|---|",
    ]
    for name, case in cases.items():
        if name in results.cases:
            shown += _rows(case, results.cases[name])
        else:
            shown.append(f"| {case.title} |  |  |  |  | not measured |")
    return shown


def _rows(case: Case, samples: Samples) -> Iterator[str]:
    runs = max(map(len, samples.values()))
    title = f"{case.title} ({runs} {'run' if runs == 1 else 'runs'})"
    for figure in case.figures:
        found = _medians(figure, samples)
        mine = found.pop(SUBJECT, "")
        others = ", ".join(f"{name} {value}" for name, value in found.items())
        targets = [target for target in case.targets if target.figure == figure.name]
        demands = "; ".join(_bound(figure, target) for target in targets)
        verdicts = "; ".join(_verdict(target, samples) for target in targets)
        yield f"| {title} | {_label(figure)} | {mine} | {others} | {demands} | {verdicts} |"
        title = ""


def _label(figure: Figure) -> str:
    return f"{figure.label}, {figure.unit}" if figure.unit else figure.label


def _medians(figure: Figure, samples: Samples) -> dict[str, str]:
    """The median of each contestant that has this figure, as text."""
    return {
        name: figure.show(median(sample[figure.name] for sample in runs))
        for name, runs in samples.items()
        if all(figure.name in sample for sample in runs)
    }


def _demand(case: Case, target: Target) -> str:
    figure = next(each for each in case.figures if each.name == target.figure)
    return f"{figure.label} {_bound(figure, target)}"


def _bound(figure: Figure, target: Target) -> str:
    measure = figure.unit if target.of is None else f"x {target.of}"
    return f"{target.bound.value} {target.limit:g} {measure}".rstrip()


def _verdict(target: Target, samples: Samples) -> str:
    """What was found, in the median and in all runs, and whether that is enough."""
    found, runs = target.found(samples), target.all_found(samples)
    shown = f"{found:.3g}"
    if min(runs) < max(runs):
        shown += f" ({min(runs):.3g} to {max(runs):.3g})"
    if target.reached(samples):
        shown += ", reached"
    else:
        side = "over" if target.bound is Bound.AT_MOST else "under"
        shown += f", missed: {100 * target.missed_by(samples):.0f} % {side}"
    return f"{shown}; runs differ" if target.unsettled(samples) else shown
