"""The pages for people and machines: what this is, the CA certificate, health, metrics.

The same tree, but for the metrics, answers on the management port and, for requests in origin
form, on the proxy port, so that ``curl http://PROXY:3128/ca.crt`` works.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Callable
from datetime import datetime
from hashlib import sha256
from http import HTTPStatus
from typing import Final

from attrs import frozen
from twisted.internet.defer import CancelledError, ensureDeferred
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request
from twisted.web.template import Element, Tag, XMLString, renderElement, renderer

from regproxy.management.metrics import Metrics
from regproxy.oci.errors import HostInvalid
from regproxy.oci.names import Host

# Free of "<", ">" and "&": the template would escape them, and its hash would not fit.
_STYLE: Final = """
:root { color-scheme: light dark; --ink: light-dark(#1b2430, #dfe6ee);
  --paper: light-dark(#fbfcfd, #12171d); --soft: light-dark(#5b6775, #93a1b0);
  --line: light-dark(#dde3e9, #2a333d); --box: light-dark(#f1f4f7, #1a2129);
  --accent: light-dark(#0a6a5c, #58c9b5); }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.6 system-ui, sans-serif; }
main { max-width: 44rem; margin: 0 auto; padding: 3rem 1.25rem; }
h1 { margin: 0; font-size: 1.9rem; letter-spacing: -0.02em; }
h2 { margin: 2.5rem 0 0.5rem; font-size: 1.1rem; }
a { color: var(--accent); }
a.button { display: inline-block; padding: 0.5rem 1rem; border-radius: 0.4rem;
  background: var(--accent); color: var(--paper); text-decoration: none; font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.3rem 1rem; }
dt, footer { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
code, pre { font: 0.88rem/1.5 ui-monospace, monospace; }
pre { margin: 0.3rem 0 1.1rem; padding: 0.7rem 0.9rem; overflow-x: auto; background: var(--box);
  border: 1px solid var(--line); border-radius: 0.4rem; }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line);
  font-size: 0.88rem; }
"""
_STYLE_HASH: Final = b64encode(sha256(_STYLE.encode()).digest()).decode("ascii")

_HEADERS: Final = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

_TEMPLATE: Final = XMLString(
    """\
<html lang="en" xmlns:t="http://twistedmatrix.com/ns/twisted.web.template/0.1">
<head>
<meta charset="utf-8" />
<meta name="viewport" content="width=device-width, initial-scale=1" />
<title>regproxy</title>
<style t:render="style" />
</head>
<body t:render="facts">
<main>
<h1>regproxy</h1>
<p>This is a caching proxy for container registries. It ends the TLS of the registries it knows
with certificates of its own, keeps what was pulled once, and passes everything else through.</p>

<h2>Trust its certificates</h2>
<p><a class="button" href="/ca.crt">Download the CA certificate</a></p>
<dl>
<dt>SHA-256</dt><dd><code><t:slot name="fingerprint" /></code></dd>
<dt>Valid until</dt><dd><t:slot name="not_after" /></dd>
</dl>
<p>Compare the fingerprint with the one in the proxy's log: this page came over plain HTTP.
On Debian and Ubuntu, for all programs of the machine:</p>
<pre>curl -o /usr/local/share/ca-certificates/regproxy.crt <t:slot name="proxy" />/ca.crt
update-ca-certificates</pre>

<h2>Use it</h2>
<p>Docker, in <code>/etc/docker/daemon.json</code>:</p>
<pre>{"proxies": {"https-proxy": "<t:slot name="proxy" />"}}</pre>
<p>containerd, in <code>/etc/systemd/system/containerd.service.d/proxy.conf</code>
under <code>[Service]</code>:</p>
<pre>Environment=HTTPS_PROXY=<t:slot name="proxy" /></pre>
<p>Podman, in <code>/etc/containers/containers.conf</code> under <code>[engine]</code>:</p>
<pre>env = ["HTTPS_PROXY=<t:slot name="proxy" />"]</pre>
<p>Then restart the daemon: Docker and containerd read proxy and trusted certificates at
their start.</p>

<footer>regproxy <t:slot name="version" /></footer>
</main>
</body>
</html>
"""
)


@frozen
class Facts:
    """What the page shows.

    Attributes:
        fingerprint: SHA-256 of the CA certificate's DER form, as people compare it.
        not_after: when the CA certificate expires, in UTC.
        proxy_port: the port of the ``[proxy]`` listener.
    """

    fingerprint: str
    not_after: datetime
    version: str
    proxy_port: int = 3128


class ManagementSite(Resource):
    """The root of the tree.

    Args:
        ca_pem: what clients are to trust, in PEM form, as ``/ca.crt`` gives it out.
        facts: what the page shows.
        metrics: what ``/metrics`` shows; None where that is nobody's business.
    """

    def __init__(
        self, ca_pem: Callable[[], bytes], facts: Facts, metrics: Metrics | None = None
    ) -> None:
        Resource.__init__(self)
        self.putChild(b"", _Welcome(facts))
        self.putChild(b"ca.crt", _Certificate(ca_pem))
        self.putChild(b"healthz", _Health())
        if metrics is not None:
            self.putChild(b"metrics", _Scrape(metrics))

    def getChild(self, path: bytes, request: IRequest) -> IResource:
        return _NotFound()


class _Page(Resource, ABC):
    """A resource that can be read and has nothing below it."""

    def __init__(self) -> None:
        Resource.__init__(self)

    def getChild(self, path: bytes, request: IRequest) -> IResource:
        return _NotFound()

    def render(self, request: Request) -> bytes | int:
        _restrict(request)
        if request.method in (b"GET", b"HEAD"):
            return self.read(request)
        request.setHeader("Allow", "GET, HEAD")
        text = "this can be read with GET and HEAD only"
        return _text(request, text, HTTPStatus.METHOD_NOT_ALLOWED)

    @abstractmethod
    def read(self, request: Request) -> bytes | int:
        """The body, or NOT_DONE_YET. Twisted drops a body when the method is HEAD."""


class _NotFound(Resource):
    """Whatever there is not, for every method."""

    isLeaf = True

    def __init__(self) -> None:
        Resource.__init__(self)

    def render(self, request: IRequest) -> bytes:
        _restrict(request)
        text = "not found; there are /, /ca.crt, /healthz and, on the management port, /metrics"
        return _text(request, text, HTTPStatus.NOT_FOUND)


def _restrict(request: IRequest) -> None:
    """Forbid the reader's browser to load, frame or guess anything."""
    for name, value in _HEADERS.items():
        request.setHeader(name, value)


def _text(request: IRequest, text: str, status: HTTPStatus = HTTPStatus.OK) -> bytes:
    """Answer with one line of plain text."""
    request.setResponseCode(status.value)
    request.setHeader("Content-Type", "text/plain; charset=utf-8")
    request.setHeader("Cache-Control", "no-store")
    return text.encode() + b"\n"


class _Health(_Page):
    """Says that the process answers."""

    def read(self, request: Request) -> bytes:
        return _text(request, "ok")


class _Scrape(_Page):
    """The metrics, for Prometheus."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__()
        self._metrics = metrics

    def read(self, request: Request) -> int:
        answering = ensureDeferred(self._answer(request))
        request.notifyFinish().addErrback(lambda _: answering.cancel())
        answering.addErrback(self._failed, request)
        return NOT_DONE_YET

    async def _answer(self, request: Request) -> None:
        accept = ", ".join(request.requestHeaders.getRawHeaders("Accept", []))
        media_type, page = await self._metrics.page(accept)
        request.setHeader("Content-Type", media_type)
        request.setHeader("Content-Length", str(len(page)))
        request.setHeader("Cache-Control", "no-store")
        request.write(page)
        request.finish()

    def _failed(self, failure: Failure, request: Request) -> None:
        if failure.check(CancelledError) is None:
            request.processingFailed(failure)


class _Certificate(_Page):
    """The CA certificate.

    ``application/x-x509-ca-cert`` is what browsers and mobile systems offer to install as
    an authority; the registered ``application/pem-certificate-chain`` (RFC 8555) they only save.
    "inline" lets them offer it, the name is for those that save it: update-ca-certificates takes
    files that end in ``.crt`` only.
    """

    def __init__(self, pem: Callable[[], bytes]) -> None:
        super().__init__()
        self._pem = pem

    def read(self, request: Request) -> bytes:
        request.setHeader("Content-Type", "application/x-x509-ca-cert")
        request.setHeader("Content-Disposition", 'inline; filename="regproxy.crt"')
        # A new CA must not hide behind a stored copy of the old one.
        request.setHeader("Cache-Control", "no-store")
        return self._pem()


class _Welcome(_Page):
    """The page for people."""

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self._facts = facts

    def read(self, request: Request) -> int:
        request.setHeader("Content-Type", "text/html; charset=utf-8")
        # It names the host by which the reader came.
        request.setHeader("Cache-Control", "no-store")
        proxy = _proxy_url(request, self._facts.proxy_port)
        renderElement(request, _WelcomeElement(self._facts, proxy))
        return NOT_DONE_YET


def _proxy_url(request: IRequest, port: int) -> str:
    """The proxy as this reader can reach it: by the name that brought the reader here."""
    try:
        name = Host.parse(request.getRequestHostname().decode("latin-1")).name
    except HostInvalid:
        name = "PROXY"
    return f"http://{Host(name, port).authority}"


class _WelcomeElement(Element):
    """The page with its blanks filled in."""

    loader = _TEMPLATE

    def __init__(self, facts: Facts, proxy: str) -> None:
        super().__init__()
        self._facts = facts
        self._proxy = proxy

    @renderer
    def style(self, request: IRequest, tag: Tag) -> Tag:
        return tag(_STYLE)

    @renderer
    def facts(self, request: IRequest, tag: Tag) -> Tag:
        return tag.fillSlots(
            fingerprint=self._facts.fingerprint,
            not_after=f"{self._facts.not_after:%d %B %Y}",
            proxy=self._proxy,
            version=self._facts.version,
        )
