"""A program under twistd whose reactor is watched: what holds it, and for how long.

    python loop_watch.py REPORT LIMIT PLANT [twistd's arguments]

All of a reactor's work is done in callbacks: of sockets that can be read or written, of timed
calls and of calls from other threads. Each that takes more than LIMIT seconds of the thread's
processor time becomes a line of JSON in the file REPORT. It is processor time and not time of
day, so that a busy machine makes nobody slow; waiting for a disk is not seen.

PLANT is empty, or names a method, ``module:Class.method``, that is to take SLOW seconds longer.
"""

from __future__ import annotations

import json
import signal
import sys
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from types import FrameType
from typing import Any, Final

from attrs import asdict, frozen
from twisted.internet import reactor
from twisted.scripts.twistd import run

#: Seconds of processor time.
SLOW: Final = 0.06
# Seconds of the process's processor time from one look at what it does to the next.
_LOOK: Final = 0.005


@frozen
class Hold:
    """A callback that took long.

    Attributes:
        callback: its name.
        seconds: of processor time.
        stack: where it was in the middle of it.
    """

    callback: str
    seconds: float
    stack: str

    def __str__(self) -> str:
        return f"{self.callback} took {self.seconds} s:\n{self.stack}"


class Watch:
    """Times the callbacks of a reactor, which has to run in the main thread.

    Args:
        limit: seconds that a callback may take.
        report: called with each that takes longer.
    """

    def __init__(self, limit: float, report: Callable[[Hold], None]) -> None:
        self._limit = limit
        self._report = report
        # When the callback that runs began; None between two.
        self._begun: float | None = None
        self._frames: traceback.StackSummary | None = None

    def install(self, reactor: Any) -> None:
        """Begin."""
        call_later, call_from_thread = reactor.callLater, reactor.callFromThread
        handle = reactor._doReadOrWrite

        def later(delay: float, call: Callable[..., object], *args: Any, **kw: Any) -> Any:
            return call_later(delay, self._time, _name(call), call, *args, **kw)

        def from_thread(call: Callable[..., object], *args: Any, **kw: Any) -> None:
            call_from_thread(self._time, _name(call), call, *args, **kw)

        def handle_event(selectable: Any, *args: Any) -> None:
            protocol = getattr(selectable, "protocol", None)
            name = f"{type(selectable).__qualname__} of {type(protocol).__qualname__}"
            self._time(name, handle, selectable, *args)

        reactor.callLater, reactor.callFromThread = later, from_thread
        reactor._doReadOrWrite = handle_event
        signal.signal(signal.SIGPROF, self._look)
        signal.setitimer(signal.ITIMER_PROF, _LOOK, _LOOK)

    def stop(self) -> None:
        """Look no more."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        # One may be under way still, and would end the process by default.
        signal.signal(signal.SIGPROF, signal.SIG_IGN)

    def _time(self, name: str, call: Callable[..., object], *args: Any, **kw: Any) -> None:
        self._frames = None
        begun = self._begun = time.thread_time()
        try:
            call(*args, **kw)
        finally:
            seconds, self._begun = time.thread_time() - begun, None
            if seconds > self._limit:
                self._report(Hold(name, round(seconds, 4), self._stack()))

    def _look(self, number: int, frame: FrameType | None) -> None:
        """See where a callback is that has taken half of what it may."""
        if self._begun is None or self._frames is not None:
            return
        if time.thread_time() - self._begun > self._limit / 2:
            # Without the text of the lines: to read that would count as the callback's.
            walk = traceback.walk_stack(frame)
            self._frames = traceback.StackSummary.extract(walk, lookup_lines=False)

    def _stack(self) -> str:
        """What was seen, from the callback on."""
        own = takewhile(lambda frame: frame.name != "_time", self._frames or ())
        return "".join(traceback.format_list([*own][::-1]))


def _name(call: Callable[..., object]) -> str:
    function = getattr(call, "func", call)
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', function)}"


def burn() -> None:
    """Take processor time."""
    until = time.thread_time() + SLOW
    while time.thread_time() < until:
        pass


def plant(name: str) -> None:
    """Have the method *name* take longer."""
    module, _, path = name.partition(":")
    owner, _, method = path.partition(".")
    cls = getattr(import_module(module), owner)
    original = getattr(cls, method)

    def slow(*args: Any, **kw: Any) -> Any:
        burn()
        return original(*args, **kw)

    setattr(cls, method, slow)


def main() -> None:
    """The program."""
    report, limit, planted, *arguments = sys.argv[1:]

    def write(hold: Hold) -> None:
        with Path(report).open("a") as file:
            file.write(json.dumps(asdict(hold)) + "\n")

    Watch(float(limit), write).install(reactor)
    if planted:
        plant(planted)
    sys.argv = ["twistd", *arguments]
    run()


if __name__ == "__main__":
    main()
