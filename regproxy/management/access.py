"""Lets requests to the management site in, or not: addresses, logins, browsers.

The rules are in :mod:`regproxy.policy.visitors`. The files with logins are read at each login,
which costs next to nothing beside bcrypt: what changes in them holds at once.
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from http import HTTPStatus
from ipaddress import ip_network
from pathlib import Path
from typing import Final, TypeVar

import bcrypt
from attrs import frozen
from twisted.internet.defer import DeferredSemaphore, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from regproxy.config.model import ManagementSection
from regproxy.management.operations import SAFE
from regproxy.policy.visitors import (
    BadLogins,
    Basic,
    Bearer,
    allowed,
    cannot_be_rebound,
    from_elsewhere,
    is_loopback,
    parse_authorization,
    parse_htpasswd,
    parse_token,
)
from regproxy.store.disk import Workers, shielded
from regproxy.web.headers import field_text
from regproxy.web.site import StrictRequest, client_of

#: Logins that are checked at a time. Each takes a core for some tenths of a second.
CHECKED_AT_A_TIME: Final = 2
#: Logins that wait for their turn.
MAX_WAITING: Final = 32
# What proxies add (RFC 7239, RFC 9110 section 7.6.3): who asks is not who is connected.
_FORWARDED: Final = (b"forwarded", b"via", b"x-forwarded-for", b"x-real-ip")
# Longer passwords are not what bcrypt has hashed.
_LONGEST: Final = 72

_T = TypeVar("_T")


@frozen
class Refused(Exception):
    """A request is not let in, or not fulfilled.

    Attributes:
        status: of the answer.
        message: why, for the client.
        headers: further fields of the answer.
        messages: what is wrong, one by one, where that is more than one thing.
    """

    status: HTTPStatus
    message: str
    headers: tuple[tuple[str, str], ...] = ()
    messages: tuple[str, ...] = ()


class Guard:
    """Decides about requests.

    Args:
        workers: run bcrypt.
        bad_logins: outlives the configuration.
        read: gives the content of a file, or raises OSError.
    """

    _log = Logger()

    def __init__(
        self,
        section: ManagementSection,
        workers: Workers,
        clock: IReactorTime,
        bad_logins: BadLogins,
        read: Callable[[Path], bytes] = Path.read_bytes,
    ) -> None:
        self._networks = tuple(map(ip_network, section.read_from))
        self._files = _Files(section.token_file, section.htpasswd_file, read)
        self._workers = workers
        self._clock = clock
        self._bad_logins = bad_logins
        self._turns = DeferredSemaphore(CHECKED_AT_A_TIME)

    @property
    def schemes(self) -> tuple[str, ...]:
        """The schemes of Authorization that a change needs one of; none, if no login is set up."""
        return self._files.schemes

    def check_reader(self, request: StrictRequest) -> None:
        """See that the client may ask at all.

        Raises:
            Refused: he may not.
        """
        client = client_of(request)
        if not allowed(self._networks, client):
            raise Refused(HTTPStatus.FORBIDDEN, f"{client} is in none of the networks of read_from")

    async def check(self, request: StrictRequest, *, changes: bool) -> None:
        """See that the client may do what *request* asks for.

        Args:
            changes: it changes something, or shows what not everybody may see.

        Raises:
            Refused: he may not.
        """
        self.check_reader(request)
        self._check_browser(request)
        if not changes:
            return
        if self._files.schemes:
            await self._check_login(request)
        else:
            self._check_place(request)

    def _check_browser(self, request: StrictRequest) -> None:
        if request.method.decode("ascii", "replace") in SAFE:
            return
        names = "sec-fetch-site", "origin", "host"
        site, origin, host = (field_text(request.requestHeaders, each) for each in names)
        if from_elsewhere(site, origin, host or ""):
            raise Refused(HTTPStatus.FORBIDDEN, "the request comes from a page of another site")

    def _check_place(self, request: StrictRequest) -> None:
        authority = request.authority
        forwarded = any(map(request.requestHeaders.hasHeader, _FORWARDED))
        if forwarded or not is_loopback(client_of(request)):
            raise Refused(
                HTTPStatus.FORBIDDEN,
                "no login is set up: changes are made from the proxy's own machine only;"
                " see token_file and htpasswd_file in [management]",
            )
        if authority is None or not cannot_be_rebound(authority.name):
            raise Refused(
                HTTPStatus.FORBIDDEN,
                "no login is set up: changes are made by localhost or an address only,"
                " as any other name may have come to lead here",
            )

    async def _check_login(self, request: StrictRequest) -> None:
        login = parse_authorization(field_text(request.requestHeaders, "authorization") or "")
        if login is None:
            raise self._challenge("a login is needed")
        client = client_of(request)
        wait = self._bad_logins.wait(client, self._clock.seconds())
        if wait > 0 or len(self._turns.waiting) >= MAX_WAITING:
            raise _too_many(wait)
        await self._turns.acquire()
        # A thread goes on when the client leaves: it keeps its turn, and it was a try.
        checking = ensureDeferred(self._check_known(client, login)).addBoth(self._turn_over)
        await shielded(checking, lambda _: None)

    def _turn_over(self, result: _T) -> _T:
        self._turns.release()
        return result

    async def _check_known(self, client: str, login: Bearer | Basic) -> None:
        # Those before him may have been his.
        if (wait := self._bad_logins.begin(client, self._clock.seconds())) > 0:
            raise _too_many(wait)
        try:
            good = await self._workers.run(partial(self._files.knows, login))
        except (OSError, ValueError) as error:
            self._log.error("A login could not be checked: {reason}", reason=str(error))
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE, "logins cannot be checked; the log says why"
            ) from None
        if not good:
            # Without the user's name, which may be a password in the wrong field.
            self._log.warn("A bad login from {client}", client=client)
            raise self._challenge("the login is not known")
        self._bad_logins.good(client)

    def _challenge(self, message: str) -> Refused:
        # Browsers ask for a name and a password, and show them for each page of the site.
        challenges = tuple(("WWW-Authenticate", _CHALLENGES[each]) for each in self.schemes)
        return Refused(HTTPStatus.UNAUTHORIZED, message, challenges)


_CHALLENGES: Final = {
    "bearer": 'Bearer realm="regproxy"',
    "basic": 'Basic realm="regproxy", charset="UTF-8"',
}


@frozen
class _Files:
    """The files with logins. Everything here may block."""

    token: Path | None
    htpasswd: Path | None
    read: Callable[[Path], bytes]

    @property
    def schemes(self) -> tuple[str, ...]:
        if self.token is not None:
            return ("bearer", "basic")
        return () if self.htpasswd is None else ("basic",)

    def knows(self, login: Bearer | Basic) -> bool:
        """Whether it is a good login.

        Raises:
            OSError, ValueError: a file cannot be read, or is none.
        """
        secret = login.token if isinstance(login, Bearer) else login.password
        if self.token is not None and _same(secret, parse_token(self.read(self.token).decode())):
            return True
        if self.htpasswd is None or isinstance(login, Bearer):
            return False
        users = parse_htpasswd(self.read(self.htpasswd).decode())
        password = login.password.encode()
        # To look for a user who is not there takes as long as for one who is.
        hashed = users.get(login.user, next(iter(users.values())))
        fits = len(password) <= _LONGEST and b"\0" not in password
        right = bcrypt.checkpw(password if fits else b"", hashed.encode())
        return right and fits and login.user in users


def _too_many(wait: float) -> Refused:
    return Refused(
        HTTPStatus.TOO_MANY_REQUESTS,
        "too many logins, or too many bad ones",
        (("Retry-After", str(max(1, math.ceil(wait)))),),
    )


def _same(given: str, known: str) -> bool:
    """Compare in a time that tells nothing, not even a length."""
    return hmac.compare_digest(sha256(given.encode()).digest(), sha256(known.encode()).digest())
