"""A client's question and the answers to it, as values."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

from attrs import field, frozen
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer, IResponse

from regproxy.config.model import Auth, RegistrySection
from regproxy.interfaces import ANYBODY, OWN_LOGIN, IBlob
from regproxy.oci.media_types import DEFAULT_ACCEPT
from regproxy.oci.names import Digest, Host, Repository, Tag
from regproxy.oci.routes import Route
from regproxy.policy.caching import CacheStatus, Kind, NoStore, why_not_stored


@frozen
class Ask:
    """One request to one registry, whichever way it came in.

    Attributes:
        headers: the client's header fields.
        authorization: the client's Authorization, which goes to this registry or nowhere;
            or OWN_LOGIN, for a client that the proxy lets speak in its name, or ANYBODY.
        client: the client's address; None when there is none.
    """

    method: bytes
    host: Host
    section: RegistrySection
    route: Route
    headers: Headers
    # Not in the repr: it would reach logs and tracebacks.
    authorization: bytes | None = field(repr=False)
    body: IBodyProducer | None = None
    client: str | None = None

    @property
    def login(self) -> bytes | None:
        """The login that decides what upstream lets this client read; None for none.

        The proxy's own is one too: what it may read is not public for that.
        """
        if self.section.effective_auth is Auth.INJECT:
            return OWN_LOGIN
        return None if self.authorization == ANYBODY else self.authorization

    @property
    def accept(self) -> list[bytes]:
        """The lines of Accept."""
        return list(self.headers.getRawHeaders(b"accept", []))

    def content_headers(self) -> Headers:
        """The fields for a question about content: only what may change the answer."""
        headers = Headers()
        headers.setRawHeaders(b"Accept", self.accept or [DEFAULT_ACCEPT.encode()])
        if agent := self.headers.getRawHeaders(b"user-agent"):
            headers.setRawHeaders(b"User-Agent", agent)
        return headers


@frozen
class Wanted:
    """Content named by its digest, and where upstream has it."""

    kind: Kind
    host: Host
    repository: Repository
    digest: Digest
    target: bytes


@frozen
class Content:
    """The bytes are here, or on their way here. Whoever renders it closes the blob.

    Attributes:
        age: seconds since upstream was asked about a tag, or gave content; None while it comes.
        warning: what the client should know about a late answer.
        straight: gets the same content straight from upstream, should the disk fail.
    """

    blob: IBlob
    kind: Kind
    media_type: str
    status: CacheStatus
    age: float | None = None
    warning: str | None = None
    straight: Callable[[], Awaitable[IBlob]] | None = None


@frozen
class Description:
    """What upstream says about content that is not here: the answer to a HEAD."""

    kind: Kind
    media_type: str
    status: CacheStatus
    digest: Digest | None
    size: int | None


@frozen
class Relayed:
    """Upstream's own answer, passed through. Whoever renders it consumes the body."""

    response: IResponse
    status: CacheStatus


Answer = Content | Description | Relayed


@frozen
class Made:
    """An answer that this proxy made itself.

    Attributes:
        reason: why, for the log.
    """

    body: bytes
    media_type: str
    reason: str


#: The media type of a blob for which upstream named none.
OCTETS: Final = "application/octet-stream"


def media_type_of(response: IResponse) -> str:
    """The media type of an upstream's answer."""
    (value,) = response.headers.getRawHeaders(b"content-type", [b""])[:1] or [b""]
    return value.decode("latin-1").strip() or OCTETS


def length_of(response: IResponse) -> int | None:
    """The length of the content in bytes, if upstream announced it.

    For a HEAD that is the length of what a GET would get. Twisted keeps it among the
    header fields then, and calls the body that did not come zero bytes long.
    """
    if response.request.method == b"HEAD":
        values = response.headers.getRawHeaders(b"content-length", [])
        return int(values[0]) if len(values) == 1 and values[0].isdigit() else None
    length = response.length
    return None if length is UNKNOWN_LENGTH else int(length)


def not_stored(
    kind: Kind, response: IResponse, manifest_size: int, *, part: bool = False
) -> NoStore | None:
    """Why an answer to a GET of content is not to be stored, or None if it is.

    Args:
        manifest_size: the largest manifest that is taken, in bytes.
        part: a part of it would do.
    """
    code = response.code
    return why_not_stored(
        kind,
        HTTPStatus.OK if part and code == HTTPStatus.PARTIAL_CONTENT else code,
        media_type_of(response),
        length_of(response),
        manifest_size,
    )


def subject(route: Route) -> tuple[str | None, str | None]:
    """The repository and the reference of a route, for the log."""
    repository: Repository | None = getattr(route, "repository", None)
    reference: Tag | Digest | None = getattr(route, "reference", getattr(route, "digest", None))
    return (
        None if repository is None else str(repository),
        None if reference is None else str(reference),
    )
