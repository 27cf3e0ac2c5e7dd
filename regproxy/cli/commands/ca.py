"""``ca`` and what is below it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, BinaryIO

import click
from rich.text import Text

from regproxy.cli.output import Output, facts, span_text, styled
from regproxy.cli.session import Session, output_option, pass_session, yes_option
from regproxy.cli.values import CA, Root, read


@click.group()
def ca() -> None:
    """Show, hand out and replace the certificate authority."""


@ca.command()
@output_option
@pass_session
def show(session: Session, output: Output) -> None:
    """Show the CA, its successor and its predecessors."""
    _print(output, session.client.get("ca"))


@ca.command()
@click.argument("file", type=click.File("wb"), default="-")
@click.option("--der", is_flag=True, help="The certificate in use only, in DER form.")
@pass_session
def export(session: Session, file: BinaryIO, der: bool) -> None:
    """Write what clients are to trust to FILE, or to standard output.

    That is the certificate in use and, once announced, its successor, in PEM form.
    """
    # Asked for first: the file is opened, and emptied, when something is to be written.
    certificates = session.client.page("/ca.der" if der else "/ca.crt")
    file.write(certificates)


@ca.command()
@output_option
@pass_session
def announce(session: Session, output: Output) -> None:
    """Make the next CA, and hand it out beside this one.

    It signs nothing before `regproxy ca rotate`. Until then all clients have to learn of it.
    """
    _print(output, session.client.post("ca/announce"))


@ca.command()
@yes_option
@output_option
@pass_session
def rotate(session: Session, yes: bool, output: Output) -> None:
    """Sign with the announced CA from now on.

    Clients that do not trust it yet can pull nothing any more.
    """
    if not yes:
        click.confirm("Do all clients trust the next CA already?", abort=True, err=True)
    _print(output, session.client.post("ca/rotate"))


def _print(output: Output, value: Any) -> None:
    if output.json:
        output.value(value)
        return
    state = read(CA, value)
    rows: list[tuple[str, str | Text]] = [("In use", _root(state))]
    if state.next is not None:
        rows.append(("Next", _root(state.next)))
    rows += [("Before", _root(each)) for each in state.previous]
    output.console.print(facts(*rows))


def _root(root: CA | Root) -> Text:
    left = span_text(root.not_after - datetime.now(UTC))
    return styled(
        f"{root.subject}, until {root.not_after:%Y-%m-%d} ({left}), SHA-256 {root.fingerprint}"
    )
