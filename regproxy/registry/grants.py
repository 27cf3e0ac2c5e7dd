"""What upstream has lately let whom read: the memory behind access decisions.

A cache and not truth: when it is lost, upstream is asked again.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from typing import Final

from twisted.internet.interfaces import IReactorTime

from regproxy.oci.names import Host, Repository

# A login that was accepted stands for this long; a repository that was readable
# without one, for the longer time. In seconds.
LOGIN_LIFETIME: Final = 300.0
PUBLIC_LIFETIME: Final = 3600.0
# Each takes about 200 bytes; the oldest go first.
MAX_GRANTS: Final = 100_000

_Key = tuple[Host, Repository, bytes | None]


class Grants:
    """Which login may read which repository.

    A login is kept as a keyed hash: whoever reads the memory does not get it.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._key = os.urandom(32)
        self._expiry: OrderedDict[_Key, float] = OrderedDict()

    def accept(self, host: Host, repository: Repository, authorization: bytes | None) -> None:
        """Upstream served *repository* to this login; None is nobody in particular."""
        key = self._entry(host, repository, authorization)
        lifetime = PUBLIC_LIFETIME if authorization is None else LOGIN_LIFETIME
        self._expiry[key] = self._clock.seconds() + lifetime
        self._expiry.move_to_end(key)
        if len(self._expiry) > MAX_GRANTS:
            self._expiry.popitem(last=False)

    def revoke(self, host: Host, repository: Repository, authorization: bytes | None) -> None:
        """Upstream refused *repository* to this login."""
        self._expiry.pop(self._entry(host, repository, authorization), None)

    def holds(self, host: Host, repository: Repository, authorization: bytes | None) -> bool:
        """Whether this very login was accepted lately."""
        expiry = self._expiry.get(self._entry(host, repository, authorization))
        return expiry is not None and self._clock.seconds() < expiry

    def is_public(self, host: Host, repository: Repository) -> bool:
        """Whether the repository was readable without a login lately."""
        return self.holds(host, repository, None)

    def _entry(self, host: Host, repository: Repository, authorization: bytes | None) -> _Key:
        if authorization is None:
            return host, repository, None
        mac = hashlib.blake2b(authorization, key=self._key, digest_size=16).digest()
        return host, repository, mac
