"""Programs at a terminal of their own, where somebody types."""

from __future__ import annotations

import os
import pty
import re
from collections.abc import Mapping, Sequence

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def at_terminal(
    command: Sequence[str], environ: Mapping[str, str], *typed: tuple[str, str]
) -> tuple[int, str]:
    """Run *command*; its exit status, and all that the terminal shows, escapes included.

    Args:
        typed: what is waited for, and what is typed then.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            os.execve(command[0], [*command], {**environ, "TERM": "xterm-256color"})
        finally:
            os._exit(127)
    shown = ""
    waiting = list(typed)
    while True:
        try:
            block = os.read(terminal, 65536)
        except OSError:
            # Linux says EIO when the last program has left the terminal.
            break
        shown += block.decode()
        if waiting and shown.rstrip().endswith(waiting[0][0]):
            os.write(terminal, waiting.pop(0)[1].encode())
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown


def without_escapes(shown: str) -> list[str]:
    """The lines that a reader sees."""
    return _ESCAPES.sub("", shown).replace("\r", "").splitlines()
