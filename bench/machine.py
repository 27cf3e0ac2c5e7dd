"""What the machine tells: its cores, and what processes use."""

from __future__ import annotations

import mmap
import os
import platform
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import frozen

_PROC = Path("/proc")


@frozen
class Cores:
    """Which core servers run on, and which one clients and upstreams do."""

    server: int
    client: int

    @classmethod
    def of_this_machine(cls) -> Cores:
        """The last core for servers, the first for all else. There may be one only."""
        usable = sorted(os.sched_getaffinity(0))
        return cls(server=usable[-1], client=usable[0])

    def pinned(self, arguments: Sequence[str]) -> list[str]:
        """The command line that runs *arguments* on the servers' core."""
        return ["taskset", "--cpu-list", str(self.server), *arguments]


def back_memory(size: int) -> None:
    """Have the next *size* bytes of memory that somebody takes be backed already.

    A virtual machine gets its memory from the host page by page, at several CPU seconds
    a GiB: whoever comes first would pay that for all.
    """
    with mmap.mmap(-1, size) as memory:
        for offset in range(0, size, mmap.PAGESIZE):
            memory[offset] = 1


def family(pid: int) -> list[int]:
    """*pid* and all processes below it."""
    children: dict[int, list[int]] = {}
    for child, parent in _parents():
        children.setdefault(parent, []).append(child)
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def _parents() -> Iterator[tuple[int, int]]:
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                # It has ended since.
                continue
            # The name in parentheses may have spaces and parentheses in it (proc(5)).
            yield int(entry.name), int(stat.rpartition(")")[2].split()[1])


def cpu_seconds(pid: int) -> float:
    """What *pid* and the processes below it have used of the CPU so far.

    To the nanosecond, where ``/proc/PID/stat`` counts ticks of 10 ms.
    """
    return sum(time.clock_gettime(_cpu_clock(each)) for each in family(pid))


def _cpu_clock(pid: int) -> int:
    """The clock that clock_getcpuclockid(3) gives, which Python does not have.

    See ``MAKE_PROCESS_CPUCLOCK`` and ``CPUCLOCK_SCHED`` in Linux's ``posix-timers_types.h``.
    """
    return ~pid << 3 | 2


def memory(pid: int, field: str = "VmRSS") -> int:
    """Bytes of *field* in ``/proc/PID/status``, for *pid* and the processes below it."""
    return sum(_status(each, field) for each in family(pid))


def _status(pid: int, field: str) -> int:
    for line in (_PROC / str(pid) / "status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise LookupError(f"/proc/{pid}/status has no {field}")


def describe() -> dict[str, str]:
    """The machine in a few words."""
    model = next(
        line.partition(":")[2].strip()
        for line in (_PROC / "cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    gibibytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": f"{model}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{gibibytes:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        # Others that work on it disturb what is measured.
        "load": f"load average {os.getloadavg()[1]:.1f} at the beginning",
    }
