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
    CONFIRM = "this login was not seen for this repository"

    @property
    def serve(self) -> bool:
        """Whether no question is left."""
        return self is not Verdict.CONFIRM


def may_read(access: Access, *, granted: bool, public: bool) -> Verdict:
    """Whether what is known to be in a repository may be served.

    A digest alone is no authority: of an object that is not known in the repository that
    it is asked from, upstream has to be asked first.

    Args:
        access: the registry's rule.
        granted: this login was accepted upstream for this repository lately.
        public: the repository was readable without a login lately.
    """
    if access is Access.SHARED:
        return Verdict.SHARED
    if public:
        return Verdict.PUBLIC
    return Verdict.GRANTED if granted else Verdict.CONFIRM
