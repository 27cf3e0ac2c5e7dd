"""Which content is in use now, and when each was last used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from regproxy.oci.names import Digest


class Uses:
    """What this process does with content. Touched in the reactor thread only.

    It is not the whole truth: another process over the same directory may be serving what
    this one evicts. Its readers keep the file that they have open.

    Args:
        now: seconds since the epoch.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._holders: Counter[Digest] = Counter()
        self._last: dict[Digest, float] = {}

    def __contains__(self, digest: Digest) -> bool:
        """Whether it is held, or was used after the index was last told."""
        return digest in self._holders or digest in self._last

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
        self._last[digest] = self._now()

    def take(self) -> dict[Digest, float]:
        """When what was used, since the last call, was last used; for the index."""
        last, self._last = self._last, {}
        return last

    def give_back(self, taken: dict[Digest, float]) -> None:
        """The index did not take it."""
        self._last = taken | self._last
