"""What the proxy port answers besides CONNECT: its own pages, and http URLs."""

from __future__ import annotations

from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET

from regproxy.config.model import Config
from regproxy.oci.errors import Denied, RegistryError
from regproxy.web.site import StrictRequest


class PlainResource(Resource):
    """Origin-form requests are for the proxy itself, absolute-form ones for others.

    Args:
        own: the pages of the proxy.
        registries: answers for the registries.
        others: answers for other hosts, if the configuration has them relayed.
        config: which registries are ``plain_http``, and ``[relay] allow_http``.
    """

    def __init__(
        self, own: IResource, registries: IResource, others: IResource, config: Config
    ) -> None:
        super().__init__()
        self._own = own
        self._registries = registries
        self._others = others
        self._config = config

    def getChildWithDefault(self, path: bytes, request: StrictRequest) -> IResource:
        """The resource that answers *request*."""
        host = request.form.host
        if host is None:
            child: IResource = self._own.getChildWithDefault(path, request)
            return child
        if request.form.scheme == "http":
            if self._config.registry(host).plain_http:
                return self._registries
            if self._config.relay.allow_http:
                return self._others
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
