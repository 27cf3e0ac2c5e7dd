"""Tests for :mod:`regproxy.upstream.auth`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse
from zope.interface import implementer

from regproxy.config.model import LimitsSection, RegistrySection
from regproxy.oci.names import Host, Repository
from regproxy.upstream import auth
from regproxy.upstream.auth import Account, Answer, Authenticator, same_domain
from regproxy.upstream.body import BodyReader
from regproxy.upstream.errors import (
    UpstreamBroken,
    UpstreamError,
    UpstreamLoginFailed,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from regproxy.upstream.logins import IdentityToken, Password
from regproxy.upstream.redirects import URL
from tests.support.credentials import FakeCredentials

REGISTRY = Host("registry.example.test")
SECTION = RegistrySection(upstream=("https://registry.example.test",))
ACCOUNT = Account(REGISTRY, SECTION)
ANONYMOUS = Account(REGISTRY, SECTION, anonymous=True)
BASIC = b"Basic dGVhbTpwYTrDnw=="
NAME = Repository("library/debian")
CHALLENGE = b'Bearer realm="https://auth.example.test/token",service="hub"'


@implementer(IResponse)
class Response:
    """A response that is there at once."""

    version = (b"HTTP", 1, 1)
    phrase = b""
    request = None
    previousResponse = None

    def __init__(
        self, code: int, headers: Mapping[bytes, bytes] | None = None, body: bytes = b""
    ) -> None:
        self.code = code
        self.headers = Headers({name: [value] for name, value in (headers or {}).items()})
        self.length = len(body)
        self.body = body

    def deliverBody(self, protocol: BodyReader) -> None:
        protocol.makeConnection(StringTransport())
        protocol.dataReceived(self.body)
        protocol.connectionLost(Failure(ResponseDone()))

    def setPreviousResponse(self, response: IResponse | None) -> None: ...


def challenge(line: bytes) -> Response:
    return Response(401, {b"WWW-Authenticate": line})


def token(value: str, **more: object) -> Response:
    return Response(200, {}, json.dumps({"token": value, **more}).encode())


class AuthCase(SynchronousTestCase):
    """A registry that accepts some Authorizations, and a token service."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.credentials = FakeCredentials({REGISTRY: Password("team", "pa:ß")})
        self.auth = Authenticator(self.clock, self.fetch, LimitsSection(), self.credentials)
        self.accepted = {b"Bearer 1"}
        self.challenge = CHALLENGE
        self.sent: list[bytes | None] = []
        self.fetched: list[tuple[str, bytes | None]] = []
        self.forms: list[bytes | None] = []
        self.tokens: Iterator[Response] = (token(str(number)) for number in range(1, 1000))
        self.held: Deferred[None] | None = None

    async def send(self, authorization: bytes | None) -> Answer:
        self.sent.append(authorization)
        accepted = authorization in self.accepted
        return Answer(Response(200) if accepted else challenge(self.challenge), True)

    async def fetch(
        self, account: Account, url: URL, authorization: bytes | None, form: bytes | None = None
    ) -> IResponse:
        self.fetched.append((str(url), authorization))
        self.forms.append(form)
        if self.held is not None:
            await self.held
        return next(self.tokens)

    def request(
        self,
        repository: Repository | None = NAME,
        account: Account = ACCOUNT,
    ) -> Deferred[IResponse]:
        return Deferred.fromCoroutine(self.auth.request(account, repository, self.send))

    def status(self, repository: Repository | None = NAME, account: Account = ACCOUNT) -> int:
        return int(self.successResultOf(self.request(repository, account)).code)

    def refusal(
        self, kind: type[UpstreamError] = UpstreamLoginFailed, account: Account = ACCOUNT
    ) -> str:
        return str(self.failureResultOf(self.request(NAME, account), kind).value)


