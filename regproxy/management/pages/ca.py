"""``/ca``, ``/ca.crt`` and ``/ca.der``: what clients have to trust."""

from __future__ import annotations

from regproxy.management.pages.answers import Answering, Shown, View
from regproxy.management.pages.rendering import Pages
from regproxy.management.pages.sources import Authority
from regproxy.management.setup.facts import Facts
from regproxy.oci.names import Host
from regproxy.web.site import StrictRequest

# What browsers and mobile systems offer to install as an authority, in either form; the
# registered application/pem-certificate-chain (RFC 8555) they only save.
_TYPE = "application/x-x509-ca-cert"


class CertificatePage(View):
    """The page for people. Everybody may read it.

    Args:
        facts: where the proxy is.
        here: the path that the page is at.
        at_proxy_port: that is where the reader found it.
    """

    def __init__(
        self, pages: Pages, authority: Authority, facts: Facts, here: str, *, at_proxy_port: bool
    ) -> None:
        super().__init__(pages, None)
        self.here = here
        self._authority = authority
        self._facts = facts
        self._at_proxy_port = at_proxy_port

    async def show(self, request: StrictRequest) -> Shown:
        return Shown(
            "pages/ca.html",
            {
                "ca": self._authority.state(),
                "proxy": self._proxy(request),
                "secure": request.isSecure(),
            },
        )

    def _proxy(self, request: StrictRequest) -> str:
        # Its URL as this reader can reach it: by the name that brought the reader here.
        name = "PROXY" if request.authority is None else request.authority.name
        proxy = Host(name, self._facts.proxy_port)
        if self._at_proxy_port and request.isSecure():
            return f"https://{proxy.authority}"
        return self._facts.url(proxy)


class Certificates(Answering):
    """``/ca.crt``: all that clients are to trust, in PEM form.

    "inline" lets browsers offer to install it, the name is for those that save it:
    update-ca-certificates takes files that end in ``.crt`` only.
    """

    def __init__(self, authority: Authority) -> None:
        super().__init__()
        self._authority = authority

    async def read(self, request: StrictRequest) -> tuple[str, bytes]:
        request.setHeader("Content-Disposition", 'inline; filename="regproxy.crt"')
        return _TYPE, self._authority.pem()


class DerCertificate(Certificates):
    """``/ca.der``: the one in use, for what reads no PEM."""

    async def read(self, request: StrictRequest) -> tuple[str, bytes]:
        request.setHeader("Content-Disposition", 'inline; filename="regproxy.der"')
        return _TYPE, self._authority.der()
