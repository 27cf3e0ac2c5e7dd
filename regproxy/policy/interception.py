"""What becomes of a ``CONNECT``: its TLS is ended here, or its bytes pass untouched.

There is no third decision. Whether a tunnel's destination may be dialled depends
on its addresses, which are known only when it is dialled: the guard of
:mod:`regproxy.policy.addresses` refuses then.
"""

from __future__ import annotations

from attrs import frozen

from regproxy.config.model import Config
from regproxy.oci.names import Host


@frozen
class Intercept:
    """End the TLS here, with a certificate for *host*, and read the requests.

    ``host`` is the one that the client named, since its certificate is what the
    client checks: ``docker.io`` stays ``docker.io``.
    """

    host: Host


@frozen
class Tunnel:
    """Relay the bytes between the client and *host* without reading them."""

    host: Host


Decision = Intercept | Tunnel


def decide(config: Config, host: Host) -> Decision:
    """Decide about a ``CONNECT`` to *host*."""
    return Intercept(host) if config.intercepts(host) else Tunnel(host)
