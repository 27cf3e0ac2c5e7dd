"""Starts and stops the site of :mod:`tests.support.demo`."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.support.process import Process, environment, free_port, listens

_ROOT: Final = Path(__file__).resolve().parents[2]


class Demo:
    """The site with parts that are made up, in a process of its own."""

    def __init__(self, *options: str) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="pages-"))
        self._options = options
        self._ports = [free_port(), free_port()]
        #: Of the management port, and of the proxy port.
        self.url, self.open_url = (f"http://127.0.0.1:{port}" for port in self._ports)
        self.start()

    def start(self) -> None:
        """Start a process on the same ports."""
        command = [
            sys.executable,
            "-m",
            "tests.support.demo",
            *map(str, self._ports),
            *self._options,
        ]
        env = environment(PYTHONPATH=_ROOT)
        log = self._directory / "demo.log"
        self.process = Process("demo", command, log=log, env=env)
        self.process.wait_until(lambda: all(map(listens, self._ports)))

    def stop(self) -> None:
        """Stop the process, and leave nothing."""
        self.process.stop()
        shutil.rmtree(self._directory)
