"""The system's store of certificates, by the kind of system."""

from __future__ import annotations

from typing import Final

from attrs import frozen

from regproxy.node.errors import Refused
from regproxy.node.machine import Machine

NAME: Final = "regproxy.crt"


@frozen
class Store:
    """Where a kind of system keeps certificates of its administrator's.

    Attributes:
        update: makes what programs read from them.
        update_all: the same, when one has gone.
    """

    directory: str
    update: tuple[str, ...]
    update_all: tuple[str, ...]

    @property
    def file(self) -> str:
        """Ours."""
        return f"{self.directory}/{NAME}"


# Debian's and SUSE's programs have one name and leave links to what has gone, without --fresh.
_STORES: Final = (
    Store("/etc/pki/ca-trust/source/anchors", ("update-ca-trust",), ("update-ca-trust",)),
    Store(
        "/etc/pki/trust/anchors",
        ("update-ca-certificates",),
        ("update-ca-certificates", "--fresh"),
    ),
    Store("/etc/ca-certificates/trust-source/anchors", ("update-ca-trust",), ("update-ca-trust",)),
    Store(
        "/usr/local/share/ca-certificates",
        ("update-ca-certificates",),
        ("update-ca-certificates", "--fresh"),
    ),
)


def store(machine: Machine) -> Store:
    """The store of this machine.

    Raises:
        Refused: none that is known. Nodes without one, such as Talos and Bottlerocket, have an
            API for it.
    """
    for found in _STORES:
        # Debian's directory is missing where nobody has put a certificate yet.
        here = machine.exists(found.directory) or found is _STORES[-1]
        if here and machine.has_program(found.update[0]):
            return found
    raise Refused(
        "no store of certificates that is known here: neither update-ca-certificates nor"
        " update-ca-trust is installed"
    )


def update(machine: Machine) -> None:
    """Make the files that programs read.

    Raises:
        CommandFailed: the system's program failed.
        Refused: as :func:`store` does.
    """
    found = store(machine)
    machine.run(*(found.update if machine.exists(found.file) else found.update_all))
