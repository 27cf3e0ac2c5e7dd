"""What plain HTTP to the name of a registry gets, where that name points to this proxy."""

from __future__ import annotations

from http import HTTPStatus

from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET

from regproxy.config.model import Config
from regproxy.listeners.plain import Refusal
from regproxy.oci.errors import BadRequest, Denied
from regproxy.oci.names import Host
from regproxy.web.site import StrictRequest


class RedirectResource(Resource):
    """Registries without TLS are answered for; clients of all others are sent to https.

    Args:
        registries: answers for the registries.
        config: which hosts are intercepted, and which of them are ``plain_http``.
    """

    def __init__(self, registries: IResource, config: Config) -> None:
        super().__init__()
        self._registries = registries
        self._config = config

    def getChildWithDefault(self, path: bytes, request: StrictRequest) -> IResource:
        """The resource that answers *request*."""
        host = request.authority
        if host is None:
            return Refusal(BadRequest("no Host header field: which registry is meant?"))
        if self._config.registry(host).plain_http:
            return self._registries
        secure = Host(host.name)
        if self._config.intercepts(secure):
            return _Redirect(secure)
        return Refusal(
            Denied(f"http://{host} is not a registry of this proxy: add it to [registries]")
        )


class _Redirect(Resource):
    isLeaf = True

    def __init__(self, host: Host) -> None:
        super().__init__()
        self._host = host

    def render(self, request: StrictRequest) -> int:
        """The same at https, by the same method."""
        request.setResponseCode(HTTPStatus.PERMANENT_REDIRECT)
        request.setHeader(b"Location", f"https://{self._host}".encode() + request.form.origin_form)
        # It would outlive a change of the configuration, or of what the name points to.
        request.setHeader(b"Cache-Control", b"no-store")
        request.setHeader(b"Content-Length", b"0")
        request.note(registry=str(self._host), reason="redirected to https")
        request.finish()
        return NOT_DONE_YET
