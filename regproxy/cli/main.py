"""The ``regproxy`` command."""

from __future__ import annotations

from pathlib import Path

import click

from regproxy import __version__
from regproxy.cli.commands import ca, carry, images, local, overview, work
from regproxy.cli.session import Session
from regproxy.cli.settings import Options

_EPILOG = """\
Exit status: 0 done; 1 not done, or not all of it; 2 the command line is wrong; 3 no regproxy
answers at the URL; 4 a login is wanted, or another one.
"""


@click.group(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="regproxy", message="%(prog)s %(version)s")
@click.option(
    "--url",
    metavar="URL",
    help="The management site. [env: REGPROXY_URL; default: http://127.0.0.1:8080]",
)
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file with the token on its first line. [env, the token itself: REGPROXY_TOKEN]",
)
@click.option(
    "--user",
    metavar="NAME",
    help="Log in as this user. [env: REGPROXY_USER; the password: REGPROXY_PASSWORD, else asked]",
)
@click.pass_context
def main(
    context: click.Context, url: str | None, token_file: Path | None, user: str | None
) -> None:
    """Look after a caching proxy for container registries.

    The server, and the login for what changes something, may also stand in
    ~/.config/regproxy/cli.toml: url, and token, token_file, or user and password.
    """
    context.obj = Session(Options(url, token_file, user))


for _command in (
    overview.status,
    overview.top,
    images.images,
    work.warm,
    work.verify,
    work.gc,
    work.purge,
    ca.ca,
    carry.export,
    carry.import_,
    local.check_config,
    local.hash_password,
    local.completion,
):
    main.add_command(_command)
