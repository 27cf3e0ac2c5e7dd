"""An upstream that answers as it is told and remembers what it was asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer, IResponse
from zope.interface import alsoProvides, implementer

from regproxy.interfaces import IMirrored, IUpstream
from regproxy.oci.media_types import OCI_MANIFEST
from regproxy.oci.names import Digest, Host, Repository
from regproxy.policy.upstreams import Sources, course, is_answer
from regproxy.upstream.errors import UpstreamUnreachable


@frozen
class Asked:
    """One question.

    Attributes:
        url: host identity and target.
        mirror: a mirror was asked, and not the registry itself.
    """

    method: str
    url: str
    headers: Headers
    repository: Repository | None
    authorization: bytes | None
    inject: bool
    body: bytes
    sources: Sources
    patience: float | None
    mirror: bool = False

    def __str__(self) -> str:
        return f"{self.method} {'mirror of ' * self.mirror}{self.url}"


@frozen
class Reply:
    """A response.

    Attributes:
        body: None for one that the test delivers piece by piece.
        length: what Content-Length says; None for the length of the body, -1 for nothing.
    """

    code: int = 200
    headers: Mapping[str, str | Sequence[str]] = field(factory=dict)
    body: bytes | None = b""
    length: int | None = None


@implementer(IResponse)
class FakeResponse:
    """A response whose body comes when the test says so.

    Attributes:
        taken: somebody has asked for the body.
        aborted: and has broken off the connection before its end.
        ended: nothing more will come.
        paused: the reader wants no more for now.
        complaints: what was said of a mirror's answer, and whether it was wrong.
    """

    version = (b"HTTP", 1, 1)
    phrase = b"Said So"
    previousResponse = None

    def __init__(self, method: bytes, reply: Reply) -> None:
        self.request: Any = _Request(method)
        self.code = reply.code
        self.headers = Headers()
        for name, value in reply.headers.items():
            self.headers.setRawHeaders(name, [value] if isinstance(value, str) else value)
        length = reply.length
        if length is None:
            length = -1 if reply.body is None else len(reply.body)
        self.length: Any = UNKNOWN_LENGTH if length < 0 else length
        if method == b"HEAD":
            # What Twisted makes of one: see length_of in regproxy.registry.ask.
            self.length = 0
            if length >= 0:
                self.headers.setRawHeaders("Content-Length", [str(length)])
        self.taken = self.aborted = self.ended = self.paused = False
        self.complaints: list[tuple[str, bool]] = []
        self._protocol: IProtocol | None = None
        self._pieces: list[bytes] = []
        self._end: Exception | None = None
        if method == b"HEAD":
            self.end()
        elif reply.body is not None:
            self.send(reply.body)
            self.end()

    def setPreviousResponse(self, response: IResponse) -> None:
        raise NotImplementedError

    def deliverBody(self, protocol: IProtocol) -> None:
        assert self._protocol is None, "the body of a response was asked for twice"
        self.taken = True
        self._protocol = protocol
        protocol.makeConnection(_Connection(self))
        self._flow()

    def spoiled(self, reason: str, *, wrong: bool = False) -> None:
        """See IMirrored, which answers of mirrors provide."""
        self.complaints.append((reason, wrong))

    # The server

    def send(self, data: bytes) -> None:
        """More of the body arrives."""
        self._pieces.append(data)
        self._flow()

    def end(self) -> None:
        """The body is over."""
        self._end = ResponseDone()
        self._flow()

    def break_off(self) -> None:
        """The connection is lost in the middle of the body."""
        self._end = ResponseFailed([Failure(ConnectionResetError())])
        self._flow()

    def _flow(self) -> None:
        while self._protocol is not None and not self.paused and not self.ended:
            if self._pieces:
                self._protocol.dataReceived(self._pieces.pop(0))
            elif self._end is not None:
                self.ended = True
                self._protocol.connectionLost(Failure(self._end))
            else:
                return

    # The reader

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False
        self._flow()

    def abort(self) -> None:
        if self.ended:
            return
        self.aborted = self.ended = True
        assert self._protocol is not None
        self._protocol.connectionLost(Failure(ResponseFailed([Failure(ConnectionAbortedError())])))


@frozen
class _Request:
    method: bytes


class _Connection(StringTransport):
    """What the reader of a body sees of the connection."""

    def __init__(self, response: FakeResponse) -> None:
        super().__init__()
        self._response = response

    def pauseProducing(self) -> None:
        self._response.pause()

    def resumeProducing(self) -> None:
        self._response.resume()

    def abortConnection(self) -> None:
        self._response.abort()

    def loseConnection(self) -> None:
        self._response.abort()


Answer = Reply | Exception | Deferred[Reply]

#: For ``FakeUpstream.on``: every method.
READS: Final = ("GET", "HEAD")


@implementer(IUpstream)
class FakeUpstream:
    """Answers from a script; what is not in it is an error of the test.

    Attributes:
        asked: all questions so far.
        asked_anonymously: the questions whether a repository is public; they are not in
            ``asked``.
        public: the repositories that are, as ``host/repository``.
        anonymous_failure: what these questions fail with instead.
        responses: all responses so far.
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.asked_anonymously: list[Asked] = []
        self.public: set[str] = set()
        self.anonymous_failure: Exception | None = None
        self.responses: list[FakeResponse] = []
        self._script: dict[tuple[bool, str, str], list[Answer]] = {}

    def on(self, method: str, url: str, *answers: Answer, mirror: bool = False) -> None:
        """Answer *method* of *url* with *answers* in turn; the last one stays."""
        self._script[mirror, method, url] = list(answers)

    def serve_blob(self, host: str, repository: str, content: bytes) -> str:
        """Have a blob; its target."""
        digest = str(Digest.of(content))
        target = f"/v2/{repository}/blobs/{digest}"
        headers = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": digest}
        for method in READS:
            self.on(method, host + target, Reply(200, headers, content))
        return target

    def serve_manifest(
        self,
        host: str,
        repository: str,
        tag: str,
        content: bytes,
        media_type: str = OCI_MANIFEST,
    ) -> str:
        """Have a manifest by tag and by digest; the target of the tag."""
        digest = str(Digest.of(content))
        headers = {"Content-Type": media_type, "Docker-Content-Digest": digest}
        for reference in (tag, digest):
            for method in READS:
                url = f"{host}/v2/{repository}/manifests/{reference}"
                self.on(method, url, Reply(200, headers, content))
        return f"/v2/{repository}/manifests/{tag}"

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
        """See :class:`regproxy.interfaces.IUpstream`."""
        sent = b""
        if body is not None:
            consumer = StringTransport()
            sending: Deferred[None] = body.startProducing(consumer)
            await sending
            sent = consumer.value()
        asked = Asked(
            method.decode(),
            f"{host}{target.decode()}",
            headers,
            repository,
            authorization,
            inject,
            sent,
            sources,
            patience,
        )
        if anonymous:
            self.asked_anonymously.append(asked)
            if self.anonymous_failure is not None:
                raise self.anonymous_failure
            found = f"{host}/{repository}" in self.public
            return FakeResponse(method, Reply(200 if found else 401))
        last: Reply | Exception = UpstreamUnreachable("nobody has it")
        for mirror in course([True, False], sources, lambda mirror: False):
            if mirror and (True, asked.method, asked.url) not in self._script:
                # Most registries of tests have none.
                continue
            said = await self._said(evolve(asked, mirror=mirror))
            if isinstance(said, Reply) and is_answer(said.code, origin=not mirror):
                return self._respond(method, said, mirror)
            if not mirror:
                last = said
        if isinstance(last, Exception):
            raise last
        return self._respond(method, last, False)

    def _respond(self, method: bytes, said: Reply, mirror: bool) -> FakeResponse:
        response = FakeResponse(method, said)
        if mirror:
            alsoProvides(response, IMirrored)
        self.responses.append(response)
        return response

    async def _said(self, asked: Asked) -> Reply | Exception:
        self.asked.append(asked)
        answers = self._script.get((asked.mirror, asked.method, asked.url))
        if not answers:
            raise AssertionError(f"upstream was asked for {asked}, which nobody expected")
        answer = answers.pop(0)
        if isinstance(answer, Deferred):
            answer = await answer
        if not answers:
            answers.append(answer)
        return answer

    def questions(self) -> list[str]:
        """Method and target of what was asked since the last call."""
        questions = [str(asked) for asked in self.asked]
        self.asked.clear()
        return questions

    def neglected(self) -> list[FakeResponse]:
        """Responses that nobody read, or that nobody reads any more."""
        return [response for response in self.responses if not response.ended]
