"""Daemons of the machine, under systemd or OpenRC."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from attrs import frozen

from regproxy.node.errors import CommandFailed
from regproxy.node.machine import Machine

_UNITS: Final = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
# What systemctl(1) takes for a machine that runs it, as sd_booted(3) does.
_BOOTED: Final = "/run/systemd/system"
# Seconds for a daemon to be active and to stay so: one that ends at once over its
# configuration is restarted by systemd a few times first.
_SETTLE: Final = 3.0
_POLL: Final = 0.5


@frozen
class Services:
    """The daemons."""

    machine: Machine
    sleep: Callable[[float], object] = time.sleep

    @property
    def systemd(self) -> bool:
        """Whether systemd runs them; else it is OpenRC."""
        return self.machine.exists(_BOOTED)

    def has(self, name: str) -> bool:
        """Whether there is a daemon of this name."""
        if self.systemd:
            return any(self.machine.exists(f"{unit}/{name}.service") for unit in _UNITS)
        return self.machine.exists(f"/etc/init.d/{name}")

    def active(self, name: str) -> bool:
        """Whether it runs."""
        if self.systemd:
            return self.machine.succeeds("systemctl", "--quiet", "is-active", name)
        return self.machine.succeeds("rc-service", name, "status")

    def restart(self, name: str) -> None:
        """Restart it, if it runs, and see it run on.

        Raises:
            CommandFailed: it does not.
        """
        if not self.active(name):
            return
        self._command("restart", name)
        for _ in range(int(_SETTLE / _POLL)):
            self.sleep(_POLL)
            if not self.active(name):
                raise CommandFailed(f"{name} ended after its restart")

    def reload(self, name: str) -> None:
        """Have it read its configuration again, if it runs.

        Raises:
            CommandFailed: it cannot.
        """
        if self.active(name):
            self._command("reload", name)

    def read_units(self) -> None:
        """Have systemd read changed units. OpenRC reads them at each start."""
        if self.systemd:
            self.machine.run("systemctl", "daemon-reload")

    def _command(self, verb: str, name: str) -> None:
        if self.systemd:
            self.machine.run("systemctl", verb, name)
        else:
            self.machine.run("rc-service", name, verb)
