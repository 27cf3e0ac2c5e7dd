"""What has been changed on the machine, kept there, so that every byte can be put back.

Nothing is written before the journal says what was there and what has to be done afterwards. A
program that is killed in between finds that out at its next start.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import Any, Final

from attrs import asdict, define, evolve, field, frozen

from regproxy.node.actions import ordered
from regproxy.node.changes import Change, Kind, without
from regproxy.node.errors import Refused
from regproxy.node.machine import Machine, Stat

DIRECTORY: Final = "/var/lib/regproxy-node"
FILE: Final = f"{DIRECTORY}/journal.json"
# Another after each start of the system.
_BOOT: Final = "/proc/sys/kernel/random/boot_id"


@frozen
class Record:
    """What happened to one file.

    Attributes:
        original: what was there; None for no file.
        known: SHA-256 of the contents that *original* is the base of: what was written, and
            what it took the place of, which is still there after a kill in between.
        boot: during which run of the system; empty until it is known to be there.
    """

    kind: Kind
    values: tuple[str, ...]
    then: tuple[str, ...]
    original: bytes | None
    stat: Stat
    known: tuple[str, ...]
    boot: str

    def base(self, path: str, current: bytes | None) -> bytes | None:
        """What would be there without us.

        Raises:
            Refused: others have changed the file to something that cannot be read.
        """
        if self.kind is Kind.FILE or current is None or _digest(current) in self.known:
            return self.original
        return without(self.kind, path, current, self.values)


@frozen
class Step:
    """One file that has to change.

    Attributes:
        content: what it gets; None removes it.
        record: what there is to know afterwards; None if it is as it was without us.
        then: actions.
    """

    path: str
    content: bytes | None
    stat: Stat
    record: Record | None
    then: tuple[str, ...]


@define
class Journal:
    """The journal of one machine.

    Attributes:
        records: by path.
        directories: those that were made for files, and are not gone.
        pending: actions that are due.
    """

    machine: Machine
    records: dict[str, Record] = field(factory=dict)
    directories: list[str] = field(factory=list)
    pending: list[str] = field(factory=list)

    @classmethod
    def open(cls, machine: Machine) -> Journal:
        """Read it; a machine that has none has not been changed."""
        content = machine.read(FILE)
        if content is None:
            # One that was made, and never got a journal.
            machine.remove_directory(DIRECTORY)
            return cls(machine)
        table = json.loads(content)
        records = {path: _read_record(value) for path, value in table["records"].items()}
        return cls(machine, records, table["directories"], table["pending"])

    def plan(self, changes: Iterable[Change]) -> list[Step]:
        """The steps to where *changes* hold, and nothing else of ours.

        Raises:
            Refused: a file cannot be changed, or somebody else does so all the time.
        """
        wanted = {change.path: change for change in changes}
        steps = [step for change in wanted.values() for step in self._towards(change)]
        # The other way round than they came.
        for path in reversed(self.records):
            if path not in wanted:
                record, current = self.records[path], self.machine.read(path)
                base = record.base(path, current)
                steps.append(Step(path, base, record.stat, None, record.then))
        return steps

    def _towards(self, change: Change) -> list[Step]:
        path, record = change.path, self.records.get(change.path)
        current = self.machine.read(path)
        if record is None:
            base, stat = current, self.machine.stat(path)
        else:
            base, stat = record.base(path, current), record.stat
            if change.kind is not Kind.FILE and change.make(current) == current:
                # In a form that somebody else gave it.
                return []
            if self._fought_over(path, record, current):
                raise Refused(
                    f"{path} was written anew by something that is not known here:"
                    f" have that name {' '.join(record.values)}"
                )
        content = change.make(base)
        if content == current:
            return []
        if content == base:
            return [Step(path, base, stat, None, change.then)]
        assert content is not None
        known = tuple(_digest(each) for each in (content, current) if each is not None)
        new = Record(change.kind, change.values, change.then, base, stat, known, boot="")
        return [Step(path, content, stat, new, change.then)]

    def _fought_over(self, path: str, record: Record, current: bytes | None) -> bool:
        """Whether what was put in front has been taken away since the system started."""
        return (
            record.kind is Kind.NAME_SERVERS
            and current is not None
            and record.boot == self._boot()
            and without(record.kind, path, current, record.values) == current
        )

    def take(self, steps: Sequence[Step]) -> None:
        """Take the steps. What is due afterwards is in ``pending``."""
        due = [action for step in steps for action in step.then]
        self.pending = ordered([*self.pending, *due])
        for step in steps:
            if step.record is None:
                self._write(step)
                self.records.pop(step.path, None)
            else:
                self.records[step.path] = step.record
                self._write(step)
                self.records[step.path] = evolve(step.record, boot=self._boot())
        self.directories = [
            directory
            for directory in reversed(self.directories)
            if not self.machine.remove_directory(directory)
        ][::-1]
        self.save()

    def _write(self, step: Step) -> None:
        if step.content is None:
            # Its actions are due whatever happens next.
            self.save()
            self.machine.remove(step.path)
            return
        directory = step.path.rpartition("/")[0]
        missing = self.machine.missing_directories(directory)
        self.directories += [new for new in missing if new not in self.directories]
        self.save()
        self.machine.make_directories(directory)
        self.machine.write(step.path, step.content, step.stat)

    def carry_out(self, do: Callable[[str], None]) -> None:
        """Carry out what is due, with *do*.

        An action is no longer due once it begins: the restart of dockerd may end this very
        program, which must not restart it again at its next start. One that fails is.
        """
        while self.pending:
            action = self.pending[0]
            self.pending = self.pending[1:]
            self.save()
            try:
                do(action)
            except BaseException:
                self.pending = ordered([*self.pending, action])
                self.save()
                raise

    def save(self) -> None:
        """Keep it on the machine; remove it when there is nothing to keep."""
        if not (self.records or self.directories or self.pending):
            self.machine.remove(FILE)
            self.machine.remove_directory(DIRECTORY)
            return
        table = {
            "records": {path: _record(record) for path, record in self.records.items()},
            "directories": self.directories,
            "pending": self.pending,
        }
        self.machine.make_directories(DIRECTORY)
        stat = evolve(self.machine.stat(FILE), mode=0o600)
        self.machine.write(FILE, json.dumps(table, indent=1).encode(), stat)

    def _boot(self) -> str:
        return (self.machine.read(_BOOT) or b"").decode().strip()


def _digest(content: bytes) -> str:
    return sha256(content).hexdigest()


def _record(record: Record) -> dict[str, Any]:
    original = None if record.original is None else b64encode(record.original).decode()
    return asdict(evolve(record, original=None)) | {"original": original}


def _read_record(table: dict[str, Any]) -> Record:
    original = table["original"]
    return Record(
        kind=Kind(table["kind"]),
        values=tuple(table["values"]),
        then=tuple(table["then"]),
        original=None if original is None else b64decode(original),
        stat=Stat(**table["stat"]),
        known=tuple(table["known"]),
        boot=table["boot"],
    )
