"""What has to be done when files have changed. An action is a word, or a word and a daemon.

They are kept in the journal as these words, so that a program that starts after a crash knows
what is left to do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from regproxy.node import trust
from regproxy.node.machine import Machine
from regproxy.node.services import Services

#: The system's store of certificates is made anew.
TRUST: Final = "trust"
#: systemd reads its units again.
UNITS: Final = "units"
#: resolvconf(8) makes resolv.conf anew.
RESOLVCONF: Final = "resolvconf"


def restart(daemon: str) -> str:
    """The action that restarts a daemon."""
    return f"restart {daemon}"


def reload(daemon: str) -> str:
    """The action that has a daemon read its configuration."""
    return f"reload {daemon}"


def ordered(actions: Iterable[str]) -> list[str]:
    """Each once, in the order in which they depend on each other.

    Daemons read certificates and units at their start, so they come last; a restart makes a
    reload needless.
    """
    wanted = set(actions)
    for action in list(wanted):
        verb, _, daemon = action.partition(" ")
        if verb == "reload" and restart(daemon) in wanted:
            wanted.remove(action)
    first = [action for action in (TRUST, UNITS, RESOLVCONF) if action in wanted]
    return first + sorted(wanted.difference(first))


def carry_out(action: str, machine: Machine, services: Services) -> None:
    """Do it.

    Raises:
        CommandFailed: the machine cannot.
    """
    match action.split(" "):
        case ["trust"]:
            trust.update(machine)
        case ["units"]:
            services.read_units()
        case ["resolvconf"]:
            machine.run("resolvconf", "-u")
        case ["restart", daemon]:
            services.restart(daemon)
        case ["reload", daemon]:
            services.reload(daemon)
        case _:
            raise ValueError(f"no such action: {action}")
