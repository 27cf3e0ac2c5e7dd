"""The state of a fill, and every decision about it. Pure: bytes are only counted here.

::

    RECEIVING --all hashed, digest right--> VERIFIED --commit--> COMMITTED
        |                                       |
        +--digest or size wrong, given up,------+--the disk failed--> FAILED
           abandoned, the disk failed

Bytes may come in any order and more than once. Each position is written once, by
whoever brought it first, and hashed in order from what was written: what is verified
is what is on disk.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto
from typing import Final

from attrs import frozen

from regproxy.policy.spans import Spans

MiB: Final = 1 << 20


class Phase(Enum):
    """Where a fill stands."""

    RECEIVING = auto()
    VERIFIED = auto()
    COMMITTED = auto()
    FAILED = auto()


class WrongSize(Exception):
    """More bytes came than were announced, or another total was announced."""

    def __init__(self, expected: int, actual: int) -> None:
        super().__init__(f"{actual} bytes came where {expected} were announced")


class FillState:
    """What one fill has, and what it lacks.

    Args:
        size: the total in bytes, if it was announced.
        stored: what is on disk already, of an earlier try.

    Attributes:
        phase: see the module.
        stored: the positions on disk.
        hashed: bytes hashed, from the first on without a gap.
    """

    def __init__(self, size: int | None, stored: Iterable[tuple[int, int]] = ()) -> None:
        self.phase = Phase.RECEIVING
        self.size = size
        self.stored = Spans(stored)
        self.hashed = 0
        self._was_verified = False
        # On disk, or on the way there.
        self._taken = Spans(self.stored)

    @property
    def verified(self) -> bool:
        """Whether every byte is here and right. It stays true when the commit fails."""
        return self.phase in (Phase.VERIFIED, Phase.COMMITTED) or (
            self.phase is Phase.FAILED and self._was_verified
        )

    @property
    def over(self) -> bool:
        """Whether nothing changes any more."""
        return self.phase in (Phase.COMMITTED, Phase.FAILED)

    @property
    def whole(self) -> bool:
        """Whether every byte has been hashed, and the digest can be compared."""
        return self.size is not None and self.hashed == self.size

    def readable(self, offset: int) -> int:
        """How many bytes are on disk from *offset* on without a gap."""
        if self.phase is Phase.FAILED and not self.verified:
            return 0
        return self.stored.run(offset) - offset

    @property
    def arrived(self) -> int:
        """How many bytes are on disk or on the way there."""
        return self._taken.total

    def take(self, offset: int, length: int) -> list[tuple[int, int]]:
        """Bytes have come; the spans of them that are new and have to be written.

        Raises:
            WrongSize: they go beyond the total.
        """
        end = offset + length
        if self.size is not None and end > self.size:
            raise WrongSize(self.size, end)
        new = list(self._taken.missing(offset, end))
        self._taken.add(offset, end)
        return new

    def announce(self, size: int) -> None:
        """The total has become known.

        Raises:
            WrongSize: it was another, or is less than what has come.
        """
        known = self.size if self.size is not None else size
        furthest = max((end for _, end in self._taken), default=0)
        if size != known or furthest > size:
            raise WrongSize(known, max(size, furthest))
        self.size = size

    def wrote(self, spans: Iterable[tuple[int, int]]) -> None:
        """*spans* are on disk."""
        for start, end in spans:
            self.stored.add(start, end)

    def missing(self, offset: int) -> tuple[int, int | None] | None:
        """The first gap at or after *offset* that nobody has brought; None if there is none.

        The end of the gap is None when it is the end of the content.
        """
        start, end = self._taken.gap(offset)
        if self.size is not None and start >= self.size:
            return None
        return start, end

    def covered(self, offset: int) -> int:
        """The end of what has come from *offset* on without a gap."""
        return self._taken.run(offset)

    def conclude(self, right: bool) -> None:
        """The digest of the whole was compared."""
        if self.phase is Phase.RECEIVING:
            self.phase = Phase.VERIFIED if right else Phase.FAILED

    def commit(self) -> None:
        """The content stands under its name."""
        if self.phase is Phase.VERIFIED:
            self.phase = Phase.COMMITTED

    def fail(self) -> None:
        """It came to nothing."""
        if not self.over:
            self._was_verified = self.phase is Phase.VERIFIED
            self.phase = Phase.FAILED


@frozen
class FillRules:
    """How much trouble to take over one fill.

    Attributes:
        tries: how often to go on after a break that brought less than ``progress``.
        first_delay: seconds before the first of them; each further waits twice as long.
        last_delay: the longest of these waits, in seconds.
        progress: bytes after which an upstream counts as working again.
        far: bytes that a reader may be ahead of the transfer before it gets its own.
        window: bytes that such a request asks for at a time.
        side_requests: how many of these may be under way.
        skip: bytes that are here already and are worth a new request to not get again.
        finish_abandoned: bytes up to which content is always fetched to the end;
            of larger content more than half must be here.
    """

    tries: int = 6
    first_delay: float = 0.25
    last_delay: float = 8.0
    progress: int = 256 * 1024
    far: int = 8 * MiB
    window: int = 8 * MiB
    side_requests: int = 4
    skip: int = MiB
    finish_abandoned: int = 1024 * MiB

    def delay(self, failures: int) -> float | None:
        """Seconds to wait after that many failures in a row, or None to give up."""
        if failures > self.tries:
            return None
        return min(self.last_delay, self.first_delay * 2.0 ** (failures - 1))

    def goes_on_alone(self, state: FillState) -> bool:
        """Whether to fetch the rest when nobody waits for it any more."""
        size = state.size
        if size is None or size <= self.finish_abandoned:
            return True
        return state.stored.total * 2 > size

    def side_request(
        self,
        state: FillState,
        head: int,
        under_way: list[tuple[int, int]],
        offset: int,
        end: int | None,
    ) -> tuple[int, int] | None:
        """The bytes to ask for on behalf of a reader that waits at *offset*, or None.

        Args:
            head: where the main transfer is.
            under_way: what other side requests are for.
            end: where the reader will stop.
        """
        if state.size is None or offset - head < self.far:
            return None
        if len(under_way) >= self.side_requests:
            return None
        if any(start <= offset < stop for start, stop in under_way):
            return None
        gap = state.missing(offset)
        if gap is None or gap[0] > offset:
            return None
        stops = [offset + self.window, state.size]
        stops += [stop for stop in (end, gap[1]) if stop is not None]
        stops += [start for start, _ in under_way if start > offset]
        return offset, min(stops)
