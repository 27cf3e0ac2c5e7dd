"""The ``regproxy`` command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from regproxy import __version__
from regproxy.config.load import ConfigError, effective, load


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; *arguments* default to those of the process.

    Returns:
        The exit status: 0, or 1 when what was asked for failed.

    Raises:
        SystemExit: with 2 for a usage error, with 0 after ``--help`` and ``--version``.
    """
    options = _parser().parse_args(arguments)
    return check_config(options.file)


def check_config(path: Path) -> int:
    """Print the effective configuration with its secrets masked, or what is wrong."""
    try:
        config = load(path)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    print(effective(config), end="")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="regproxy", description="A caching, TLS-intercepting proxy for container registries."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    check = commands.add_parser(
        "check-config",
        help="check a configuration file and print the effective configuration",
        description="Check a configuration file and print the effective configuration.",
    )
    check.add_argument("file", metavar="FILE", type=Path)
    return parser
