"""Processes with an ``/etc/hosts`` of their own, and addresses that only they use."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

from tests.support.proxy import Proxy, Tables


def loopback_address() -> str:
    """An address of the loopback interface, where nobody listens at 80 and 443."""
    return f"127.{random.randint(1, 254)}.{random.randint(0, 255)}.{random.randint(1, 254)}"


def seeing(file: Path, names: Mapping[str, str]) -> list[str]:
    """The beginning of a command line: what follows sees *names* at these addresses.

    Args:
        file: takes the place of ``/etc/hosts``. Root only.
    """
    file.write_text("".join(f"{address} {name}\n" for name, address in names.items()))
    script = 'mount --bind "$0" /etc/hosts && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, str(file)]


class SeeingProxy(Proxy):
    """A proxy that sees *names* at these addresses, and no others."""

    def __init__(self, directory: Path, tables: Tables, names: Mapping[str, str]) -> None:
        self._seeing = seeing(directory / "proxy-hosts", names)
        super().__init__(directory, tables)

    def arguments(self) -> list[str]:
        return [*self._seeing, *super().arguments()]
