"""Which files this process has open."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def open_below(directory: Path) -> list[str]:
    """The files below *directory* that are open, once for each descriptor."""
    root = f"{directory.resolve()}/"
    found = []
    for number in os.listdir("/proc/self/fd"):
        # The listing itself had one.
        with contextlib.suppress(FileNotFoundError):
            path = os.readlink(f"/proc/self/fd/{number}")
            if path.startswith(root):
                found.append(path)
    return found
