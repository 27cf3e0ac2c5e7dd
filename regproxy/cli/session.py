"""What all commands share: the server that they talk to, and the output."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from attrs import define

from regproxy.cli.client import Client
from regproxy.cli.output import Output
from regproxy.cli.settings import Options, find_settings
from regproxy.oci.manifests import Platform, PlatformInvalid

_Command = TypeVar("_Command", bound=Callable[..., Any])

FILE: Final = "cli.toml"


@define(slots=False)
class Session:
    """One run of the command."""

    options: Options

    @cached_property
    def client(self) -> Client:
        """The server; who asks for it may be asked for a password."""
        file = Path(click.get_app_dir("regproxy"), FILE)
        return Client(find_settings(self.options, os.environ, file, _ask))


pass_session = click.make_pass_decorator(Session)


def output_option(command: _Command) -> _Command:
    """Give *command* ``--json`` and ``--text``; it gets an Output as ``output``."""
    option = click.option(
        "--json/--text",
        "output",
        default=None,
        callback=lambda context, parameter, value: Output(value),
        help="The form of what is printed. [default: text at a terminal, else JSON]",
    )
    return option(command)


def yes_option(command: _Command) -> _Command:
    """Give *command* ``--yes``."""
    return click.option("--yes", "-y", is_flag=True, help="Do not ask whether to go on.")(command)


def platform_option(help: str) -> Callable[[_Command], _Command]:
    """Give a command ``--platform``; it gets Platforms as ``platforms``."""
    return click.option(
        "--platform",
        "platforms",
        metavar="OS/ARCH[/VARIANT]",
        type=_platform,
        multiple=True,
        help=help,
    )


def _platform(text: str) -> Platform:
    try:
        return Platform.parse(text)
    except PlatformInvalid as error:
        raise click.BadParameter(error.message) from None


def _ask(user: str) -> str:
    password: str = click.prompt(f"Password of {user}", hide_input=True, err=True)
    return password
