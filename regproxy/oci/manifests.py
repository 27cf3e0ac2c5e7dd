"""What a manifest says an image consists of.

The forms are those of the OCI image specification 1.1, "Image Manifest" and "Image Index", and of
distribution's "Image Manifest V2, Schema 2", which agree in what is read here. A manifest is
content that somebody else wrote: it is read within bounds, and what could be read in two ways
is refused, as clients do (GHSA-mc8v-mgrf-8f4m).
"""

from __future__ import annotations

import json
from typing import Any, Final

from attrs import frozen

from regproxy.oci.errors import BadRequest, BlobDigestInvalid, shown
from regproxy.oci.media_types import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from regproxy.oci.names import Digest

#: Parts of one manifest. Images have at most 127 layers (moby's ``MaxLayerDepth`` is 125); an index
#: of all platforms of Debian has some twenty parts.
MAX_PARTS: Final = 4096
# Characters of a text in a descriptor: media types, names of platforms. RFC 6838 section 4.2
# allows a media type twice 127.
_MAX_TEXT: Final = 255
# A file of Linux, and the index column, count in 63 bits.
_MAX_SIZE: Final = (1 << 63) - 1

_INDICES: Final = (OCI_INDEX, DOCKER_LIST)
_MANIFESTS: Final = (OCI_MANIFEST, DOCKER_MANIFEST)
# "Image Layer Filesystem Changeset", "Non-Distributable Layers", and Docker's own before it.
_FOREIGN: Final = (
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
)


class ManifestInvalid(BadRequest):
    """Content is no manifest that an image could be read from."""

    code = "MANIFEST_INVALID"

    def __init__(self, reason: str) -> None:
        super().__init__(f"not a manifest of an image: {reason}")


class PlatformInvalid(BadRequest):
    """A text names no platform."""

    def __init__(self, text: str) -> None:
        super().__init__(f"invalid platform {shown(text)}: give it as linux/amd64, or linux/arm/v7")


@frozen
class Platform:
    """What an image runs on: ``linux/arm64/v8``.

    Attributes:
        variant: of the architecture; empty when it has none, or none is said.
    """

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read ``OS/ARCHITECTURE`` or ``OS/ARCHITECTURE/VARIANT``.

        Raises:
            PlatformInvalid: it is neither.
        """
        parts = text.split("/")
        if not 2 <= len(parts) <= 3 or not all(parts) or len(text) > _MAX_TEXT:
            raise PlatformInvalid(text)
        return cls(*parts)

    def is_met_by(self, other: Platform) -> bool:
        """Whether an image for *other* is what is wanted here: no variant means any."""
        return (self.os, self.architecture) == (other.os, other.architecture) and (
            self.variant in ("", other.variant)
        )

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


@frozen
class Part:
    """What a manifest says of one thing that it names: a descriptor.

    Attributes:
        size: in bytes.
        platform: for the manifests of an index; None when none is said.
        foreign: it is fetched from somewhere else than the registry, as base layers of
            Windows once were.
    """

    digest: Digest
    media_type: str
    size: int
    platform: Platform | None = None
    foreign: bool = False

    @property
    def is_manifest(self) -> bool:
        """Whether a member of an index is a manifest. Caches of BuildKit have blobs there."""
        return self.media_type in _INDICES or self.media_type in _MANIFESTS


@frozen
class ImageManifest:
    """One image, or another artifact in its form.

    Attributes:
        media_type: as the content itself says; None when it does not.
    """

    media_type: str | None
    config: Part | None
    layers: tuple[Part, ...]

    @property
    def manifests(self) -> tuple[Part, ...]:
        """None."""
        return ()

    @property
    def blobs(self) -> tuple[Part, ...]:
        """The configuration and the layers, each once."""
        return _unique(self.layers if self.config is None else (self.config, *self.layers))

    def is_of(self, media_type: str) -> bool:
        """Whether it may be served under *media_type*."""
        return media_type in _MANIFESTS and self.media_type in (None, media_type)


@frozen
class ImageIndex:
    """Several manifests under one name.

    Attributes:
        media_type: as the content itself says; None when it does not.
    """

    media_type: str | None
    children: tuple[Part, ...]

    @property
    def manifests(self) -> tuple[Part, ...]:
        """Its manifests, each once."""
        return _unique(tuple(part for part in self.children if part.is_manifest))

    @property
    def blobs(self) -> tuple[Part, ...]:
        """What else it names, each once."""
        return _unique(tuple(part for part in self.children if not part.is_manifest))

    def is_of(self, media_type: str) -> bool:
        """Whether it may be served under *media_type*."""
        return media_type in _INDICES and self.media_type in (None, media_type)


Manifest = ImageManifest | ImageIndex


def parse_manifest(content: bytes) -> Manifest:
    """Read a manifest or an index. The caller has bounded the length of *content*.

    What it is shows in its fields, as not all say it: an index has ``manifests``, a manifest
    ``layers`` or ``config``.

    Raises:
        ManifestInvalid: it is neither, or may be both, or names something that cannot be verified.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        raise ManifestInvalid("it is no JSON") from None
    if not isinstance(value, dict):
        raise ManifestInvalid("it is no object")
    media_type = value.get("mediaType")
    if media_type is not None:
        media_type = _text(media_type, "mediaType")
    is_index = "manifests" in value
    if is_index and ("layers" in value or "config" in value):
        raise ManifestInvalid("it may be an index as well as a manifest")
    if media_type in (_MANIFESTS if is_index else _INDICES):
        raise ManifestInvalid("its mediaType is not what its fields are")
    if is_index:
        return ImageIndex(media_type, _parts(value, "manifests"))
    if "layers" not in value and "config" not in value:
        raise ManifestInvalid("it has neither manifests nor layers")
    config = value.get("config")
    return ImageManifest(
        media_type,
        None if config is None else _part(config, "config"),
        _parts(value, "layers"),
    )


