"""``warm``, ``verify``, ``gc`` and ``purge``: what the store is told to do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

import click

from regproxy.cli.jobs import conclude, follow
from regproxy.cli.output import Output, size_text
from regproxy.cli.session import (
    Session,
    output_option,
    pass_session,
    platform_option,
    yes_option,
)
from regproxy.cli.values import Purged, read
from regproxy.config.units import parse_duration
from regproxy.oci.manifests import Platform


def _duration(text: str) -> int:
    """The seconds of an option, written as in the configuration."""
    try:
        return int(parse_duration(text))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.argument("images", metavar="[IMAGE]...", nargs=-1)
@platform_option("Fetch this platform, and not all; may be given more than once.")
@click.option(
    "--file",
    "file",
    type=click.File("r", encoding="utf-8"),
    help="Fetch the images that this file names too, one a line; # begins a comment."
    " A dash stands for standard input.",
)
@output_option
@pass_session
def warm(
    session: Session,
    images: tuple[str, ...],
    platforms: tuple[Platform, ...],
    file: TextIO | None,
    output: Output,
) -> None:
    """Fetch images into the store before somebody needs them.

    Waits until they are there; Ctrl-C cancels it.
    """
    wanted = [*images, *(() if file is None else _listed(file))]
    if not wanted:
        raise click.UsageError("name at least one IMAGE, or give --file")
    body = {
        "images": list(dict.fromkeys(wanted)),
        "platforms": [str(each) for each in platforms] or None,
    }
    _work(session, output, "warm", body)


@click.command()
@output_option
@pass_session
def verify(session: Session, output: Output) -> None:
    """Read all that is stored and compare it with its digests.

    What is damaged is set aside, and fetched anew when somebody asks for it. Ctrl-C cancels it.
    """
    _work(session, output, "verify")


@click.command()
@output_option
@pass_session
def gc(session: Session, output: Output) -> None:
    """Forget what nobody needs, and evict what is too much.

    Files and index are brought together on the way. Ctrl-C cancels it.
    """
    _work(session, output, "gc")


@click.command()
@click.argument("images", metavar="[IMAGE]...", nargs=-1)
@click.option("--registry", metavar="HOST", help="All images of this registry.")
@click.option("--repository", metavar="HOST/NAME", help="All images of this repository.")
@click.option(
    "--unused-for",
    metavar="DURATION",
    type=_duration,
    help="Images that nobody has asked for in this time, such as 30d or 12h.",
)
@yes_option
@output_option
@pass_session
def purge(
    session: Session,
    images: tuple[str, ...],
    registry: str | None,
    repository: str | None,
    unused_for: int | None,
    yes: bool,
    output: Output,
) -> None:
    """Remove images by name, or by what they have in common.

    Of several conditions all have to hold. Pinned images stay. Content that other images need
    stays too.
    """
    body = {
        "images": list(images) or None,
        "registry": registry,
        "repository": repository,
        "unused_for": unused_for,
    }
    given = {key: value for key, value in body.items() if value is not None}
    if not given:
        raise click.UsageError("say what to purge: an IMAGE, or one of the options")
    if not yes:
        click.confirm("Remove these images from the store?", abort=True, err=True)
    purged = session.client.post("purge", given)
    if output.json:
        output.value(purged)
    else:
        value = read(Purged, purged)
        size = size_text(value.bytes)
        output.text(f"{value.images:,} images, {value.blobs:,} blobs, {size} removed")


def _work(session: Session, output: Output, path: str, body: object = None) -> None:
    client = session.client
    conclude(output, follow(client, output, client.post(path, body)))


def _listed(file: Iterable[str]) -> Iterable[str]:
    for line in file:
        image = line.partition("#")[0].strip()
        if image:
            yield image
