"""The benchmarks, one module each with a ``CASE``."""

from __future__ import annotations

from typing import Final

from bench.case import Case
from bench.cases import (
    big_store,
    cold,
    crowd,
    handshakes,
    herd,
    memory,
    pull,
    small,
    warm_mirror,
    warm_tls,
)

_MODULES = (warm_tls, warm_mirror, crowd, small, handshakes, herd, cold, pull, memory, big_store)

#: By name, in the order of the table.
CASES: Final[dict[str, Case]] = {module.CASE.name: module.CASE for module in _MODULES}
