"""The command: ``python -m bench [--runs N] [--tiny] [--json FILE] [CASE ...]``."""

from __future__ import annotations

import argparse
import os
import pstats
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
_PROFILE_LINES = 40


def main() -> int:
    """Run the cases that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--runs", type=int, default=_RUNS, help="of each contestant")
    parser.add_argument("--tiny", action="store_true", help="small sizes: does it work?")
    parser.add_argument("--profile", action="store_true", help="show where regproxy's time goes")
    options = parser.parse_args()
    unknown = [name for name in options.cases if name not in CASES]
    if unknown:
        parser.error(f"no such case: {', '.join(unknown)}; there are {', '.join(CASES)}")
    cores = Cores.of_this_machine()
    # Clients and upstreams inherit it; servers are put elsewhere.
    os.sched_setaffinity(0, {cores.client})
    for name in options.cases or CASES:
        with tempfile.TemporaryDirectory(prefix="bench-") as directory:
            profile = Path(directory, "profile") if options.profile else None
            scale = TINY if options.tiny else FULL
            setting = Setting(Path(directory), scale, cores, profile)
            samples = cases.run(CASES[name], setting, options.runs)
            if profile is not None:
                pstats.Stats(str(profile)).sort_stats("tottime").print_stats(_PROFILE_LINES)
        print(*table.lines(CASES[name], samples), "", sep="\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
