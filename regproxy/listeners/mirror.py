"""The ``[mirror]`` listener: a registry that stands for all registries of this proxy.

It only finds out which of them a request is for, and hands it on.
"""

from __future__ import annotations

from http import HTTPStatus

from attrs import frozen
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET

from regproxy.config.model import Config
from regproxy.listeners.head import TLS_HANDSHAKE
from regproxy.oci.errors import BadRequest, MethodNotAllowed
from regproxy.oci.mirror import parse_mirror_target
from regproxy.registry.entrance import Entrance
from regproxy.registry.service import READS
from regproxy.web.channel import StrictChannel
from regproxy.web.site import StrictRequest, StrictSite


@frozen
class MirrorDoor:
    """Finds the registry in the query, in the path, or, as the default, in *config*."""

    config: Config

    def __call__(self, request: StrictRequest) -> Entrance:
        """The registry that a client of the mirror asks.

        Raises:
            BadRequest: the client takes this for a proxy, or what it sends for a registry
                is none.
            MethodNotAllowed: it pushes without saying where to. containerd sends ``ns``
                with pulls only: the image would go to another registry than it is for.
        """
        if request.form.host is not None:
            raise BadRequest("this is a mirror and no proxy: it takes no absolute URLs")
        read = parse_mirror_target(request.form.origin_form)
        if read.host is None or read.namespace is None:
            if request.method not in READS:
                error = MethodNotAllowed("a push by a mirror needs its registry in the path")
                error.headers["Allow"] = "GET, HEAD"
                raise error
            default = self.config.mirror.default_registry
            return Entrance(default, read.target, str(default))
        # Of Docker Hub's names the configuration may have only the one that clients dial.
        return Entrance(read.host.canonical, read.target, read.namespace)


class MirrorChannel(StrictChannel):
    """A connection to a mirror.

    Where plain HTTP is allowed, podman and dockerd try TLS first, and would wait ten seconds
    for an answer to it. This one their common library (Go's ``net/http``) understands.
    """

    _begun = False

    def dataReceived(self, data: bytes) -> None:
        """More of a request, unless the first of all is a TLS handshake."""
        first, self._begun = not self._begun, True
        if first and data.startswith(TLS_HANDSHAKE):
            self._refuse(HTTPStatus.BAD_REQUEST, "this port speaks HTTP without TLS")
        else:
            super().dataReceived(data)


class MirrorSite(StrictSite):
    """The site of a mirror."""

    protocol = MirrorChannel


class MirrorResource(Resource):
    """All that a mirror answers.

    The ping that names no registry is answered here. Clients such as podman send it for every
    registry behind a mirror, and dockerd would take no later challenge anyway.

    Args:
        registries: answers for the registries.
    """

    isLeaf = True

    def __init__(self, registries: IResource) -> None:
        super().__init__()
        self._registries = registries

    def render(self, request: StrictRequest) -> int:
        """Answer, or have the registry's answer."""
        if request.uri not in (b"/v2/", b"/v2") or request.method not in READS:
            answering: int = self._registries.render(request)
            return answering
        request.setHeader(b"Docker-Distribution-Api-Version", b"registry/2.0")
        request.setHeader(b"Content-Type", b"application/json")
        request.setHeader(b"Content-Length", b"2")
        request.write(b"{}")
        request.finish()
        return NOT_DONE_YET
