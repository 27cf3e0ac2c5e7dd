"""Logins in memory."""

from __future__ import annotations

from collections.abc import Mapping

from zope.interface import implementer

from regproxy.config.model import RegistrySection
from regproxy.oci.names import Host
from regproxy.upstream.errors import UpstreamLoginFailed
from regproxy.upstream.logins import ICredentials, Login


@implementer(ICredentials)
class FakeCredentials:
    """Attributes:
    logins: by registry; a test may change them.
    """

    def __init__(self, logins: Mapping[Host, Login]) -> None:
        self.logins = dict(logins)

    async def login(self, registry: Host, section: RegistrySection) -> Login:
        if registry not in self.logins:
            raise UpstreamLoginFailed(f"no login for {registry}")
        return self.logins[registry]
