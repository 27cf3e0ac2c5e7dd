"""``images`` and what is below it."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from regproxy.cli import images_view
from regproxy.cli.output import Output
from regproxy.cli.session import Session, output_option, pass_session
from regproxy.cli.values import Image, ImageTree, read


@click.group()
def images() -> None:
    """List, show, remove and pin stored images."""


@images.command("ls")
@click.argument("text", required=False)
@click.option("--registry", metavar="HOST", help="Images of this registry only.")
@click.option("--repository", metavar="HOST/NAME", help="Images of this repository only.")
@click.option(
    "--sort",
    type=click.Choice(["last_used", "bytes", "reference"]),
    default="last_used",
    show_default=True,
)
@output_option
@pass_session
def list_images(
    session: Session,
    text: str | None,
    registry: str | None,
    repository: str | None,
    sort: str,
    output: Output,
) -> None:
    """List stored images; with TEXT, those that have it in their names.

    As JSON, each image is an object on a line of its own.
    """
    found = session.client.items(
        "images", q=text, registry=registry, repository=repository, sort=sort
    )
    if output.json:
        output.lines(found)
    else:
        values = (read(Image, each) for each in found)
        output.console.print(images_view.images(values, datetime.now(UTC)))


@images.command()
@click.argument("image")
@output_option
@pass_session
def show(session: Session, image: str, output: Output) -> None:
    """Show what IMAGE consists of and what of it is stored."""
    tree = session.client.get("image", reference=image)
    if output.json:
        output.value(tree)
    else:
        output.console.print(images_view.image(read(ImageTree, tree), datetime.now(UTC)))


@images.command("rm")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@pass_session
def remove(session: Session, images: tuple[str, ...]) -> None:
    """Remove images, pinned or not.

    The next pull brings them from upstream again. What other images need stays.
    """
    for image in images:
        session.client.delete("image", reference=image)


@images.command()
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@pass_session
def pin(session: Session, images: tuple[str, ...]) -> None:
    """Keep images when others are evicted or purged."""
    for image in images:
        session.client.put("image/pin", reference=image)


@images.command()
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@pass_session
def unpin(session: Session, images: tuple[str, ...]) -> None:
    """Let images be evicted and purged again."""
    for image in images:
        session.client.delete("image/pin", reference=image)
