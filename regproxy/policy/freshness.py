"""How long a tag may be answered without asking upstream, and when it may be answered late."""

from __future__ import annotations

from enum import Enum, auto

from regproxy.config.model import FreshnessSection
from regproxy.oci.names import Tag


class Freshness(Enum):
    """What a stored tag is good for."""

    # May be answered at once.
    FRESH = auto()
    # Upstream is to be asked first; good enough if upstream fails.
    STALE = auto()
    # Upstream is to be asked, and its failure is the answer.
    EXPIRED = auto()


def max_age(rules: FreshnessSection, tag: Tag) -> float:
    """Seconds for which *tag* is fresh.

    Tags that name a digest (cosign's ``sha256-HEX.sig``, the referrers fall-back
    ``sha256-HEX``) are rewritten in place as signatures arrive: no rule makes them
    fresh for longer than the default does.
    """
    if not tag.name.startswith(("sha256-", "sha512-")):
        for rule in rules.rule:
            if rule.match.search(tag.name):
                return rule.max_age
    return rules.default


def judge(rules: FreshnessSection, tag: Tag, age: float) -> Freshness:
    """What an entry is good for that was checked *age* seconds ago.

    A negative age means that the clock was set back: nothing is fresh then.
    """
    if 0 <= age < max_age(rules, tag):
        return Freshness.FRESH
    return Freshness.STALE if age <= rules.stale_if_error else Freshness.EXPIRED