class BasicTests(AuthCase):
    """A registry that asks for name and password."""

    def setUp(self) -> None:
        super().setUp()
        self.challenge = b'Basic realm="x"'
        self.accepted = {BASIC}

    def test_basic(self) -> None:
        """Asked once, sent at once from then on."""
        self.assertEqual((self.status(), self.status()), (200, 200))
        self.assertEqual(self.sent, [None, BASIC, BASIC])

    def test_refused(self) -> None:
        """The same credentials are not tried twice."""
        self.accepted = set()
        message = "registry.example.test does not accept the login of this proxy"
        self.assertEqual(self.refusal(), f"{message} for the repository library/debian")
        self.assertEqual(self.sent, [None, BASIC])
        failure = self.failureResultOf(self.request(None), UpstreamLoginFailed)
        self.assertEqual(failure.value.status, 401)
        self.assertEqual(self.sent, [None, BASIC, BASIC])

    def test_no_credentials(self) -> None:
        """An anonymous account has nothing to send."""
        message = "registry.example.test asks for a login that this proxy has not got"
        self.assertEqual(self.refusal(account=ANONYMOUS), message)
        self.assertEqual(self.sent, [None])

    def test_rotated(self) -> None:
        """The login is looked up each time."""
        self.status()
        self.credentials.logins[REGISTRY] = Password("team", "new")
        self.accepted = {Password("team", "new").authorization}
        self.assertEqual(self.status(), 200)
        self.assertEqual(len(self.sent), 3)

    def test_no_login(self) -> None:
        """What the look-up says is the reason."""
        self.credentials.logins.clear()
        self.assertEqual(self.refusal(), "no login for registry.example.test")

    def test_identity_token(self) -> None:
        """It is no password, and is not sent as one."""
        self.credentials.logins[REGISTRY] = IdentityToken("geheim")
        message = self.refusal()
        self.assertIn("asks for a user name and password", message)
        self.assertNotIn("geheim", message)
        self.assertEqual(self.sent, [None])

    def test_changed_mind(self) -> None:
        """A registry that turned from tokens to passwords."""
        self.challenge, self.accepted = CHALLENGE, {b"Bearer 1"}
        self.status()
        self.challenge, self.accepted = b"Basic", {BASIC}
        self.assertEqual(self.status(), 200)
        self.assertEqual(self.sent[-2:], [b"Bearer 1", BASIC])


