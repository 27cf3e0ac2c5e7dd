"""What a parameter has to keep to, besides its type: said once, checked and documented."""

from __future__ import annotations

import re
from typing import Any

from attrs import frozen


@frozen
class Between:
    """A number from *least* to *most*."""

    least: int
    most: int

    def check(self, value: int) -> None:
        """See :class:`~regproxy.management.encoding.Bound`."""
        if not self.least <= value <= self.most:
            raise ValueError(f"expected a number from {self.least} to {self.most}")

    def schema(self) -> dict[str, Any]:
        """See :class:`~regproxy.management.encoding.Bound`."""
        return {"minimum": self.least, "maximum": self.most}


@frozen
class Pattern:
    """A text that is *what*, which the regular expression *pattern* matches whole.

    It has to mean the same in Python and in JSON Schema (ECMA-262).
    """

    what: str
    pattern: str

    def check(self, value: str) -> None:
        """See :class:`~regproxy.management.encoding.Bound`."""
        if not re.fullmatch(self.pattern, value):
            raise ValueError(f"expected {self.what}")

    def schema(self) -> dict[str, Any]:
        """See :class:`~regproxy.management.encoding.Bound`."""
        return {"pattern": f"^(?:{self.pattern})$"}


@frozen
class Length:
    """A text of *least* to *most* characters."""

    least: int
    most: int

    def check(self, value: str) -> None:
        """See :class:`~regproxy.management.encoding.Bound`."""
        if not self.least <= len(value) <= self.most:
            raise ValueError(f"expected {self.least} to {self.most} characters")

    def schema(self) -> dict[str, Any]:
        """See :class:`~regproxy.management.encoding.Bound`."""
        return {"minLength": self.least, "maxLength": self.most}


@frozen
class Count:
    """A list of *least* to *most* items."""

    least: int
    most: int

    def check(self, value: tuple[Any, ...]) -> None:
        """See :class:`~regproxy.management.encoding.Bound`."""
        if not self.least <= len(value) <= self.most:
            raise ValueError(f"expected {self.least} to {self.most} items")

    def schema(self) -> dict[str, Any]:
        """See :class:`~regproxy.management.encoding.Bound`."""
        return {"minItems": self.least, "maxItems": self.most}