def _parts(value: dict[str, Any], key: str) -> tuple[Part, ...]:
    found = value.get(key)
    if found is None:
        # As Go writes an empty list.
        return ()
    if not isinstance(found, list):
        raise ManifestInvalid(f"{key} is no list")
    if len(found) > MAX_PARTS:
        raise ManifestInvalid(f"{key} has {len(found)} members, and {MAX_PARTS} are read")
    return tuple(_part(each, f"{key}[{number}]") for number, each in enumerate(found))


def _part(value: Any, place: str) -> Part:
    if not isinstance(value, dict):
        raise ManifestInvalid(f"{place} is no object")
    try:
        digest = Digest.parse(_text(value.get("digest"), f"{place}.digest"))
    except BlobDigestInvalid as error:
        raise ManifestInvalid(f"{place}: {error.message}") from None
    size = value.get("size")
    if type(size) is not int or not 0 <= size <= _MAX_SIZE:
        raise ManifestInvalid(f"{place}.size is no number of bytes")
    media_type = _text(value.get("mediaType"), f"{place}.mediaType")
    platform = value.get("platform")
    return Part(
        digest,
        media_type,
        size,
        None if platform is None else _platform(platform, f"{place}.platform"),
        foreign=bool(value.get("urls")) and media_type.startswith(_FOREIGN),
    )


def _platform(value: Any, place: str) -> Platform:
    if not isinstance(value, dict):
        raise ManifestInvalid(f"{place} is no object")
    names = ("os", "architecture", "variant")
    return Platform(*(_text(value.get(name, ""), f"{place}.{name}") for name in names))


def _text(value: Any, place: str) -> str:
    if not (isinstance(value, str) and value.isascii() and value.isprintable()):
        raise ManifestInvalid(f"{place} is no plain text")
    if len(value) > _MAX_TEXT:
        raise ManifestInvalid(f"{place} has more than {_MAX_TEXT} characters")
    return value


def _unique(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    return tuple({part.digest: part for part in parts}.values())