class BearerTests(AuthCase):
    """A registry with a token service."""

    def test_dance(self) -> None:
        """Challenge, token, request; the token is kept."""
        self.assertEqual((self.status(), self.status()), (200, 200))
        self.assertEqual(self.sent, [None, b"Bearer 1", b"Bearer 1"])
        url = (
            "https://auth.example.test/token?service=hub&scope=repository%3Alibrary%2Fdebian%3Apull"
        )
        self.assertEqual(self.fetched, [(url, BASIC)])

    def test_scope(self) -> None:
        """Each repository has its own token, and only to pull, whatever the challenge says."""
        self.accepted = {b"Bearer 1", b"Bearer 2", b"Bearer 3"}
        self.challenge = CHALLENGE + b',scope="repository:x:pull,push"'
        self.status()
        self.status(Repository("other"))
        self.assertIn("scope=repository%3Aother%3Apull", self.fetched[1][0])
        self.assertEqual(self.sent, [None, b"Bearer 1", b"Bearer 2"])

    def test_no_repository(self) -> None:
        """Then the challenge's scope is taken, if it has one."""
        self.status(None)
        self.assertEqual(self.fetched[0][0], "https://auth.example.test/token?service=hub")
        self.challenge = CHALLENGE + b',scope="registry:catalog:*"'
        self.accepted = {b"Bearer 2"}
        self.status(None)
        self.assertIn("scope=registry%3Acatalog%3A%2A", self.fetched[1][0])

    def test_realm_with_query(self) -> None:
        """The realm's own query stays."""
        self.challenge = b'Bearer realm="https://example.test/t?a=b"'
        self.status(None, ANONYMOUS)
        self.assertEqual(self.fetched, [("https://example.test/t?a=b", None)])

    def test_identity_token(self) -> None:
        """It goes in a form, and not to where no credentials go."""
        self.credentials.logins[REGISTRY] = IdentityToken("a+b")
        self.assertEqual(self.status(), 200)
        self.assertEqual(self.fetched, [("https://auth.example.test/token", None)])
        self.assertEqual(
            self.forms,
            [
                b"grant_type=refresh_token&client_id=regproxy&refresh_token=a%2Bb"
                b"&service=hub&scope=repository%3Alibrary%2Fdebian%3Apull"
            ],
        )
        self.challenge, self.accepted = b'Bearer realm="https://evil.test/token"', set()
        self.assertIn("is of another domain", self.refusal())
        self.assertEqual(len(self.fetched), 1)

    def test_access_token(self) -> None:
        self.tokens = iter([Response(200, {}, b'{"access_token": "1"}')])
        self.assertEqual(self.status(), 200)

    def test_renewed_before_the_end(self) -> None:
        """A token is used for four fifths of its life; 60 seconds when nothing is said."""
        lifetimes: list[tuple[dict[str, object], float]] = [
            ({}, 48),
            ({"expires_in": 300}, 240),
            ({"expires_in": "300"}, 48),
            ({"expires_in": -1}, 48),
            ({"expires_in": float("inf")}, 48),
        ]
        for said, used in lifetimes:
            self.setUp()
            self.accepted = {b"Bearer a", b"Bearer b"}
            self.tokens = iter([token("a", **said), token("b")])
            self.status()
            self.clock.advance(used - 1)
            self.status()
            self.assertEqual(self.sent[-1], b"Bearer a")
            self.clock.advance(1)
            self.status()
            self.assertEqual(self.sent, [None, b"Bearer a", b"Bearer a", b"Bearer b"])

    def test_revoked(self) -> None:
        """A kept token that is refused is replaced once."""
        self.status()
        self.accepted = {b"Bearer 2"}
        self.assertEqual(self.status(), 200)
        self.assertEqual(self.sent, [None, b"Bearer 1", b"Bearer 1", b"Bearer 2"])

    def test_refused(self) -> None:
        """Two fresh tokens that are refused are enough."""
        self.accepted = set()
        self.assertIn("for the repository library/debian", self.refusal())
        self.assertEqual(self.sent, [None, b"Bearer 1", b"Bearer 2"])

    def test_replaced_meanwhile(self) -> None:
        """A refusal of an old token leaves the new one that another request brought."""
        self.status()
        self.accepted = {b"Bearer 2"}
        waiting: Deferred[None] = Deferred()

        async def slow(authorization: bytes | None) -> Answer:
            if authorization == b"Bearer 1":
                await waiting
            return await self.send(authorization)

        late = Deferred.fromCoroutine(self.auth.request(ACCOUNT, NAME, slow))
        self.status()
        waiting.callback(None)
        self.assertEqual(self.successResultOf(late).code, 200)
        self.assertEqual(len(self.fetched), 2)

    def test_other_hosts_refusal(self) -> None:
        """The 401 of a host that the registry redirected to is no challenge."""

        async def send(authorization: bytes | None) -> Answer:
            return Answer(challenge(CHALLENGE), False)

        response = self.successResultOf(
            Deferred.fromCoroutine(self.auth.request(ACCOUNT, NAME, send))
        )
        self.assertEqual(response.code, 401)
        self.assertEqual(self.fetched, [])

    def test_bounded(self) -> None:
        """The token used longest ago goes."""
        self.patch(auth, "TOKEN_LIMIT", 2)
        self.accepted = {b"Bearer %d" % number for number in range(10)}
        for name in ("a", "b", "a", "c", "a", "b"):
            self.status(Repository(name))
        self.assertEqual([int(s.split()[1]) for s in self.sent if s], [1, 2, 1, 3, 1, 4])

    def test_nothing_is_logged(self) -> None:
        """Neither the password nor a token."""
        events: list[LogEvent] = []

        @implementer(ILogObserver)
        def observe(event: LogEvent) -> None:
            events.append(event)

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        self.tokens = iter([token("geheim")])
        self.accepted = {b"Bearer geheim"}
        self.status()
        self.assertEqual(len(events), 1)
        for secret in ("geheim", "pa:", BASIC.decode()):
            self.assertNotIn(secret, repr(events))
            self.assertNotIn(secret, repr(ACCOUNT))


class SingleFlightTests(AuthCase):
    """Many requests, one token."""

    def setUp(self) -> None:
        super().setUp()
        self.arrival: Deferred[None] = Deferred()
        self.held = self.arrival

    def test_shared(self) -> None:
        """Fifty requests at once make one request for a token."""
        asking = [self.request() for _ in range(50)]
        self.assertEqual(len(self.fetched), 1)
        self.arrival.callback(None)
        self.assertEqual([self.successResultOf(each).code for each in asking], [200] * 50)
        self.assertEqual(len(self.fetched), 1)

    def test_cancelled(self) -> None:
        """One that is cancelled does not take the others' token along."""
        first, second = self.request(), self.request()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertNoResult(second)
        self.arrival.callback(None)
        self.assertEqual(self.successResultOf(second).code, 200)
        third = self.request()
        self.assertEqual(self.successResultOf(third).code, 200)
        self.assertEqual(len(self.fetched), 1)

    def test_failed(self) -> None:
        """A failure is everybody's, and the next request tries anew."""
        asking = [self.request() for _ in range(3)]
        self.arrival.errback(UpstreamTimeout("too slow"))
        for each in asking:
            self.failureResultOf(each, UpstreamTimeout)
        self.held = None
        self.assertEqual(self.status(), 200)

    def test_all_cancelled(self) -> None:
        """A failure that nobody waits for is nobody's."""
        asking = self.request()
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.arrival.errback(UpstreamTimeout("too slow"))
        self.held = None
        self.assertEqual(self.status(), 200)


