"""Names of the registry protocol, parsed once at the edge into types.

The grammars are those of the OCI distribution specification 1.1, section
"Pulling manifests" (repository and tag), and of the OCI image specification,
"Descriptors" (digest). Host identity follows what Docker's reference
library does: lower case, and Docker Hub has one canonical name.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Final

from attrs import field, frozen

from regproxy.oci.errors import (
    BlobDigestInvalid,
    DigestUnsupported,
    HostInvalid,
    NameInvalid,
    TagInvalid,
)

DOCKER_HUB: Final = "registry-1.docker.io"
# "docker.io" is what people write, "index.docker.io" what dockerd calls its
# default registry; both are served by registry-1.docker.io.
_ALIASES: Final = {"docker.io": DOCKER_HUB, "index.docker.io": DOCKER_HUB}

HTTPS_PORT: Final = 443

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
# The distribution specification lets implementations limit host and name
# together to 255 characters; so do docker and distribution.
_REPOSITORY_MAX: Final = 255
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_HEX_LENGTHS: Final = {"sha256": 64, "sha512": 128}
#: The algorithms of digests that can be verified here.
ALGORITHMS: Final = tuple(_HEX_LENGTHS)
_DIGEST = re.compile(r"([a-z0-9]+(?:[+._-][a-z0-9]+)*):([a-zA-Z0-9=_-]+)")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_PORT = re.compile(r"[0-9]{1,5}")


@frozen(order=True)
class Host:
    """A registry's identity: lower-case host name or address, and port.

    IPv6 addresses are kept without brackets, in their shortest form.
    """

    name: str
    port: int = HTTPS_PORT

    @classmethod
    def parse(cls, text: str, default_port: int = HTTPS_PORT) -> Host:
        """Read ``host``, ``host:port``, ``[v6]`` or ``[v6]:port``.

        A trailing dot of a fully qualified name is dropped, as RFC 6066
        section 3 asks of SNI.

        Raises:
            HostInvalid: *text* is not a host with an optional port.
        """
        return _parse_host(text, default_port)

    @property
    def is_address(self) -> bool:
        """Whether the name is a literal IPv4 or IPv6 address."""
        return _is_address(self.name)

    @property
    def canonical(self) -> Host:
        """The host whose content this one serves: Docker Hub's aliases become one."""
        if self.port == HTTPS_PORT and self.name in _ALIASES:
            return Host(_ALIASES[self.name])
        return self

    @property
    def authority(self) -> str:
        """``host:port`` with the port always there, as CONNECT wants it."""
        name = f"[{self.name}]" if ":" in self.name else self.name
        return f"{name}:{self.port}"

    def __str__(self) -> str:
        if self.port != HTTPS_PORT:
            return self.authority
        return f"[{self.name}]" if ":" in self.name else self.name


# Each request names one, and most name the same few.
@lru_cache(maxsize=1024)
def _parse_host(text: str, default_port: int) -> Host:
    name, separator, port_text = text, "", ""
    if text.startswith("["):
        name, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in name or (rest and not rest.startswith(":")):
            raise HostInvalid(text)
        separator, port_text = rest[:1], rest[1:]
    elif text.count(":") == 1:
        name, separator, port_text = text.partition(":")
    port = default_port
    if separator:
        if not _PORT.fullmatch(port_text) or not 0 < int(port_text) < 65536:
            raise HostInvalid(text)
        port = int(port_text)
    return Host(_parse_host_name(name, text), port)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _parse_host_name(name: str, whole: str) -> str:
    if not name.isascii():
        # Lower-casing turns some other letters into ASCII ones: U+212A into "k".
        raise HostInvalid(whole)
    name = name.lower()
    if ":" in name:
        try:
            address = IPv6Address(name)
        except ValueError:
            raise HostInvalid(whole) from None
        if address.scope_id is not None:
            # A zone identifier means something on one machine only.
            raise HostInvalid(whole)
        return address.compressed
    name = name.removesuffix(".")
    if not 0 < len(name) <= 253:
        raise HostInvalid(whole)
    labels = name.split(".")
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise HostInvalid(whole)
    if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", labels[-1]) and not _is_address(name):
        # "127.1", "0x7f.1" and the like: forms that some resolvers read as an
        # address and others as a name. The URL standard calls them invalid.
        raise HostInvalid(whole)
    return name


@frozen(order=True)
class Repository:
    """A repository's name within its registry, e.g. ``library/debian``."""

    name: str

    @classmethod
    def parse(cls, text: str) -> Repository:
        """Read a repository name.

        Raises:
            NameInvalid: *text* breaks the grammar or is over 255 characters.
        """
        if len(text) > _REPOSITORY_MAX or not _REPOSITORY.fullmatch(text):
            raise NameInvalid(text)
        return cls(text)

    def __str__(self) -> str:
        return self.name


@frozen(order=True)
class Tag:
    """A mutable reference to a manifest within a repository."""

    name: str

    @classmethod
    def parse(cls, text: str) -> Tag:
        """Read a tag.

        Raises:
            TagInvalid: *text* breaks the grammar.
        """
        if not _TAG.fullmatch(text):
            raise TagInvalid(text)
        return cls(text)

    def __str__(self) -> str:
        return self.name


@frozen(order=True)
class Digest:
    """A content identifier that this proxy can verify: sha256 or sha512.

    ``hex`` is the lower-case hexadecimal hash: 64 characters for sha256, 128
    for sha512 (OCI image specification, "Registered algorithms").
    """

    algorithm: str
    hex: str = field()

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read ``ALGORITHM:HEX``.

        Raises:
            BlobDigestInvalid: the grammar or the length is wrong.
            DigestUnsupported: the grammar is right, the algorithm another one.
        """
        match = _DIGEST.fullmatch(text)
        if match is None:
            raise BlobDigestInvalid(text)
        algorithm, encoded = match.groups()
        if algorithm not in _HEX_LENGTHS:
            raise DigestUnsupported(text)
        if len(encoded) != _HEX_LENGTHS[algorithm] or not re.fullmatch("[a-f0-9]+", encoded):
            raise BlobDigestInvalid(text)
        return cls(algorithm, encoded)

    @classmethod
    def of(cls, content: bytes, algorithm: str = "sha256") -> Digest:
        """The digest of *content*."""
        return cls(algorithm, hashlib.new(algorithm, content).hexdigest())

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


Reference = Tag | Digest


def parse_reference(text: str) -> Reference:
    """Read what stands after ``/manifests/``: a digest if it has a colon, else a tag.

    Raises:
        BlobDigestInvalid: it has a colon and is no digest, or none that can be verified.
        TagInvalid: it has none and is no tag.
    """
    return Digest.parse(text) if ":" in text else Tag.parse(text)
