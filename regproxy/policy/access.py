"""Who may read stored content: the decision, from what is known about the asker."""

from __future__ import annotations

from enum import Enum

from regproxy.config.model import Access


class Verdict(Enum):
    """Whether stored content may be served now."""

    SHARED = "whoever may use the proxy may read this registry"
    GRANTED = "upstream accepted this login for this repository a moment ago"
    PUBLIC = "upstream serves this repository to anybody"
    # Ask upstream, for this very object, in this client's name.
    CONFIRM_LOGIN = "this login was not seen for this repository"
    CONFIRM_MEMBERSHIP = "the digest was not seen in this repository"

    @property
    def serve(self) -> bool:
        """Whether no question is left."""
        return self in (Verdict.SHARED, Verdict.GRANTED, Verdict.PUBLIC)


def may_read(access: Access, *, member: bool, granted: bool, public: bool) -> Verdict:
    """Whether an object may be served.

    Args:
        access: the registry's rule.
        member: the object is known in the repository that it is asked from. A
            digest alone is no authority: it may have come from a private one.
        granted: this login was accepted upstream for this repository lately.
        public: the repository was readable without a login lately.
    """
    if not member:
        return Verdict.CONFIRM_MEMBERSHIP
    if access is Access.SHARED:
        return Verdict.SHARED
    if public:
        return Verdict.PUBLIC
    return Verdict.GRANTED if granted else Verdict.CONFIRM_LOGIN
