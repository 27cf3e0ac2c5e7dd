"""Images from a regproxy into an archive, and from an archive into a regproxy."""

from __future__ import annotations

import json
import os
import secrets
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final

from attrs import Factory, define

from regproxy.cli import docker_save, oci_layout
from regproxy.cli.archive import Archive, ArchiveUnusable
from regproxy.cli.bundle import Bundle, CarriedImage, Verified
from regproxy.cli.client import BLOCK, Client
from regproxy.cli.errors import CommandFailed
from regproxy.cli.values import ImageTree, Manifest
from regproxy.oci.manifests import Platform, PlatformInvalid
from regproxy.oci.names import Digest

#: The media types of what ``docker load`` takes for the config of an image.
_CONFIGS: Final = (docker_save.OCI_CONFIG, "application/vnd.docker.container.image.v1+json")
# Content that is sent first: who may not send anything learns it before much is on its way.
_SMALL: Final = 1 << 16


@define
class Parcel:
    """What of one image goes into an archive.

    Attributes:
        sizes: of each content of it.
        images: its manifests for one platform each.
        left_out: platforms of which not everything is stored.
    """

    tree: ImageTree
    sizes: dict[Digest, int] = Factory(dict)
    images: list[Manifest] = Factory(list)
    left_out: list[str] = Factory(list)

    @property
    def name(self) -> str:
        """Of the image, with its registry."""
        return self.tree.image.reference


def pack(tree: ImageTree, platforms: Sequence[Platform]) -> Parcel:
    """What there is to carry of an image: all of it that is stored, or these *platforms*.

    Raises:
        CommandFailed: nothing of it is stored as a whole, or not each of *platforms*.
    """
    parcel = Parcel(tree)
    reference = parcel.name
    if not _pack(parcel, tree.manifest, platforms):
        options = "".join(f" --platform {each}" for each in platforms)
        raise CommandFailed(
            f"{reference} is not stored as a whole: fetch it first,"
            f" with regproxy warm{options} {reference}"
        )
    for wanted in platforms:
        if not any(_is_for(each, wanted) for each in parcel.images):
            raise CommandFailed(
                f"{reference} is not stored for {wanted}: fetch it first,"
                f" with regproxy warm --platform {wanted} {reference}"
            )
    return parcel


def _pack(parcel: Parcel, node: Manifest, platforms: Sequence[Platform]) -> bool:
    """Add what is below *node* to *parcel*, if it is there as a whole."""
    if not node.stored:
        return False
    wanted = [
        each
        for each in node.children
        if not platforms or any(_is_for(each, platform) for platform in platforms)
    ]
    there = [_pack(parcel, each, platforms) for each in wanted]
    parcel.left_out += (
        each.platform or each.digest
        for each, whole in zip(wanted, there, strict=True)
        # Build tools say so of what belongs to an image and is none: attestations.
        if not whole and each.platform != "unknown/unknown"
    )
    parts = [*node.layers] if node.config is None else [node.config, *node.layers]
    if not all(each.stored for each in parts) or (node.children and not any(there)):
        return False
    parcel.sizes |= {Digest.parse(each.digest): each.bytes for each in parts}
    if not node.children:
        parcel.images.append(node)
    parcel.sizes[Digest.parse(node.digest)] = node.bytes
    return True


def _is_for(node: Manifest, platform: Platform) -> bool:
    """Whether *node* is for *platform*, as far as is known."""
    if node.platform is None:
        return True
    try:
        return platform.is_met_by(Platform.parse(node.platform))
    except PlatformInvalid:
        # Whoever made the index may have left a part of it empty.
        return False


def export(
    client: Client, parcels: Sequence[Parcel], path: Path, moved: Callable[[int], object]
) -> None:
    """Write an archive of *parcels* at *path*; nothing is there until it is complete.

    It is an OCI layout, and has the ``manifest.json`` of ``docker save`` beside for the images
    that are for one platform. The same images make the same archive.

    Args:
        moved: is told of bytes that have been written.

    Raises:
        CommandFailed: the server or the disk does not play along.
    """
    documents = {
        oci_layout.LAYOUT: json.dumps(oci_layout.VERSION).encode(),
        oci_layout.INDEX: oci_layout.layout_index(map(_descriptor, parcels)),
        docker_save.MANIFEST: docker_save.saved_manifest(_saved(parcels)),
    }
    sizes = {digest: size for parcel in parcels for digest, size in parcel.sizes.items()}
    try:
        with (
            _appearing(path) as stream,
            tarfile.TarFile(fileobj=stream, mode="w", copybufsize=BLOCK) as tar,
        ):
            for name, content in documents.items():
                tar.addfile(_entry(name, len(content)), BytesIO(content))
            for digest, size in sizes.items():
                with client.download(f"blobs/{digest}/content") as response:
                    source = Verified(digest, size, response, moved)
                    tar.addfile(_entry(oci_layout.blob_name(digest), size), source)
    except OSError as error:
        raise CommandFailed(f"{path} cannot be written: {error.strerror or error}") from None


