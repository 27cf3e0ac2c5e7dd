"""What ends a command early: one line that says what is wrong and what to do, and a status.

click prints such an error and exits with its ``exit_code``.
"""

from __future__ import annotations

import click


def plain(text: str) -> str:
    """*text* on one line, without anything that a terminal would act upon.

    Names and messages come from a server, which has them from others.
    """
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for character in " ".join(text.split())
    )


class CommandFailed(click.ClickException):
    """What was asked for was not done."""

    def __init__(self, message: str) -> None:
        super().__init__(plain(message))


class NotReachable(CommandFailed):
    """No regproxy answers at the URL."""

    exit_code = 3


class NotAllowed(CommandFailed):
    """The server wants a login, or another one."""

    exit_code = 4
