"""What tests of the set-up scripts have in common: scripts, and machines that root runs them on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from regproxy.management.setup.choices import Choices
from regproxy.management.setup.facts import Door, Facts
from regproxy.management.setup.kinds import KINDS, Kind, Mode
from regproxy.management.setup.scripts import Authority, script
from regproxy.oci.names import Host
from tests.support.certificates import make_ca
from tests.support.machines import DEBIAN, Family, Machine
from tests.support.process import Result
from tests.support.programs import needs, needs_root

FACTS: Final = Facts(
    proxy_port=3128,
    mirror=Door("http", 5000),
    name_server="10.0.0.5",
    registries=(Host("docker.io"), Host("ghcr.io"), Host("registry.example.com", 5000)),
    plain_http=False,
)
PROXY: Final = Host("proxy.example.net", 3128)
PEM: Final = make_ca().certificate_pem
UNITS: Final = sorted({unit for kind in KINDS.values() for unit in kind.units})


def made(name: str, *, pem: bytes | None = PEM, at: Host = PROXY, **query: str) -> str:
    """The script *name*; without *pem* the one that fetches the CA."""
    kind = KINDS[name]
    authority = Authority.of(PEM if pem is None else pem)
    if pem is None:
        authority = evolve(authority, certificates=())
    return script(Choices.read(kind, query, at, FACTS), FACTS, authority)


def on_machines() -> Iterator[tuple[Kind, Mode]]:
    """All scripts for the machine that they run on."""
    for kind in KINDS.values():
        if kind.name != "kind":
            yield from ((kind, mode) for mode in kind.modes)


@needs_root
@needs("chroot", "busybox", "dash")
class MachineTestCase(SynchronousTestCase):
    """A machine where all services run."""

    def machine(self, family: Family = DEBIAN) -> Machine:
        """A new one."""
        return Machine(Path(self.mktemp()).resolve(), family, UNITS)

    def succeed(self, result: Result, said: str = "") -> None:
        """The script ended well, and said this among other things."""
        self.assertIn(said, result.check())

    def refuse(self, result: Result, said: str) -> None:
        """The script ended with this message."""
        self.assertEqual(result.code, 1, str(result))
        self.assertIn(said, result.output)
