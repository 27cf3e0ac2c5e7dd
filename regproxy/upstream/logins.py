"""What this proxy tells a registry about itself, and where that is looked up."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Awaitable
from pathlib import Path

from attrs import field, frozen
from zope.interface import Interface

from regproxy.config.model import RegistrySection
from regproxy.oci.names import Host


@frozen
class Password:
    """A user name and its password, or an access token in the password's place."""

    username: str
    # Not in the repr: it would reach logs and tracebacks.
    password: str = field(repr=False)

    @property
    def authorization(self) -> bytes:
        """The Authorization of RFC 7617, in UTF-8."""
        return b"Basic " + b64encode(f"{self.username}:{self.password}".encode())


@frozen
class IdentityToken:
    """What a registry gave in exchange for a password: a refresh token of OAuth 2.0.

    It is good for getting tokens only (distribution project, "Token Authentication
    Specification", OAuth 2): a registry that asks for Basic does not know it.
    """

    token: str = field(repr=False)


Login = Password | IdentityToken


def read_password(file: Path) -> str:
    """The password in *file*; a line break at its end does not count.

    Raises:
        OSError, UnicodeDecodeError: it cannot be read.
    """
    return file.read_text("utf-8").rstrip("\r\n")


class ICredentials(Interface):
    """The logins of this proxy."""

    def login(registry: Host, section: RegistrySection) -> Awaitable[Login]:
        """The login at *registry*, whose section is *section*; looked up anew each time.

        Raises an ``UpstreamLoginFailed`` that says where it was looked for when there
        is none.
        """
