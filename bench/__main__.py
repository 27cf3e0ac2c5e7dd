"""The command: ``python -m bench [--runs N] [--tiny] [--profile] [--json FILE] [CASE ...]``."""

from __future__ import annotations

import argparse
import os
import pstats
import signal
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from bench import case, machine, results, table
from bench.cases import CASES
from bench.setting import FULL, TINY, Setting

# Medians of fewer say little.
_RUNS = 5
_PROFILE_LINES = 40


def main() -> int:
    """Run the cases that are asked for, one after the other."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--runs", type=int, default=_RUNS, help="of each contestant")
    parser.add_argument("--tiny", action="store_true", help="small sizes: does it work?")
    parser.add_argument("--profile", action="store_true", help="show where regproxy's time goes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there")
    options = parser.parse_args()
    unknown = [name for name in options.cases if name not in CASES]
    if unknown:
        parser.error(f"no such case: {', '.join(unknown)}; there are {', '.join(CASES)}")
    # The servers are stopped then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    cores = machine.Cores.of_this_machine()
    found = results.Results(
        date=datetime.now(UTC).date().isoformat(),
        machine=machine.describe(),
        versions=results.versions(),
    )
    # Clients and upstreams inherit it; servers are put elsewhere.
    os.sched_setaffinity(0, {cores.client})
    for name in options.cases or CASES:
        with tempfile.TemporaryDirectory(prefix="bench-") as directory:
            profile = Path(directory, "profile") if options.profile else None
            scale = TINY if options.tiny else FULL
            setting = Setting(Path(directory), scale, cores, profile=profile)
            found.cases[name] = case.run(CASES[name], setting, options.runs)
            if results.versions() != found.versions:
                sys.exit(f"{name} is not kept: the checkout or a peer changed while it ran")
            if profile is not None:
                pstats.Stats(str(profile)).sort_stats("tottime").print_stats(_PROFILE_LINES)
        print(*table.text(CASES[name], found.cases[name]), "", sep="\n", flush=True)
        if options.json is not None:
            # After each: what is measured is not lost with the rest.
            found.write(options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
