"""Leaf certificates at hand: one server context for each, renewed in time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, Protocol

from attrs import frozen
from cryptography import x509
from OpenSSL import SSL

from regproxy.tls.authority import Leaf
from regproxy.tls.contexts import server_context

MAX_ENTRIES: Final = 1024


class Issuer(Protocol):
    """Whose certificates clients trust."""

    @property
    def certificate(self) -> x509.Certificate:
        """The certificate whose key signs leaves."""

    def issue(self, names: Sequence[str], now: datetime) -> Leaf:
        """See :meth:`regproxy.tls.authority.CertificateAuthority.issue`."""


@frozen
class _Entry:
    issuer: x509.Certificate
    context: SSL.Context
    made: datetime
    renew: datetime


class LeafCache:
    """Server contexts by names, the least recently used dropped first.

    A context is replaced after two thirds of the time that its certificate had
    left when it was made, and when the authority changes: connections that have it
    keep it, new ones get the new.

    Args:
        authority: signs the leaves.
        now: the current time, with its time zone.
        max_entries: how many contexts to keep. Names come from clients, so
            there has to be a bound.

    Attributes:
        issued: how many certificates were made.
    """

    def __init__(
        self,
        authority: Issuer,
        now: Callable[[], datetime],
        max_entries: int = MAX_ENTRIES,
    ) -> None:
        self._authority = authority
        self._now = now
        self._max_entries = max_entries
        self._entries: OrderedDict[tuple[str, ...], _Entry] = OrderedDict()
        self.issued = 0

    def __len__(self) -> int:
        """How many contexts are kept."""
        return len(self._entries)

    def context(self, *names: str) -> SSL.Context:
        """The context that presents a certificate for *names*.

        Raises:
            ValueError: one of them is not a lower-case host name or address.
            CAError: the authority has expired.
        """
        now = self._now()
        entry = self._entries.get(names)
        # A clock that was set back can make a leaf one of the future.
        if (
            entry is None
            or not entry.made <= now < entry.renew
            or entry.issuer != self._authority.certificate
        ):
            entry = self._entries[names] = self._make(names, now)
        self._entries.move_to_end(names)
        if len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)
        return entry.context

    def _make(self, names: tuple[str, ...], now: datetime) -> _Entry:
        issuer = self._authority.certificate
        leaf = self._authority.issue(names, now)
        self.issued += 1
        return _Entry(issuer, server_context(leaf), now, now + (leaf.not_after - now) * 2 / 3)
