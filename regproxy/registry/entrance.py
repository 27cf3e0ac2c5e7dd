"""How a request says which registry it is for: the one thing that ways in differ in."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from regproxy.oci.errors import BadRequest, Misdirected
from regproxy.oci.names import Host
from regproxy.web.site import StrictRequest


@frozen
class Entrance:
    """A registry, and what it is asked for.

    Attributes:
        host: the registry, by one of its names.
        target: path and query.
        namespace: what a client of a mirror calls the registry; None where clients
            speak to the registry's own name.
    """

    host: Host
    target: bytes
    namespace: str | None = None


Door = Callable[[StrictRequest], Entrance]


def by_name(request: StrictRequest) -> Entrance:
    """The registry whose name the client speaks to.

    Raises:
        Misdirected: the connection, its SNI and Host do not name the same.
        BadRequest: there is no name at all.
    """
    entered, asked = request.entry.host, request.authority
    names = {host for host in (entered, asked) if host is not None}
    sni = request.server_name() if request.entry.impersonated else None
    if len(names) > 1 or (sni is not None and any(host.name != sni for host in names)):
        raise Misdirected("the connection is for another host than the request")
    if not names:
        raise BadRequest("no Host header field: which registry is meant?")
    (host,) = names
    return Entrance(host, request.form.origin_form)
