"""What processes use is what they say they use."""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from bench.machine import Cores, cpu_seconds, describe, family, memory

_MiB = 1 << 20
# Works for a while and takes memory, has a child that does so too, and tells what it used.
_SCRIPT = """
import subprocess, sys, time
child = None
if sys.argv[1:]:
    child = subprocess.Popen([sys.executable, "-c", sys.argv[1]],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    used = float(child.stdout.readline())
else:
    used = 0.0
filled = b"x" * (40 << 20)
while time.process_time() < 0.3:
    pass
print(used + time.process_time(), flush=True)
sys.stdin.read()
if child:
    child.communicate()
"""


class UsageTests(SynchronousTestCase):
    """A process with a child."""

    def setUp(self) -> None:
        command = [sys.executable, "-c", _SCRIPT, _SCRIPT]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(self.process.communicate)
        assert self.process.stdout is not None
        self.told = float(self.process.stdout.readline())

    def test_cpu(self) -> None:
        """Parent and child together; both rest now, so that little has come since."""
        used = cpu_seconds(self.process.pid)
        self.assertGreaterEqual(used, self.told)
        self.assertLess(used, self.told + 0.2)

    def test_memory(self) -> None:
        """Both have filled 40 MiB."""
        used = memory(self.process.pid)
        self.assertGreater(used, 80 * _MiB)
        self.assertLess(memory(self.process.pid, "RssAnon"), used)

    def test_family(self) -> None:
        found = family(self.process.pid)
        self.assertEqual((found[0], len(found)), (self.process.pid, 2))


class MachineTests(SynchronousTestCase):
    """The machine."""

    def test_cores(self) -> None:
        """A command is put before the one that is to run on the servers' core."""
        self.assertEqual(Cores(3, 0).pinned(["a", "b"]), ["taskset", "--cpu-list", "3", "a", "b"])

    def test_description(self) -> None:
        self.assertRegex(describe()["memory"], r"^[1-9]\d* GiB$")
        self.assertRegex(describe()["processor"], r", [1-9]\d* cores$")
