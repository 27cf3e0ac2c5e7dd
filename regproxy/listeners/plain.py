"""What the proxy port answers besides CONNECT: its own pages, and registries without TLS."""

from __future__ import annotations

from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET

from regproxy.config.model import Config
from regproxy.oci.errors import Denied, RegistryError
from regproxy.web.site import StrictRequest


class PlainResource(Resource):
    """Origin-form requests are for the proxy itself, absolute-form ones for a registry.

    Args:
        own: the pages of the proxy.
        registries: answers for the registries.
        config: which registries are ``plain_http``.
    """

    def __init__(self, own: IResource, registries: IResource, config: Config) -> None:
        super().__init__()
        self._own = own
        self._registries = registries
        self._config = config

    def getChildWithDefault(self, path: bytes, request: StrictRequest) -> IResource:
        """The resource that answers *request*."""
        host = request.form.host
        if host is None:
            child: IResource = self._own.getChildWithDefault(path, request)
            return child
        if request.form.scheme == "http" and self._config.registry(host).plain_http:
            return self._registries
        return Refusal(
            Denied(
                f"{request.form.scheme}://{host} is not relayed: only registries marked"
                " plain_http are asked without CONNECT"
            )
        )


class Refusal(Resource):
    """Answers with an error."""

    isLeaf = True

    def __init__(self, error: RegistryError) -> None:
        super().__init__()
        self._error = error

    def render(self, request: StrictRequest) -> int:
        """Refuse."""
        request.answer_error(self._error)
        return NOT_DONE_YET
