"""The benchmarks, one module each with a ``CASE``."""

from __future__ import annotations

from typing import Final

from bench.case import Case
from bench.cases import handshakes, herd, small, warm_tls

#: In the order of the table.
CASES: Final[dict[str, Case]] = {
    module.CASE.name: module.CASE for module in (warm_tls, small, handshakes, herd)
}
