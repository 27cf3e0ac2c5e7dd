"""The command, as people run it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bench.machine import family
from bench.results import Results
from tests.support.process import Process, Result, environment, run
from tests.support.programs import needs

_ROOT = Path(__file__).resolve().parent.parent.parent


def bench(*arguments: str) -> Result:
    """What ``python -m bench`` says to these *arguments*."""
    return run(sys.executable, "-m", "bench", *arguments, env=environment(PYTHONPATH=_ROOT))


class CommandTests(SynchronousTestCase):
    """``python -m bench``."""

    @needs("curl", "nginx", "docker-registry", "taskset")
    def test_run(self) -> None:
        """Servers and clients on their cores, a table, and all samples in a file."""
        path = os.path.abspath(self.mktemp())
        output = bench("--tiny", "--runs=2", "--json", path, "handshakes").check()
        self.assertRegex(output, r"(?m)^new CONNECT .*\n.* regproxy [\d,]+ +nginx [\d,]+\n")
        found = Results.read(Path(path))
        self.assertEqual(set(found.cases), {"handshakes"})
        self.assertEqual({len(runs) for runs in found.cases["handshakes"].values()}, {2})

    @needs("curl", "nginx", "docker-registry", "taskset")
    def test_terminated(self) -> None:
        """It takes its servers with it."""
        directory = Path(self.mktemp()).resolve()
        directory.mkdir(parents=True)
        command = [sys.executable, "-m", "bench", "--runs=1", "handshakes"]
        env = environment(PYTHONPATH=_ROOT) | {"TMPDIR": str(directory)}
        process = Process("bench", command, log=directory / "log", env=env)
        self.addCleanup(process.kill)
        # A second server has its directory once the first one is there.
        process.wait_until(lambda: any(directory.glob("bench-*/regproxy/regproxy.log")))
        servers = family(process.pid)[1:]
        self.assertGreater(len(servers), 0)
        process.stop()
        self.assertEqual([pid for pid in servers if Path(f"/proc/{pid}").exists()], [])

    def test_unknown_case(self) -> None:
        """It says which cases there are."""
        refused = bench("warm_tsl")
        self.assertEqual(refused.code, 2)
        self.assertIn("no such case: warm_tsl; there are warm_tls, ", refused.output)