def _descriptor(parcel: Parcel) -> tuple[dict[str, object], str, str | None]:
    manifest, image = parcel.tree.manifest, parcel.tree.image
    descriptor: dict[str, object] = {
        "mediaType": image.media_type,
        "digest": manifest.digest,
        "size": manifest.bytes,
    }
    return descriptor, parcel.name, image.tag


def _saved(parcels: Sequence[Parcel]) -> Iterator[tuple[str, list[str], list[str]]]:
    """The images as MANIFEST of ``docker save`` describes them; it knows of no platforms."""
    for parcel in parcels:
        if is_loadable(parcel):
            [image] = parcel.images
            assert image.config is not None
            config, *layers = (
                oci_layout.blob_name(Digest.parse(each.digest))
                for each in (image.config, *image.layers)
            )
            yield config, [parcel.name] if parcel.tree.image.tag else [], layers


def is_loadable(parcel: Parcel) -> bool:
    """Whether ``docker load`` finds the image in the archive, in all releases."""
    configs = [image.config for image in parcel.images]
    return len(configs) == 1 and configs[0] is not None and configs[0].media_type in _CONFIGS


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry


@contextmanager
def _appearing(path: Path) -> Iterator[BinaryIO]:
    """A file that appears at *path* at the end, or not at all."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with partial.open("xb") as stream:
            yield stream
            # It may be on something that is about to be unplugged.
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_bundle(archive: Archive) -> Bundle:
    """The images of *archive*, whichever form it has.

    Raises:
        ArchiveUnusable: it has neither, or is damaged, or there are no images.
    """
    if oci_layout.LAYOUT in archive.files:
        bundle = oci_layout.read_layout(archive)
    elif docker_save.MANIFEST in archive.files:
        bundle = docker_save.read_saved(archive)
    else:
        raise ArchiveUnusable("neither an OCI layout nor made by docker save")
    if not bundle.images:
        raise ArchiveUnusable("no images in it")
    return bundle


def named(bundle: Bundle, name: str | None) -> Mapping[str, CarriedImage]:
    """The images of *bundle* by the references that they are to have; *name* is the user's.

    Raises:
        CommandFailed: it is not clear which image has which name.
    """
    if name is not None:
        if len(bundle.images) != 1:
            raise CommandFailed(
                f"the archive has {len(bundle.images)} images: --name is for archives with one"
            )
        return {name: bundle.images[0]}
    found: dict[str, CarriedImage] = {}
    for image in bundle.images:
        if not image.names:
            raise CommandFailed(
                f"the archive does not say which image {image.digest} is:"
                " say it with --name HOST/REPOSITORY:TAG"
            )
        found |= dict.fromkeys(image.names, image)
    return found


def import_(
    client: Client,
    bundle: Bundle,
    names: Mapping[str, CarriedImage],
    moved: Callable[[int], object],
) -> None:
    """Have the server store *bundle*, then give its images their *names*.

    What it has already is not sent again, so that an import that broke off goes on.

    Args:
        moved: is told of bytes that have been sent, or need not be.

    Raises:
        CommandFailed: the archive turns out to be damaged, or the server does not play along.
    """
    contents = sorted(
        bundle.contents.items(), key=lambda each: (each[1].size > _SMALL, each[1].place)
    )
    for digest, content in contents:
        if client.has(f"blobs/{digest}"):
            moved(content.size)
        else:
            source = Verified(digest, content.size, content.open(), moved)
            client.upload(f"blobs/{digest}", source, content.size)
    for reference, image in names.items():
        body = {"digest": str(image.digest), "media_type": image.media_type}
        client.post("image", body, reference=reference)
