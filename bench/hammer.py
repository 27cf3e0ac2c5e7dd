"""Small requests on kept connections, as fast as one Python process makes them.

wrk would be faster, but it waits for the body of an answer to HEAD, and it cannot say CONNECT.
So what is measured is what a request costs the server's CPU, not how many come in a
second. To have the server find several requests whenever it looks, as it would with a faster
client, many connections wait at a time; nginx then needs as much for a request as with wrk.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, closing
from itertools import cycle
from typing import Final

from attrs import frozen

from bench.way import Connection, Way

#: Connections at once.
CONNECTIONS: Final = 32


@frozen
class Question:
    """A request whose answer is small.

    Attributes:
        method: GET or HEAD.
    """

    method: str
    target: str


def hammer(way: Way, questions: Sequence[Question], seconds: float) -> int:
    """Ask *questions* in turn for so many *seconds*; how many were answered.

    Raises:
        Refused: one was not answered with 200, or not whole.
    """
    answered = 0
    with ExitStack() as stack:
        connections = [stack.enter_context(closing(way.open())) for _ in range(CONNECTIONS)]
        requests = cycle(
            (way.request(each.method, each.target), each.method == "HEAD") for each in questions
        )
        # Which connection waits for which answer, the oldest request first.
        waiting = deque[tuple[Connection, bool]]()
        idle = deque(connections)
        ends = time.monotonic() + seconds
        while idle or waiting:
            if idle:
                connection = idle.popleft()
                request, is_head = next(requests)
                connection.send(request)
                waiting.append((connection, is_head))
            else:
                connection, is_head = waiting.popleft()
                connection.take_answer(is_head=is_head)
                answered += 1
                if time.monotonic() < ends:
                    idle.append(connection)
    return answered
