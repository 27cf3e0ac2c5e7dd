"""``export`` and ``import``."""

from __future__ import annotations

from pathlib import Path

import click

from regproxy.cli import carry
from regproxy.cli.archive import open_archive
from regproxy.cli.jobs import bars
from regproxy.cli.output import Output, size_text
from regproxy.cli.session import Session, output_option, pass_session, platform_option
from regproxy.cli.values import ImageTree, read
from regproxy.oci.manifests import Platform


@click.command()
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@platform_option(
    "Only this platform; may be given more than once. [default: all that are stored as a whole]"
)
@output_option
@pass_session
def export(
    session: Session,
    images: tuple[str, ...],
    file: Path,
    platforms: tuple[Platform, ...],
    output: Output,
) -> None:
    """Write stored images to FILE, a tar archive.

    It is an OCI image layout and an archive of docker save in one: for regproxy import, docker
    load, podman load, ctr images import, skopeo. docker load wants one platform.
    """
    client = session.client
    trees = [read(ImageTree, client.get("image", reference=image)) for image in images]
    by_reference = {tree.image.reference: carry.pack(tree, platforms) for tree in trees}
    parcels = list(by_reference.values())
    sizes = {digest: size for parcel in parcels for digest, size in parcel.sizes.items()}
    with bars(output) as progress:
        task = progress.add_task(file.name, total=sum(sizes.values()))
        carry.export(client, parcels, file, lambda count: progress.advance(task, count))
    if output.json:
        output.lines(
            {
                "reference": parcel.name,
                "digest": parcel.tree.manifest.digest,
                "platforms": [each.platform for each in parcel.images],
                "left_out": parcel.left_out,
                "bytes": sum(parcel.sizes.values()),
            }
            for parcel in parcels
        )
        return
    for parcel in parcels:
        name = parcel.name
        output.text(f"{name}: {size_text(sum(parcel.sizes.values()))}")
        for each in parcel.left_out:
            output.remark(f"{name}: {each} is not stored as a whole and was left out")
        if not carry.is_loadable(parcel):
            output.remark(f"{name}: docker load does not take it; see --platform")


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--name",
    metavar="HOST/REPOSITORY:TAG",
    help="The name for the image, instead of the one in the archive.",
)
@output_option
@pass_session
def import_(session: Session, file: Path, name: str | None, output: Output) -> None:
    """Store the images of FILE, so that clients can pull them.

    Takes tar archives in the form of an OCI image layout or of docker save, compressed with
    gzip, bzip2, xz or not at all. Nothing of a damaged or dubious archive gets a name.
    """
    with open_archive(file) as archive:
        bundle = carry.read_bundle(archive)
        names = carry.named(bundle, name)
        with bars(output) as progress:
            task = progress.add_task(
                file.name, total=sum(each.size for each in bundle.contents.values())
            )
            carry.import_(
                session.client, bundle, names, lambda count: progress.advance(task, count)
            )
    if output.json:
        output.lines(
            {
                "reference": reference,
                "digest": str(image.digest),
                "media_type": image.media_type,
                "left_out": image.left_out,
            }
            for reference, image in names.items()
        )
        return
    for reference, image in names.items():
        output.text(f"{reference}: {image.digest}")
        for each in image.left_out:
            output.remark(f"{reference}: {each} is not in the archive")
