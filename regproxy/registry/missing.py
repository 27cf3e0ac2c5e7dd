"""Tags of which a registry has just said that they are not there.

It has said so to one login that asked by one method for one Accept, and may say otherwise to
any other: some hide with a 404 what a client may not read, or what it would not understand. So
only the very same question has the same answer.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from http import HTTPStatus
from typing import Final

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from regproxy.oci.errors import RegistryError
from regproxy.oci.names import Host, Repository, Tag
from regproxy.policy.caching import CacheStatus
from regproxy.store.index import TagKey

# What is looked through at each push; the oldest go first.
MAX_REMEMBERED: Final = 1000


class StillMissing(RegistryError):
    """The registry has said so, and is not asked again."""

    status = HTTPStatus.NOT_FOUND
    code = "MANIFEST_UNKNOWN"

    def __init__(self, key: TagKey, age: float) -> None:
        super().__init__(
            f"{key.host} said {age:.0f} s ago that {key.repository} has no tag {key.tag}"
        )
        self.headers["Cache-Status"] = str(CacheStatus(detail="not-found"))
        self.headers["Age"] = f"{age:.0f}"


@frozen
class _Asked:
    method: bytes
    key: TagKey
    # A hash: whoever reads the memory does not get the login.
    login: bytes | None


class Missing:
    """Remembers such answers for a short while.

    Args:
        lifetime: seconds; 0 to remember none.

    Attributes:
        changes: how many tags have been pushed or deleted through this proxy.
    """

    def __init__(self, clock: IReactorTime, lifetime: float) -> None:
        self.changes = 0
        self._clock = clock
        self._lifetime = lifetime
        self._key = os.urandom(32)
        self._said_at: OrderedDict[_Asked, float] = OrderedDict()

    def note(self, method: bytes, key: TagKey, login: bytes | None, changes: int) -> None:
        """The registry has said so to *login*.

        Args:
            changes: how many there had been when it was asked: the answer may be older
                than a push that came meanwhile.
        """
        if changes != self.changes or not self._lifetime:
            return
        asked = self._asked(method, key, login)
        self._said_at[asked] = self._clock.seconds()
        self._said_at.move_to_end(asked)
        if len(self._said_at) > MAX_REMEMBERED:
            self._said_at.popitem(last=False)

    def check(self, method: bytes, key: TagKey, login: bytes | None) -> None:
        """Raise StillMissing if the registry has just said so to *login*."""
        if not self._said_at:
            return
        said_at = self._said_at.get(self._asked(method, key, login))
        if said_at is not None and 0 <= (age := self._clock.seconds() - said_at) < self._lifetime:
            raise StillMissing(key, age)

    def forget(self, host: Host, repository: Repository, tag: Tag) -> None:
        """The tag was pushed or deleted."""
        self.changes += 1
        for asked in tuple(self._said_at):
            if (asked.key.host, asked.key.repository, asked.key.tag) == (host, repository, tag):
                del self._said_at[asked]

    def _asked(self, method: bytes, key: TagKey, login: bytes | None) -> _Asked:
        if login is not None:
            login = hashlib.blake2b(login, key=self._key, digest_size=16).digest()
        return _Asked(method, key, login)
