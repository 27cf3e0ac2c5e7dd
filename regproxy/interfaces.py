"""The seams between rooms of one floor: what is asked for and what is given.

They stand below all rooms so that ``web`` can send what ``store`` keeps, and
``registry`` can be tested against fakes, without one room importing another.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IResponse
from zope.interface import Attribute, Interface

from regproxy.oci.names import Digest, Host, Repository
from regproxy.policy.upstreams import Sources

#: In the place of a client's Authorization: the login of this proxy. No client can send
#: it: a header field has no line feed (RFC 9110 section 5.5).
OWN_LOGIN: Final = b"\n"

#: In the same place: a client without a login, for which this proxy goes through the
#: registry's challenge as anybody may. No client can send it either.
ANYBODY: Final = b"\n*"

#: The patience of those who have something else to answer with at once.
NO_PATIENCE: Final = 0.0


class IBlob(Interface):
    """Content that can be read, whole already or still arriving.

    Every holder closes its own.
    """

    digest: Digest = Attribute("What the content hashes to, once it is whole.")
    size: int | None = Attribute("Length in bytes; None while it is not known.")
    verified: bool = Attribute("Whether all bytes are here and hash to the digest.")

    def readable(offset: int) -> int:
        """How many bytes can be read now from *offset* on, without waiting."""

    def when_readable(offset: int, end: int | None) -> Deferred[None]:
        """Fires when something changed: more bytes became readable, or the content verified.

        A reader waits at *offset* and will stop at *end* (None: at the content's end).
        Fails with what ended the transfer when the content will never be whole.
        """

    def read(offset: int, length: int) -> Deferred[bytes]:
        """At least one and at most *length* bytes from *offset*, within what is readable.

        Never blocks the reactor for longer than a read from the page cache.
        Fails with OSError when the disk does.
        """

    def read_into(buffer: memoryview, offset: int) -> int:
        """Fill *buffer* from *offset* on, within what is readable, if that needs no waiting.

        How many bytes; 0 does not say why: ``read`` will tell.
        """

    def file() -> int | None:
        """An open file that has the content, at the same offsets, up to what is readable.

        It stays open until this is closed. None: there is none.
        """

    def close() -> None:
        """Let go of it. Nothing may be read afterwards."""


class IMirrored(Interface):
    """A response that came from a mirror and not from the registry itself.

    The mirror does not know who asks: what it gives, it gives to anybody, and that says
    nothing about who may read the repository.
    """

    def spoiled(reason: str, *, wrong: bool = False) -> None:
        """The body broke off, or is *wrong*: leave the mirror alone for a while, or a long one."""


class IUpstream(Interface):
    """The way to the registries."""

    def request(
        method: bytes,
        host: Host,
        target: bytes,
        *,
        headers: Headers,
        repository: Repository | None = None,
        authorization: bytes | None = None,
        body: IBodyProducer | None = None,
        inject: bool = True,
        anonymous: bool = False,
        sources: Sources = Sources.ORIGIN,
        patience: float | None = None,
    ) -> Awaitable[IResponse]:
        """Ask *host*, and answer with the final response, its body not yet delivered.

        *authorization* is the client's; or OWN_LOGIN, to ask as this proxy; or, on
        the way from a mirror, ANYBODY. A response of a mirror of the registry provides IMirrored.

        *patience* is for those who have something else to answer with: how many seconds to
        wait for a registry that is known to be down.

        Raises an ``UpstreamError`` when there is none.
        """
