"""Answers of name servers, kept as long as they say and there is room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

from attrs import frozen

from regproxy.dns.message import Answer

# Bytes: some ten thousand answers of the usual size, and a bound whatever is asked.
SIZE: Final = 8 << 20
# What an answer takes besides its records: key, objects, and a place in the table; and for
# each record the place of its TTL.
_OVERHEAD: Final = 700
_FOR_EACH: Final = 36
# Seconds. Nobody is served for longer what has changed (unbound's cache-max-ttl).
_LONGEST: Final = 86400


@frozen
class _Kept:
    answer: Answer
    since: float

    @property
    def size(self) -> int:
        return _OVERHEAD + len(self.answer.records) + _FOR_EACH * len(self.answer.ttls)


class AnswerCache:
    """The answers used last, in a bounded number of bytes.

    Args:
        now: seconds of a clock that does not jump.
        size: bytes.
    """

    def __init__(self, now: Callable[[], float], size: int = SIZE) -> None:
        self._now = now
        self._room = size
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable) -> Answer | None:
        """The answer, with the time that it has left, or None if there is none."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        age = int(self._now() - kept.since)
        if age >= min(kept.answer.lifetime, _LONGEST):
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return kept.answer.aged(age)

    def put(self, key: Hashable, answer: Answer) -> None:
        """Keep *answer* for its lifetime. What was used longest ago makes room."""
        self._drop(key)
        if answer.lifetime == 0:
            return
        kept = self._kept[key] = _Kept(answer, self._now())
        self._room -= kept.size
        while self._room < 0:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: Hashable) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._room += kept.size