class TokenServiceTests(AuthCase):
    """What token services answer when they do not give a token."""

    def answered(self, response: Response, kind: type[UpstreamError]) -> str:
        self.tokens = iter([response])
        return self.refusal(kind)

    def test_refusal(self) -> None:
        """The service, the registry and the status are named, the credentials are not."""
        for code in (400, 401, 403, 404):
            message = self.answered(Response(code, {}, b"secret"), UpstreamLoginFailed)
            self.assertEqual(
                message,
                f"the token service auth.example.test of registry.example.test answered {code}",
            )

    def test_unavailable(self) -> None:
        """A service that is down is no refusal: what is stored may be served."""
        for code in (429, 500, 503):
            self.assertIn(str(code), self.answered(Response(code), UpstreamUnreachable))

    def test_no_token(self) -> None:
        for body in (
            b"",
            b"<html>",
            b"[]",
            b"{}",
            b'{"token": 7}',
            b'{"token": ""}',
            b'{"token": "a\\r\\nX: y"}',
            b'{"token": "\xff"}',
            b"[" * 100_000,
        ):
            message = self.answered(Response(200, {}, body), UpstreamBroken)
            self.assertIn("the token service of registry.example.test sent", message)


class RealmTests(AuthCase):
    """Where credentials may go."""

    def realm(self, realm: bytes) -> str:
        self.challenge = b'Bearer realm="%b"' % realm
        return self.refusal()

    def test_other_domain(self) -> None:
        """Not to another registrable domain."""
        for realm in (b"https://evil.test/token", b"https://registry.example.test.evil.net/"):
            self.assertIn("is of another domain", self.realm(realm))
        self.assertEqual(self.fetched, [])

    def test_anonymous(self) -> None:
        """Who has no credentials may ask anywhere."""
        self.challenge = b'Bearer realm="https://other.test/token"'
        self.assertEqual(self.status(account=ANONYMOUS), 200)
        self.assertEqual(self.fetched[0][1], None)

    def test_not_https(self) -> None:
        """Plain http only where the whole registry is."""
        self.assertIn("is not https", self.realm(b"http://auth.example.test/token"))
        self.assertEqual(self.fetched, [])
        plain = evolve(SECTION, plain_http=True)
        self.assertEqual(self.status(account=evolve(ACCOUNT, section=plain)), 200)

    def test_upstream_address(self) -> None:
        """A realm at the very server that the section names."""
        section = evolve(SECTION, upstream=("https://10.0.0.7:5000",))
        self.challenge = b'Bearer realm="https://10.0.0.7:5001/token"'
        self.assertEqual(self.status(account=evolve(ACCOUNT, section=section)), 200)

    def test_invalid(self) -> None:
        for realm in (b"token", b"ftp://auth.example.test/", b"https://u:p@auth.example.test/"):
            self.assertIn("is invalid", self.realm(realm))

    def test_unreadable_challenge(self) -> None:
        for line in (b"", b"Negotiate", b'Bearer service="x"'):
            self.challenge = line
            self.assertIn("has not got", self.refusal())
        self.challenge = b'Bearer realm="a'
        self.assertIn("cannot be read", self.refusal())

    def test_same_domain(self) -> None:
        """By the public suffix list; addresses and bare names only when equal."""
        pairs = {
            ("registry-1.docker.io", "auth.docker.io"): True,
            ("registry.gitlab.com", "gitlab.com"): True,
            ("localhost", "localhost"): True,
            ("10.0.0.7", "10.0.0.7"): True,
            ("10.0.0.7", "11.0.0.7"): False,
            ("registry", "auth"): False,
            ("registry.test", "auth.test"): False,
            ("a.github.io", "b.github.io"): False,
            ("a.co.uk", "b.co.uk"): False,
            ("docker.io", "docker.com"): False,
        }
        found = {pair: same_domain(Host(pair[0]), Host(pair[1], 5000)) for pair in pairs}
        self.assertEqual(found, pairs)
