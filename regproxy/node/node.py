"""One machine, brought to where the settings want it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from attrs import define, field

from regproxy.node import actions
from regproxy.node.changes import Change
from regproxy.node.cluster import FAILED
from regproxy.node.errors import CommandFailed, NodeError
from regproxy.node.journal import Journal, Step
from regproxy.node.machine import Machine
from regproxy.node.names import Names
from regproxy.node.runtimes import Runtimes
from regproxy.node.services import Services
from regproxy.node.settings import Mode, Settings


class Turns(Protocol):
    """What :class:`regproxy.node.cluster.Cluster` is to a machine."""

    def turn(self) -> AbstractContextManager[None]:
        """Wait for this machine's turn."""

    def label(self, value: str | None) -> None:
        """Say how the machine is configured."""


class Alone:
    """For a machine without a cluster: it is always its turn."""

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Do not wait."""
        yield

    def label(self, value: str | None) -> None:
        """There is nobody to tell."""


@define
class Node:
    """A machine of a cluster.

    Attributes:
        reach: sees that what the machine is to be pointed at answers; raises Unreachable.
        log: is told what happens.
    """

    machine: Machine
    services: Services
    turns: Turns
    reach: Callable[[Settings], object]
    log: Callable[[str], object]
    # With these it did not work: what was there before stays, until there are others.
    _failed: Settings | None = field(default=None, init=False)

    def configure(self, settings: Settings) -> None:
        """Change what has to be changed, when it is this machine's turn, and nothing else.

        Where a daemon does not come back, or a file cannot be written, all is put back.

        Raises:
            NodeError: the machine is not as the settings want it.
            OSError: the same.
        """
        try:
            self._configure(settings)
        except (NodeError, OSError):
            self.turns.label(FAILED)
            raise
        self.turns.label(None if settings.mode is Mode.UNDO else settings.mode)

    def _configure(self, settings: Settings) -> None:
        journal = Journal.open(self.machine)
        if self._plan(journal, settings) or journal.pending:
            if settings.mode is not Mode.UNDO and settings != self._failed:
                self.reach(settings)
            with self.turns.turn():
                self._take(journal, settings)
        if settings == self._failed:
            raise NodeError("these settings did not work here: nothing is changed any more")

    def _take(self, journal: Journal, settings: Settings) -> None:
        try:
            # Made again: the turn may have been a long time coming.
            self._bring(journal, self._plan(journal, settings))
        except (CommandFailed, OSError) as error:
            if settings.mode is Mode.UNDO or settings == self._failed:
                raise
            self.log(f"putting everything back: {error}")
            self._failed = settings
            self._bring(journal, journal.plan(()))
            raise

    def _plan(self, journal: Journal, settings: Settings) -> list[Step]:
        if settings.mode is Mode.UNDO or settings == self._failed:
            return journal.plan(())
        changes: list[Change] = Runtimes(self.machine, self.services).changes(settings)
        if settings.mode is Mode.DNS:
            changes += Names(self.machine, self.services).changes(settings)
        return journal.plan(changes)

    def _bring(self, journal: Journal, steps: list[Step]) -> None:
        for step in steps:
            self.log(f"{'removing' if step.content is None else 'writing'} {step.path}")
        journal.take(steps)
        journal.carry_out(self._carry_out)

    def _carry_out(self, action: str) -> None:
        self.log(action)
        actions.carry_out(action, self.machine, self.services)
