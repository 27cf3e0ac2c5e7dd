"""The reference names every key of the configuration, and none that there is not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from attrs import fields, has
from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.model import Config, FreshnessRule, RegistryLimits, RegistrySection
from regproxy.config.wayout import ParentProxy

REFERENCE = Path(__file__).resolve().parent.parent / "docs/reference/configuration.md"


def names(cls: type[Any]) -> set[str]:
    return {attribute.name for attribute in fields(cls)}


def model() -> dict[str, set[str]]:
    """The keys by the heading under which they belong."""
    sections = {
        f"[{name}]": names(type(value))
        for name, value in ((a.name, a.default) for a in fields(Config))
        if has(type(value))
    }
    sections["[freshness]"].remove("rule")
    return {
        **sections,
        "Top level": {"data"},
        "[[freshness.rule]]": names(FreshnessRule),
        '[registries."HOST"]': names(RegistrySection),
        '[registries."HOST".limits]': names(RegistryLimits),
        "[upstream.proxy]": names(ParentProxy),
    }


def reference() -> dict[str, set[str]]:
    """The keys that the tables of the reference have, by heading."""
    parts = re.split(r"^##+ (.+)$", REFERENCE.read_text(), flags=re.MULTILINE)
    found = {
        heading: set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
        for heading, text in zip(parts[1::2], parts[2::2], strict=True)
    }
    return {heading: keys for heading, keys in found.items() if keys}


class ReferenceTests(SynchronousTestCase):
    """``docs/reference/configuration.md`` against the model."""

    maxDiff = None

    def test_keys(self) -> None:
        self.assertEqual(reference(), model())
