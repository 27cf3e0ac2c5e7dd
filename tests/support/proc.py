"""What Linux knows of a running process: proc(5)."""

from __future__ import annotations

import os
import re
from pathlib import Path


def cpu(pid: int) -> float:
    """Seconds of processor time so far."""
    # The second field is a name in parentheses, which may hold anything.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> int:
    """Bytes of memory in use."""
    match = re.search(r"VmRSS:\s+([0-9]+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None, "the process has ended"
    return int(match[1]) << 10


def open_files(pid: int) -> int:
    """How many files and sockets it has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))
