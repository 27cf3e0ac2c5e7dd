"""The command: ``python -m bench [--runs N] [--tiny] [--json FILE] [CASE ...]``."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from bench import case as cases
from bench import table
from bench.cases import CASES
from bench.machine import Cores
from bench.setting import FULL, TINY, Setting

# Medians of fewer say little.
_RUNS = 5


def main() -> int:
    """Run the cases that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--runs", type=int, default=_RUNS, help="of each contestant")
    parser.add_argument("--tiny", action="store_true", help="small sizes: does it work?")
    options = parser.parse_args()
    unknown = [name for name in options.cases if name not in CASES]
    if unknown:
        parser.error(f"no such case: {', '.join(unknown)}; there are {', '.join(CASES)}")
    cores = Cores.of_this_machine()
    # Clients and upstreams inherit it; servers are put elsewhere.
    os.sched_setaffinity(0, {cores.client})
    for name in options.cases or CASES:
        with tempfile.TemporaryDirectory(prefix="bench-") as directory:
            setting = Setting(Path(directory), TINY if options.tiny else FULL, cores)
            samples = cases.run(CASES[name], setting, options.runs)
        print(*table.lines(CASES[name], samples), "", sep="\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
