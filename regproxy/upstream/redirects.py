"""URLs of upstreams, and where a redirect leads. Pure.

Redirects are followed here and not by Twisted's agents, because these send the
credentials along, follow from https to http, and resolve what they like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import quote, urlencode, urljoin, urlsplit

from attrs import field, frozen
from attrs.validators import matches_re

from regproxy.oci.errors import HostInvalid
from regproxy.oci.names import Host
from regproxy.upstream.errors import RedirectRefused

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
# Registries redirect once, to their blob storage; Go's client gives up at ten.
REDIRECT_LIMIT: Final = 5

_PORTS: Final = {"http": 80, "https": 443}
_VISIBLE: Final = "".join(map(chr, range(0x21, 0x7F)))


def encoded(target: bytes) -> str:
    """*target* with everything percent-encoded that a URL cannot hold (RFC 3986)."""
    return quote(target, safe=_VISIBLE)


@frozen
class URL:
    """An absolute http or https URL without user information and fragment.

    Attributes:
        target: path and query, beginning with a slash.
    """

    scheme: str
    host: Host
    target: str = field(validator=matches_re("/[!-~]*"))

    @classmethod
    def parse(cls, text: str) -> URL:
        """Read a URL.

        Raises:
            ValueError: it is not one of these; the message says why, without the URL.
        """
        parts = urlsplit(text)
        if parts.scheme not in _PORTS:
            raise ValueError("it is not a http or https URL")
        if "@" in parts.netloc:
            raise ValueError("it holds user information")
        try:
            host = Host.parse(parts.netloc, _PORTS[parts.scheme])
        except HostInvalid:
            raise ValueError("its host is invalid") from None
        target = parts.path or "/"
        if parts.query:
            target += "?" + parts.query
        return cls(parts.scheme, host, target)

    @property
    def origin(self) -> tuple[str, Host]:
        """What decides whether two URLs are of the same server (RFC 6454)."""
        return self.scheme, self.host

    @property
    def netloc(self) -> str:
        """The host as it stands in the URL and in the Host header."""
        authority = self.host.authority
        return authority.removesuffix(f":{_PORTS[self.scheme]}")

    def under(self, base: URL) -> URL:
        """The same target at another server, whose path is a prefix."""
        prefix = base.target.rstrip("/")
        return URL(base.scheme, base.host, prefix + self.target)

    def asking(self, query: Mapping[str, str]) -> URL:
        """The same with more fields in its query."""
        if not query:
            return self
        separator = "&" if "?" in self.target else "?"
        return URL(self.scheme, self.host, self.target + separator + urlencode(query))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}{self.target}"


def redirected(url: URL, locations: Sequence[bytes] | None) -> URL:
    """Where the redirect leads that *url* answered with.

    Args:
        locations: the values of the response's Location header.

    Raises:
        RedirectRefused: there is not one usable Location.
    """
    if locations is None or len(locations) != 1:
        raise RedirectRefused(f"{url.netloc} sent a redirect without one Location")
    try:
        return URL.parse(urljoin(str(url), encoded(locations[0].strip())))
    except ValueError as error:
        raise RedirectRefused(f"{url.netloc} sent a redirect that is refused: {error}") from None
