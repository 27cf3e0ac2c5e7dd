"""Tests for :mod:`regproxy.registry.guests`: clients that need not log in."""

from __future__ import annotations

from typing import Any, Final

from attrs import evolve
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IResponse
from zope.interface import implementer

from regproxy.config.model import Access, Auth, RegistrySection
from regproxy.interfaces import ANYBODY, OWN_LOGIN, IUpstream
from regproxy.oci.names import Digest, Host, Repository
from regproxy.oci.routes import parse_route
from regproxy.policy.upstreams import Sources
from regproxy.registry.ask import Ask, Made
from regproxy.registry.guests import Guests, OpenUpstream
from regproxy.registry.service import RegistryService
from regproxy.upstream.errors import UpstreamLoginFailed, UpstreamTimeout
from tests.support.front import OPEN, FrontTestCase
from tests.support.upstream import FakeResponse, Reply

HOST: Final = Host(OPEN)
BLOB: Final = b"content"
TARGET: Final = f"/v2/app/blobs/{Digest.of(BLOB)}".encode()
CHALLENGE: Final = 'Bearer realm="https://auth.example.com/token",service="x"'
ANSWER: Final = Made(b"{}", "application/json", "a test")


def section(auth: Auth) -> RegistrySection:
    return RegistrySection(auth=auth, username="team", password="secret")


class _Service:
    """Keeps the last question."""

    async def answer(self, ask: Ask) -> Made:
        self.asked = ask
        return ANSWER


class GuestsTests(SynchronousTestCase):
    """In whose name a client of a mirror asks."""

    def authorization(
        self,
        section: RegistrySection,
        target: bytes = TARGET,
        method: bytes = b"GET",
        sent: bytes | None = None,
    ) -> bytes | None:
        """What the Authorization of a question becomes."""
        service = _Service()
        ask = Ask(method, HOST, section, parse_route(target), Headers(), sent)
        asking = ensureDeferred(Guests(service).answer(ask))
        self.assertIs(self.successResultOf(asking), ANSWER)
        self.assertEqual(evolve(service.asked, authorization=sent), ask)
        return service.asked.authorization

    def test_forward(self) -> None:
        for target in TARGET, b"/v2/", b"/v2/app/manifests/latest", b"/v2/app/tags/list":
            for method in b"GET", b"HEAD":
                self.assertEqual(self.authorization(RegistrySection(), target, method), ANYBODY)

    def test_inject(self) -> None:
        """The proxy logs in, for guests as for all."""
        self.assertIsNone(self.authorization(section(Auth.INJECT)))

    def test_client_first(self) -> None:
        """What a token of this proxy's would open is open."""
        self.assertEqual(self.authorization(section(Auth.CLIENT_FIRST)), OWN_LOGIN)

    def test_own_login(self) -> None:
        """A client that logs in is no guest."""
        for auth in Auth:
            authorization = self.authorization(section(auth), sent=b"Bearer alice")
            self.assertEqual(authorization, b"Bearer alice")

    def test_other_requests(self) -> None:
        """The proxy's name is for reading registries, and nothing else."""
        for auth in Auth:
            for method, target in (
                (b"DELETE", TARGET),
                (b"POST", b"/v2/app/blobs/uploads/"),
                (b"GET", b"/token?service=x"),
            ):
                self.assertIsNone(self.authorization(section(auth), target, method))


