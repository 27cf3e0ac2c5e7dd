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

# Seconds for which a login that was accepted stands.
LOGIN_LIFETIME: Final = 300.0
# Each takes about 200 bytes; the oldest go first.
MAX_GRANTS: Final = 100_000

_Key = tuple[Host, Repository, bytes]


class Grants:
    """Which login may read which repository.

    A login is kept as a keyed hash: whoever reads the memory does not get it.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._key = os.urandom(32)
        self._expiry: OrderedDict[_Key, float] = OrderedDict()

    def accept(self, host: Host, repository: Repository, authorization: bytes) -> None:
        """Upstream served *repository* to this login."""
        key = self._entry(host, repository, authorization)
        self._expiry[key] = self._clock.seconds() + LOGIN_LIFETIME
        self._expiry.move_to_end(key)
        if len(self._expiry) > MAX_GRANTS:
            self._expiry.popitem(last=False)

    def revoke(self, host: Host, repository: Repository, authorization: bytes) -> None:
        """Upstream refused *repository* to this login."""
        self._expiry.pop(self._entry(host, repository, authorization), None)

    def holds(self, host: Host, repository: Repository, authorization: bytes) -> bool:
        """Whether this very login was accepted lately."""
        expiry = self._expiry.get(self._entry(host, repository, authorization))
        return expiry is not None and self._clock.seconds() < expiry

    def _entry(self, host: Host, repository: Repository, authorization: bytes) -> _Key:
        mac = hashlib.blake2b(authorization, key=self._key, digest_size=16).digest()
        return host, repository, mac
