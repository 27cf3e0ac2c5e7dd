"""The table in the documentation: ``python -m bench.page [FILE]``.

FILE is what ``python -m bench --json FILE`` wrote; it becomes the one that the page shows.
Without it the page is written anew from the one that it shows already.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Final

from bench import table
from bench.cases import CASES
from bench.results import Results

_REFERENCE: Final = Path(__file__).resolve().parent.parent / "docs" / "reference"
PAGE: Final = _REFERENCE / "benchmarks.md"
DATA: Final = _REFERENCE / "benchmarks.json"
_BEGIN: Final = "<!-- What follows is written by python -m bench.page -->"
_END: Final = "<!-- What is above is written by python -m bench.page -->"


def filled(page: str, results: Results) -> str:
    """*page* with the *results* in their place."""
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"the page has no place for the table: no {_BEGIN!r} with a {_END!r}")
    return "\n".join([f"{before}{begin}", "", *_written(results), "", f"{end}{after}"])


def _written(results: Results) -> list[str]:
    machine = "; ".join(results.machine.values())
    versions = ", ".join(f"{name} {number}" for name, number in results.versions.items())
    return [
        f"Measured on {results.date}, medians of all runs: {machine}.",
        f"{versions}.",
        "",
        *table.markdown(results, CASES),
    ]


def main() -> None:
    """The command."""
    if len(sys.argv) > 1:
        shutil.copyfile(sys.argv[1], DATA)
    PAGE.write_text(filled(PAGE.read_text(), Results.read(DATA)))


if __name__ == "__main__":
    main()