@implementer(IUpstream)
class _Upstream:
    """Refuses anybody, or fails, or not."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[tuple[bool, bytes | None]] = []
        self._error = error

    async def request(
        self,
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
    ) -> IResponse:
        assert (method, host, target) == (b"GET", HOST, TARGET)
        assert headers == Headers({b"Accept": [b"a/b"]})
        self.asked.append((anonymous, authorization))
        if anonymous and self._error is not None:
            raise self._error
        return FakeResponse(method, Reply(200 if anonymous else 401))


class OpenUpstreamTests(SynchronousTestCase):
    """The registry's challenge is gone through for guests."""

    def ask(self, upstream: _Upstream, **details: Any) -> Deferred[IResponse]:
        headers = Headers({b"Accept": [b"a/b"]})
        request = OpenUpstream(upstream).request(b"GET", HOST, TARGET, headers=headers, **details)
        return ensureDeferred(request)

    def test_anybody(self) -> None:
        upstream = _Upstream()
        response = self.successResultOf(self.ask(upstream, authorization=ANYBODY))
        self.assertEqual(response.code, 200)
        self.assertEqual(upstream.asked, [(True, None)])

    def test_refused(self) -> None:
        """Not for anybody: then the registry's own answer, with its challenge."""
        upstream = _Upstream(UpstreamLoginFailed("no", 401))
        response = self.successResultOf(self.ask(upstream, authorization=ANYBODY))
        self.assertEqual(response.code, 401)
        self.assertEqual(upstream.asked, [(True, None), (False, None)])

    def test_failed(self) -> None:
        """A failure is no refusal: what is stored may be served instead."""
        upstream = _Upstream(UpstreamTimeout("no answer"))
        self.failureResultOf(self.ask(upstream, authorization=ANYBODY), UpstreamTimeout)
        self.assertEqual(upstream.asked, [(True, None)])

    def test_others(self) -> None:
        cases: tuple[tuple[dict[str, Any], tuple[bool, bytes | None]], ...] = (
            ({}, (False, None)),
            ({"authorization": b"Bearer alice"}, (False, b"Bearer alice")),
            ({"authorization": OWN_LOGIN}, (False, OWN_LOGIN)),
            ({"anonymous": True}, (True, None)),
        )
        for details, asked in cases:
            upstream = _Upstream()
            self.successResultOf(self.ask(upstream, **details))
            self.assertEqual(upstream.asked, [asked])


class AccessTests(FrontTestCase):
    """What guests bring is for everybody, and what is not for everybody not for guests."""

    def before(self, service: RegistryService, config: object) -> RegistryService:
        self.service = service
        return service

    def ask_as(self, authorization: bytes | None) -> Deferred[Any]:
        verify = RegistrySection(access=Access.VERIFY)
        ask = Ask(b"GET", HOST, verify, parse_route(TARGET), Headers(), authorization)
        return ensureDeferred(self.service.answer(ask))

    def test_public(self) -> None:
        """A guest's success shows that a repository is public: nobody has to ask again."""
        self.upstream.serve_blob(OPEN, "app", BLOB)
        self.successResultOf(self.ask_as(ANYBODY)).blob.close()
        self.upstream.questions()
        self.successResultOf(self.ask_as(None)).blob.close()
        self.assertAsked()
        self.assertEqual(self.upstream.asked_anonymously, [])

    def test_private(self) -> None:
        """What a login brought is not for guests."""
        self.upstream.serve_blob(OPEN, "app", BLOB)
        self.successResultOf(self.ask_as(b"Bearer alice")).blob.close()
        refusal = Reply(401, {"WWW-Authenticate": CHALLENGE}, b"{}")
        self.upstream.on("HEAD", OPEN + TARGET.decode(), refusal)
        error = self.failureResultOf(self.ask_as(ANYBODY)).value
        self.assertEqual(error.status, 401)
        self.assertEqual(error.headers["www-authenticate"], CHALLENGE)

    def test_asked_at_once(self) -> None:
        """A client without a login may be refused where a guest is let in."""
        self.upstream.serve_blob(OPEN, "app", BLOB)
        self.successResultOf(self.ask_as(b"Bearer alice")).blob.close()
        late: Deferred[Reply] = Deferred()
        self.upstream.on("HEAD", OPEN + TARGET.decode(), late, Reply(200))
        stranger = self.ask_as(None)
        guest = self.ask_as(ANYBODY)
        self.successResultOf(guest).blob.close()
        late.callback(Reply(401))
        self.clock.advance(0)
        self.assertEqual(self.failureResultOf(stranger).value.status, 401)
