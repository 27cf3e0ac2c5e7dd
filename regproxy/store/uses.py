"""Which content is in use now, and when each was last used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, TypeVar

from regproxy.oci.names import Digest

K = TypeVar("K", bound=Hashable)

# What the index is told in one transaction: others write between two.
BATCH: Final = 500


class LastUses(Generic[K]):
    """When each of some things was last used, until the index is told.

    Touched in the reactor thread only.

    Args:
        now: seconds since the epoch.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._last: dict[K, float] = {}

    def __contains__(self, thing: K) -> bool:
        """Whether it was used after the index was last told."""
        return thing in self._last

    def touch(self, thing: K) -> None:
        """It is used now."""
        self._last[thing] = self._now()

    async def tell(self, record: Callable[[dict[K, float]], Awaitable[object]]) -> None:
        """Have *record* record everything, a batch at a time.

        What it fails to record is kept for the next time, and the failure raised.
        """
        while self._last:
            batch = dict(self._last.popitem() for _ in range(min(BATCH, len(self._last))))
            try:
                await record(batch)
            except BaseException:
                self._last = batch | self._last
                raise


class Uses:
    """What this process does with content. Touched in the reactor thread only.

    It is not the whole truth: another process over the same directory may be serving what
    this one evicts. Its readers keep the file that they have open.

    Args:
        now: seconds since the epoch.

    Attributes:
        last: when what was last used by a client, by the text of its digest: there may be
            many, and texts are nothing for the garbage collector to look through.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.last: LastUses[str] = LastUses(now)
        self._holders: Counter[Digest] = Counter()

    def __contains__(self, digest: Digest) -> bool:
        """Whether it is held, or was used after the index was last told."""
        return digest in self._holders or str(digest) in self.last

    def hold(self, digest: Digest) -> None:
        """One more has to do with it."""
        self._holders[digest] += 1

    def release(self, digest: Digest) -> None:
        """One less."""
        self._holders[digest] -= 1
        if not self._holders[digest]:
            del self._holders[digest]

    def touch(self, digest: Digest) -> None:
        """A client uses it."""
        self.last.touch(str(digest))
