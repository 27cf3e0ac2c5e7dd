"""Commands that need no server: ``check-config``, ``hash-password``, ``completion``."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from regproxy.cli.errors import CommandFailed
from regproxy.cli.passwords import htpasswd_line


@click.command("check-config")
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_context
def check_config(context: click.Context, file: Path) -> None:
    """Check a configuration file, and print it with all defaults.

    Secrets are masked. What is wrong is told line by line, each with the key.
    """
    # It takes longer to import than all else together.
    from regproxy.config.load import ConfigError, effective, load

    try:
        config = load(file)
    except ConfigError as error:
        click.echo(str(error), err=True)
        context.exit(1)
    click.echo(effective(config), nl=False)


@click.command("hash-password")
@click.argument("user")
def hash_password(user: str) -> None:
    """Print a line for an htpasswd file that lets USER in.

    The file is htpasswd_file of [management]. Asks for the password; where standard input is no
    terminal, its first line is the password.
    """
    if sys.stdin.isatty():
        password: str = click.prompt(
            "Password", hide_input=True, confirmation_prompt=True, err=True
        )
    else:
        password = sys.stdin.readline().removesuffix("\n")
    click.echo(htpasswd_line(user, password))


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that completes the words of this command.

    \b
    regproxy completion bash > /etc/bash_completion.d/regproxy
    regproxy completion fish > ~/.config/fish/completions/regproxy.fish
    regproxy completion zsh > "${fpath[1]}/_regproxy"
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise CommandFailed(f"there is no completion for {shell}")
    root = context.find_root()
    click.echo(kind(root.command, {}, "regproxy", "_REGPROXY_COMPLETE").source())
