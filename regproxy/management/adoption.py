"""Stored content that is to become an image because somebody says so: is all of it here?"""

from __future__ import annotations

from regproxy.oci.manifests import Manifest, ManifestInvalid
from regproxy.oci.names import Digest
from regproxy.registry.ask import OCTETS
from regproxy.store.catalog import Catalog
from regproxy.store.cataloguing import DEPTH, Cataloguing


class Unadoptable(Exception):
    """What is stored cannot become this image; the text says why."""


async def whole(
    root: Digest, media_type: str, cataloguing: Cataloguing, catalog: Catalog
) -> dict[Digest, str]:
    """All that is stored of an image, *root* first, with the media types.

    Of an index not all manifests have to be here: whoever carries an image carries some of its
    platforms. Of those that are, nothing may be missing.

    Raises:
        Unadoptable: something is, or is something else.
    """
    content: dict[Digest, str] = {}
    level = {root: media_type}
    usable = False
    for _ in range(DEPTH):
        content |= level
        below: dict[Digest, str] = {}
        for digest, kind in level.items():
            manifest = await _read(digest, kind, cataloguing)
            blobs = [part.digest for part in manifest.blobs if not part.foreign]
            found = await catalog.parts(blobs)
            missing = [digest for digest, part in found.items() if part.size is None]
            if missing:
                raise Unadoptable(f"{len(missing)} blobs are not stored here: {missing[0]} …")
            usable = usable or bool(blobs)
            content |= dict.fromkeys(blobs, OCTETS)
            below |= {part.digest: part.media_type for part in manifest.manifests}
        stored = await catalog.parts(below)
        level = {digest: kind for digest, kind in below.items() if stored[digest].size is not None}
    if not usable:
        raise Unadoptable(f"none of the images of {root} is stored here")
    return content


async def _read(digest: Digest, media_type: str, cataloguing: Cataloguing) -> Manifest:
    try:
        manifest = await cataloguing.manifest(digest)
    except ManifestInvalid as error:
        raise Unadoptable(f"{digest}: {error.message}") from error
    if manifest is None:
        raise Unadoptable(f"{digest} is not stored here")
    if not manifest.is_of(media_type):
        raise Unadoptable(f"{digest} is not of the media type {media_type}")
    return manifest
