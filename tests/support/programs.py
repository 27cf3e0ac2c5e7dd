"""Which of the programs that end-to-end tests drive are installed.

They come from Debian packages; ``make e2e-deps`` installs them all. A test
whose programs are missing is skipped with a message that says so.
"""

from __future__ import annotations

import os
import shutil
import sys
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

_Test = TypeVar("_Test", bound=Callable[..., Any])

# Where Debian's packages put programs. Looked at before PATH: the clients and
# daemons must be of one release to work together.
_DEBIAN: Final = "/usr/sbin:/usr/bin"


class ProgramMissing(Exception):
    """A program that a test needs is not installed."""


def find(name: str) -> Path | None:
    """The path of the program *name*, or None when it is not installed."""
    found = shutil.which(name, path=_DEBIAN) or shutil.which(name)
    return Path(found) if found else None


def program(name: str) -> str:
    """The path of the program *name*.

    Raises:
        ProgramMissing: it is not installed.
    """
    found = find(name)
    if found is None:
        raise ProgramMissing(f"{name} is not installed: run `make e2e-deps`")
    return str(found)


def needs(*names: str) -> Callable[[_Test], _Test]:
    """Skip the decorated test or test case when any of the programs *names* is missing."""
    missing = [name for name in names if find(name) is None]
    return unittest.skipIf(
        bool(missing), f"not installed: {', '.join(missing)}; run `make e2e-deps`"
    )


def needs_root(test: _Test) -> _Test:
    """Skip the decorated test or test case for users who cannot run container daemons."""
    return unittest.skipIf(os.geteuid() != 0, "container daemons need root")(test)


def twistd() -> str:
    """The ``twistd`` of the environment that the tests run in."""
    return str(Path(sys.executable).with_name("twistd"))
