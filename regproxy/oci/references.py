"""An image as people write it: ``debian:12``, ``ghcr.io/o/app@sha256:...``.

The rules are those of distribution's reference library (``normalize.go``): what has no host is
of Docker Hub, and there what has no namespace is of ``library``; without a tag it is ``latest``.
"""

from __future__ import annotations

from typing import Final

from attrs import frozen

from regproxy.oci.errors import BadRequest, RegistryError, shown
from regproxy.oci.names import DOCKER_HUB, Digest, Host, Reference, Repository, Tag

_HUB: Final = Host(DOCKER_HUB)
#: What people call Docker Hub.
HUB_NAME: Final = "docker.io"
_LATEST: Final = Tag("latest")


class ReferenceInvalid(BadRequest):
    """A text names no image."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"invalid image {shown(text, 120)}: {reason}")


@frozen
class RepositoryName:
    """A repository, and its registry.

    Attributes:
        host: its canonical identity.
    """

    host: Host
    repository: Repository

    @classmethod
    def parse(cls, text: str) -> RepositoryName:
        """Read a name without tag and digest.

        Raises:
            ReferenceInvalid: it is none.
        """
        first, slash, rest = text.partition("/")
        is_host = slash and (first == "localhost" or "." in first or ":" in first)
        try:
            host = Host.parse(first if is_host else HUB_NAME).canonical
            name = rest if is_host else text
            if host == _HUB and "/" not in name:
                name = f"library/{name}"
            return cls(host, Repository.parse(name))
        except RegistryError as error:
            raise ReferenceInvalid(text, error.message) from None

    def __str__(self) -> str:
        return f"{HUB_NAME if self.host == _HUB else self.host}/{self.repository}"


@frozen
class ImageName:
    """An image by its tag or its digest."""

    host: Host
    repository: Repository
    reference: Reference

    @classmethod
    def parse(cls, text: str) -> ImageName:
        """Read a name. With a digest, a tag before it says nothing.

        Raises:
            ReferenceInvalid: it is none.
        """
        name, at, digest = text.partition("@")
        # A colon before the last slash is that of a port.
        head, slash, tail = name.rpartition("/")
        tail, colon, tag = tail.partition(":")
        try:
            reference: Reference = Tag.parse(tag) if colon else _LATEST
            if at:
                reference = Digest.parse(digest)
        except RegistryError as error:
            raise ReferenceInvalid(text, error.message) from None
        of = RepositoryName.parse(f"{head}{slash}{tail}")
        return cls(of.host, of.repository, reference)

    @property
    def tag(self) -> Tag | None:
        """The tag, if that is what names it."""
        return self.reference if isinstance(self.reference, Tag) else None

    def __str__(self) -> str:
        mark = "@" if isinstance(self.reference, Digest) else ":"
        return f"{RepositoryName(self.host, self.repository)}{mark}{self.reference}"
