"""What a run of the benchmarks brought, as a file."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Final

from attrs import asdict, field, frozen
from cattrs import structure

from bench.case import Sample
from tests.support.programs import find

_ROOT: Final = Path(__file__).resolve().parent.parent
# How programs are made to tell their versions.
_ASKED: Final = {
    "nginx": "-v",
    "squid": "-v",
    "docker-registry": "--version",
    "dockerd": "--version",
    "skopeo": "--version",
}


@frozen
class Results:
    """What was measured, where, and of what.

    Attributes:
        date: of the run, as ISO 8601 has it.
        cases: the samples by case and contestant.
    """

    date: str
    machine: dict[str, str]
    versions: dict[str, str]
    cases: dict[str, dict[str, list[Sample]]] = field(factory=dict)

    def write(self, path: Path) -> None:
        """Write them to *path*."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Results:
        """What :meth:`write` wrote."""
        return structure(json.loads(path.read_text()), cls)


def versions() -> dict[str, str]:
    """Of regproxy, of what it is made with, and of the peers that are installed."""
    found = {"regproxy": f"{version('regproxy')} ({_commit()})"}
    found["Python"] = sys.version.split()[0]
    found |= {name: version(name) for name in ("Twisted", "pyOpenSSL", "cryptography")}
    for name, option in _ASKED.items():
        if path := find(name):
            found[name] = _told_by([str(path), option])
    drayage = Path(sys.executable).with_name("drayage")
    if drayage.exists():
        found["drayage"] = _told_by([str(drayage), "--version"])
    return found


def _told_by(command: list[str]) -> str:
    """The version number that *command* prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    output = done.stdout + done.stderr
    match = re.search(r"\d+(\.\d+)+\S*", output)
    if match is None:
        raise ValueError(f"{' '.join(command)} tells no version: {output}")
    return match[0].rstrip(",")


def _commit() -> str:
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
