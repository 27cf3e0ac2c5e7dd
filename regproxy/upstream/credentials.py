"""Where the logins of this proxy are: its own configuration, Docker's, and helpers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from attrs import frozen
from zope.interface import implementer

from regproxy.config.model import CredentialsSection, RegistrySection
from regproxy.oci.names import Host
from regproxy.upstream.docker_config import (
    DockerConfigInvalid,
    Helper,
    Source,
    parse_docker_config,
)
from regproxy.upstream.errors import UpstreamLoginFailed
from regproxy.upstream.flights import Flights
from regproxy.upstream.helper import ask_helper
from regproxy.upstream.logins import ICredentials, Login, Password, read_password

# Seconds for which a helper's answer is used again: a registry that asks for Basic
# asks with each request, and starting a program takes tens of milliseconds.
HELPER_CACHE: Final = 60.0


@frozen
class _Answer:
    login: Login
    use_until: float


@implementer(ICredentials)
class Credentials:
    """Files are read at each login, so that a rotated secret counts at once."""

    def __init__(self, reactor: Any, section: CredentialsSection, environ: Mapping[str, str]):
        """
        Args:
            reactor: provides IReactorProcess and IReactorTime.
            environ: the environment of helpers.
        """
        self._reactor = reactor
        self._files = section.docker_config
        self._environ = environ
        # As many as the files have helpers and hosts.
        self._answers: dict[Helper, _Answer] = {}
        self._flights: Flights[Helper, Login] = Flights()

    async def login(self, registry: Host, section: RegistrySection) -> Login:
        """The section's own login, or the one of the first file that has one.

        Raises:
            UpstreamLoginFailed: a file cannot be read, a helper fails, or there is none.
        """
        if section.username is not None:
            return Password(section.username, _password(registry, section))
        for file in self._files:
            source = _read(file).get(registry)
            if isinstance(source, Helper):
                return await self._helped(source)
            if source is not None:
                return source
        if not self._files:
            raise UpstreamLoginFailed(f"this proxy has no login for {registry}")
        files = ", ".join(map(str, self._files))
        raise UpstreamLoginFailed(f"there is no login for {registry} in {files}: log in again")

    async def _helped(self, helper: Helper) -> Login:
        answer = self._answers.get(helper)
        if answer is not None and self._reactor.seconds() < answer.use_until:
            return answer.login
        return await self._flights.join(helper, lambda: self._ask(helper))

    async def _ask(self, helper: Helper) -> Login:
        login = await ask_helper(self._reactor, helper, self._environ)
        self._answers[helper] = _Answer(login, self._reactor.seconds() + HELPER_CACHE)
        return login


def _read(file: Path) -> dict[Host, Source]:
    try:
        return parse_docker_config(file.read_bytes())
    except OSError as error:
        raise UpstreamLoginFailed(f"{file} cannot be read: {error.strerror}") from error
    except DockerConfigInvalid as error:
        raise UpstreamLoginFailed(f"{file} cannot be used: {error}") from error


def _password(registry: Host, section: RegistrySection) -> str:
    if section.password_file is None:
        return section.password or ""
    try:
        return read_password(section.password_file)
    except (OSError, UnicodeDecodeError) as error:
        raise UpstreamLoginFailed(
            f"the password file for {registry} cannot be read: {section.password_file}"
        ) from error
