"""Which of a registry's upstreams is asked, in which order, and what is known of their health.

A registry may have several: mirrors first, the registry itself last, which is its origin.
A mirror brings bytes; what it does not have, or does not give, another may have, so
only the origin can say no.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from enum import Enum
from http import HTTPStatus
from typing import Final, Generic, TypeVar

from attrs import evolve, frozen

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

# Seconds for which an upstream is left alone that has failed; doubled each time. Longer
# would keep a registry that is well again from being asked about tags.
FIRST: Final = 5.0
LONGEST: Final = 60.0
# However long an upstream asks to be left alone, or deserves to be.
LIMIT: Final = 900.0
# Seconds for which nobody else tries an upstream that is being tried again.
TRIAL: Final = 30.0
# Each takes some 300 bytes. Clients may name any number of hosts that do not exist.
MAX_REMEMBERED: Final = 1024


class Sources(Enum):
    """Which upstreams may answer a question."""

    ORIGIN = "the registry itself"
    MIRRORS_FIRST = "mirrors, then the origin"
    ORIGIN_FIRST = "the origin, and mirrors when it fails"
    MIRRORS = "mirrors alone"


def course(upstreams: Sequence[T], sources: Sources, resting: Callable[[T], bool]) -> list[T]:
    """The upstreams to ask, in this order, until one gives an answer.

    Those that rest come last: an error is never due to their rest alone.

    Args:
        upstreams: mirrors, then the origin.
        resting: whether one is to be left alone; see :class:`Health`.
    """
    *mirrors, origin = upstreams
    match sources:
        case Sources.ORIGIN:
            return [origin]
        case Sources.MIRRORS_FIRST:
            candidates = [*mirrors, origin]
        case Sources.ORIGIN_FIRST:
            candidates = [origin, *mirrors]
        case Sources.MIRRORS:
            candidates = mirrors
    return sorted(candidates, key=resting)


def is_answer(status: int, *, origin: bool) -> bool:
    """Whether no other upstream needs to be asked after this status."""
    if origin:
        return not is_failure(status)
    return status < HTTPStatus.BAD_REQUEST


def is_failure(status: int) -> bool:
    """Whether *status* says that the server could not answer, and nothing about the question."""
    return status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS


@frozen
class _Rest:
    """Why and until when an upstream is left alone.

    Attributes:
        noted: when it was seen to have failed.
        length: in seconds; what the next rest doubles.
        tried: when somebody began to try the upstream again.
    """

    reason: str
    noted: float
    length: float
    until: float
    tried: float | None = None


class Health(Generic[K]):
    """What is known of upstreams that failed. After a rest one request tries them again.

    Args:
        now: seconds of a clock that is never set back.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._rests: OrderedDict[K, _Rest] = OrderedDict()

    def resting(self, key: K) -> bool:
        """Whether *key* has failed and is to be left alone for now."""
        rest = self._rests.get(key)
        if rest is None:
            return False
        now = self._now()
        return now < rest.until or (rest.tried is not None and now < rest.tried + TRIAL)

    def reason(self, key: K) -> str:
        """What *key* has failed with since it last worked; empty if it has not."""
        rest = self._rests.get(key)
        return "" if rest is None else rest.reason

    def begin(self, key: K) -> float:
        """*key* is asked now; the moment, to be given to what is called when that is over.

        One that has rested is left alone by others until then.
        """
        now = self._now()
        rest = self._rests.get(key)
        if rest is not None and not self.resting(key):
            self._rests[key] = evolve(rest, tried=now)
        return now

    def worked(self, key: K, began: float) -> None:
        """*key* has answered what it was asked at *began*; after its last failure, it is well."""
        rest = self._rests.get(key)
        if rest is not None and began >= rest.noted:
            del self._rests[key]

    def gave_up(self, key: K, began: float) -> None:
        """Nobody waits any more for what was asked at *began*: the next one may try."""
        rest = self._rests.get(key)
        if rest is not None and rest.tried == began:
            self._rests[key] = evolve(rest, tried=None)

    def failed(self, key: K, began: float, reason: str, at_least: float = 0.0) -> None:
        """What was asked of *key* at *began* has failed. Several that fail together count once.

        Args:
            at_least: seconds of rest that it has asked for.
        """
        now = self._now()
        length, until = FIRST, now
        if (earlier := self._rests.get(key)) is not None:
            news = began >= earlier.noted
            length = min(earlier.length * 2, LONGEST) if news else earlier.length
            until = earlier.until
        until = max(until, now + max(length, min(at_least, LIMIT)))
        self._rests[key] = _Rest(reason, now, length, until)
        self._rests.move_to_end(key)
        if len(self._rests) > MAX_REMEMBERED:
            self._rests.popitem(last=False)
