"""The reference of the command line says what the commands say themselves.

``python -m tests.test_docs_cli`` brings it up to date.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
from twisted.trial.unittest import SynchronousTestCase

from regproxy.cli.main import main

REFERENCE = Path(__file__).resolve().parent.parent / "docs/reference/cli.md"
_SECTION = re.compile(r"^## `(regproxy[a-z -]*)`\n\n```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def helps(command: click.Command, parent: click.Context | None = None) -> Iterator[tuple[str, str]]:
    """Each command with what its ``--help`` prints at a terminal of 80 columns."""
    name = "regproxy" if parent is None else command.name
    context = click.Context(command, parent, name, terminal_width=80, **command.context_settings)
    yield context.command_path, f"{command.get_help(context)}\n"
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            yield from helps(command.commands[each], context)


def updated(text: str) -> str:
    """*text* with the help of each command as it is."""
    known = dict(helps(main))

    def section(match: re.Match[str]) -> str:
        return f"## `{match[1]}`\n\n```text\n{known[match[1]]}```"

    return _SECTION.sub(section, text)


class CommandReferenceTests(SynchronousTestCase):
    """``docs/reference/cli.md``"""

    maxDiff = None

    def test_commands(self) -> None:
        """All have a section."""
        found = [match[1] for match in _SECTION.finditer(REFERENCE.read_text())]
        self.assertEqual(sorted(found), sorted(name for name, _ in helps(main)))

    def test_helps(self) -> None:
        text = REFERENCE.read_text()
        self.assertEqual(text, updated(text))


if __name__ == "__main__":
    REFERENCE.write_text(updated(REFERENCE.read_text()))
