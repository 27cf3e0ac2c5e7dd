"""Media types of manifests, and the Accept field (RFC 9110 section 12.5.1)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final

from attrs import frozen

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"

#: What this proxy accepts when it asks for itself: an index before one of its manifests.
DEFAULT_ACCEPT: Final = ", ".join((OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST))

# The four types with commas take 212 characters, and no known client sends twice that.
_MAX_LENGTH: Final = 512
_QVALUE: Final = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")


@frozen(order=True)
class _MediaRange:
    """One member of Accept, in lower case and without white space."""

    name: str
    parameters: tuple[str, ...]
    quality: float

    def __str__(self) -> str:
        quality = () if self.quality == 1 else (f"q={self.quality:g}",)
        return ";".join((self.name, *self.parameters, *quality))


def normalise_accept(values: Sequence[bytes]) -> str:
    """One text for all the ways to say what a client accepts.

    *values* are the lines of Accept. Two clients with the same text get the same answer for
    a tag, so the text keeps everything that may change one: types, parameters and
    qualities other than 1, among them 0. Order, case, white space and repetition change
    nothing and are dropped. No Accept gives an empty text and not ``*/*``: registries
    do answer the two differently.

    The text has at most 512 characters; beyond that it is a hash.
    """
    return _normalised(b",".join(values))


# A fleet's clients say the same again and again, and each line has at most 16 KiB.
@lru_cache(maxsize=256)
def _normalised(value: bytes) -> str:
    text = ",".join(str(media_range) for media_range in sorted(set(_ranges([value]))))
    if len(text) <= _MAX_LENGTH:
        return text
    # With a space, so that no client can write it.
    return "sha256 " + hashlib.sha256(text.encode()).hexdigest()


def accepts(values: Sequence[bytes], media_type: str) -> bool:
    """Whether lines of Accept allow *media_type*; the most specific range decides.

    No Accept allows everything. Parameters of ranges are not compared: manifests have
    none.
    """
    name = _essence(media_type)
    wildcards = (name, f"{name.partition('/')[0]}/*", "*/*")
    found = [
        (wildcards.index(media_range.name), -media_range.quality)
        for media_range in _ranges(values)
        if media_range.name in wildcards
    ]
    if not found:
        return not any(True for _ in _ranges(values))
    return min(found)[1] < 0


def _essence(media_type: str) -> str:
    return media_type.partition(";")[0].strip().lower()


def _ranges(values: Sequence[bytes]) -> Iterator[_MediaRange]:
    for member in b",".join(values).decode("latin-1").lower().split(","):
        name, *parameters = ("".join(part.split()) for part in member.split(";"))
        if not name:
            continue
        quality = 1.0
        kept = []
        for parameter in filter(None, parameters):
            key, _, value = parameter.partition("=")
            if key == "q" and _QVALUE.fullmatch(value):
                quality = float(value)
            else:
                kept.append(parameter)
        yield _MediaRange(name, tuple(sorted(kept)), quality)
