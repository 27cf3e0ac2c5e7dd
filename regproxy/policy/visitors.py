"""Who may look at the management site, and who may change something there. Pure.

A browser is a weak point: it acts for pages of strangers from inside the network. So what changes
something must come from a page of this site (RFC 6454; the Fetch standard's
``Sec-Fetch-Site``), and where no login protects it, by a name that nobody can make lead here.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from attrs import field, frozen

#: In the place of the address of who came by a socket of this machine, and has none.
LOCAL: Final = "local"
#: Of one address, as many bad logins in WINDOW seconds.
MAX_BAD: Final = 10
WINDOW: Final = 60.0
#: Addresses whose bad logins are remembered.
MAX_ADDRESSES: Final = 1024

# RFC 6750 section 2.1. Shorter ones can be guessed.
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]{16,}=*")
# modular crypt format of bcrypt; a cost beyond 16 takes seconds.
_BCRYPT: Final = re.compile(r"\$2[aby]\$(?:0[4-9]|1[0-6])\$[./A-Za-z0-9]{53}")

Network = IPv4Network | IPv6Network


def allowed(networks: Iterable[Network], client: str) -> bool:
    """Whether *client*, an address as text or LOCAL, is in one of *networks*; LOCAL always is."""
    address = _address(client)
    return client == LOCAL or (
        address is not None and any(address in network for network in networks)
    )


def is_loopback(client: str) -> bool:
    """Whether *client*, an address as text or LOCAL, is this machine."""
    address = _address(client)
    return client == LOCAL or (address is not None and address.is_loopback)


def cannot_be_rebound(name: str) -> bool:
    """Whether *name*, of a Host field, leads where it does whatever a name server says.

    A page of a stranger's name that has come to lead here is, for its browser, a page of this
    site (DNS rebinding). ``localhost`` is never asked for (RFC 6761 section 6.3).
    """
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def from_elsewhere(fetch_site: str | None, origin: str | None, host: str) -> bool:
    """Whether a request was made by a page of another site, for all that its browser says.

    Programs that are no browsers say nothing.

    Args:
        fetch_site: the Sec-Fetch-Site field, which browsers send over TLS and to localhost.
        origin: the Origin field, which they send with whatever changes something.
        host: the Host field.
    """
    if fetch_site is not None:
        # "none" is what the reader himself has asked for.
        return fetch_site not in ("same-origin", "none")
    if origin is None:
        return False
    # A proxy that ends the TLS may be between: schemes may differ. What a page of a file has
    # for an origin is "null".
    return not host or origin.lower().partition("://")[2] != host.lower()


@frozen
class Bearer:
    """A token (RFC 6750)."""

    # Not in the repr: it would reach logs and tracebacks.
    token: str = field(repr=False)


@frozen
class Basic:
    """A user's name and password (RFC 7617)."""

    # People type their password there.
    user: str = field(repr=False)
    password: str = field(repr=False)


def parse_authorization(field: str) -> Bearer | Basic | None:
    """The login in an Authorization field; None when it is none of these."""
    scheme, _, rest = field.partition(" ")
    rest = rest.strip(" ")
    match scheme.lower():
        case "bearer":
            return Bearer(rest) if rest else None
        case "basic":
            try:
                user, colon, password = b64decode(rest, validate=True).decode().partition(":")
            except ValueError:
                return None
            return Basic(user, password) if colon else None
    return None


def parse_token(text: str) -> str:
    """The token in the text of a file.

    Raises:
        ValueError: there is none; the message does not show what there is.
    """
    token = text.strip()
    if not _TOKEN.fullmatch(token):
        raise ValueError("expected one line of 16 or more letters, digits and -._~+/")
    return token


def parse_htpasswd(text: str) -> Mapping[str, str]:
    """Hashes by user, from the text of a file as ``htpasswd -B`` writes it.

    Raises:
        ValueError: it is none; the message names the line and does not show it.
    """
    users = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        user, _, hashed = line.strip().partition(":")
        if not user or not _BCRYPT.fullmatch(hashed):
            raise ValueError(f"line {number}: expected NAME:HASH with a bcrypt hash (htpasswd -B)")
        if user in users:
            raise ValueError(f"line {number}: a user who is there already")
        users[user] = hashed
    if not users:
        raise ValueError("no user in it")
    return users


class BadLogins:
    """Bounds how often somebody can try, by address; of IPv6, by network of 64 bits.

    A try counts as bad until it is known to be good: many at a time are no way around.
    """

    def __init__(self) -> None:
        # Up to when, for each; the one tried longest ago first.
        self._tries: OrderedDict[object, list[float]] = OrderedDict()

    def wait(self, client: str, now: float) -> float:
        """How many seconds somebody has to wait before he may try."""
        tries = self._recent(_source(client), now)
        return tries[0] + WINDOW - now if len(tries) >= MAX_BAD else 0.0

    def begin(self, client: str, now: float) -> float:
        """Somebody tries: 0, or how many seconds he has to wait before he may."""
        if (wait := self.wait(client, now)) > 0:
            return wait
        key = _source(client)
        self._tries[key] = [*self._recent(key, now), now]
        self._tries.move_to_end(key)
        if len(self._tries) > MAX_ADDRESSES:
            self._tries.popitem(last=False)
        return 0.0

    def good(self, client: str) -> None:
        """It was a good login: all is forgotten."""
        self._tries.pop(_source(client), None)

    def _recent(self, key: object, now: float) -> list[float]:
        return [time for time in self._tries.get(key, []) if time > now - WINDOW]


def _address(client: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(client.partition("%")[0])
    except ValueError:
        return None
    # A socket for both families tells IPv4 addresses so (RFC 4291 section 2.5.5.2).
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _source(client: str) -> object:
    address = _address(client)
    if isinstance(address, IPv6Address):
        return ip_network((int(address), 64), strict=False)
    return address
