"""Docker's ``config.json``: which login, or which program that knows one, is for a host. Pure.

The format is that of Docker's command line ("docker login", "Credential stores" and
"Credential helpers"); podman's ``auth.json`` and the ``.dockerconfigjson`` of a
Kubernetes secret have the same. The program's answer is that of Docker's "credential
helper protocol". No message repeats what may be a secret.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from attrs import frozen

from regproxy.oci.errors import HostInvalid, shown
from regproxy.oci.names import Host
from regproxy.upstream.logins import IdentityToken, Login, Password

# The keys one of which every such file has.
_KEYS: Final = ("auths", "credHelpers", "credsStore")
# Docker writes Docker Hub as "https://index.docker.io/v1/". Any other path is a part of a
# registry (podman), or no registry at all ("https://index.docker.io/v1/access-token").
_WHOLE: Final = re.compile(r"(?:https?://)?([^/]+)(?:/v[12])?/?", re.IGNORECASE)
_PART: Final = re.compile(r"(?:https?://)?[^/]+/.*", re.IGNORECASE)
# It becomes the end of a program's name: nothing that leads to another directory.
_HELPER_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
# The user name by which a helper says that the secret is an identity token.
_TOKEN_USER: Final = "<token>"
_NOT_FOUND: Final = b"credentials not found"

_T = TypeVar("_T")


@frozen
class Helper:
    """A program that knows the login.

    Attributes:
        name: the program is ``docker-credential-NAME``.
        server: what it is asked for: the host as the file has it.
    """

    name: str
    server: str

    @property
    def program(self) -> str:
        """The program's name."""
        return f"docker-credential-{self.name}"


Source = Login | Helper


class DockerConfigInvalid(ValueError):
    """A file that is no such configuration.

    Attributes:
        problems: one line for each, with the key; never a secret.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class CredentialsNotFound(ValueError):
    """A helper knows no login for the server."""


def parse_docker_config(content: bytes) -> dict[Host, Source]:
    """Where the login of each registry in the file comes from.

    A helper of a host's own (``credHelpers``) goes before what ``auths`` says. An
    entry of ``auths`` without a login is one that ``credsStore`` keeps. The first of
    several entries for one registry counts, and one for a part of a registry does not.

    Raises:
        DockerConfigInvalid: with all problems.
    """
    try:
        table = json.loads(content)
    except (ValueError, RecursionError):
        raise DockerConfigInvalid(["not JSON"]) from None
    if not isinstance(table, dict) or table.keys().isdisjoint(_KEYS):
        raise DockerConfigInvalid([f"not a Docker config.json: none of {', '.join(_KEYS)} in it"])
    problems: list[str] = []
    found: dict[Host, Source] = {}

    def take(section: str, read: Callable[[str, Any], Source | None]) -> None:
        entries = table.get(section) or {}
        if not isinstance(entries, dict):
            problems.append(f"{section}: expected an object")
            return
        for key, value in entries.items():
            try:
                host, source = _registry(key), read(key, value)
            except ValueError as error:
                problems.append(f"{section}.{json.dumps(key)}: {error}")
                continue
            if host is not None and source is not None:
                found.setdefault(host, source)

    take("credHelpers", lambda key, value: _helper(value, key))
    try:
        store = _helper_name(table.get("credsStore"))
    except ValueError as error:
        problems.append(f"credsStore: {error}")
        store = None

    def login(key: str, value: Any) -> Source | None:
        inline = _inline(value)
        return Helper(store, key) if inline is None and store is not None else inline

    take("auths", login)
    if problems:
        raise DockerConfigInvalid(problems)
    return found


def parse_helper_answer(content: bytes) -> Login:
    """The login that a helper printed.

    Raises:
        CredentialsNotFound: it printed that it has none.
        ValueError: that is no such answer.
    """
    if content.strip().startswith(_NOT_FOUND):
        raise CredentialsNotFound("it has no credentials")
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise ValueError("its answer is not a JSON object")
    username, secret = _text(answer, "Username"), _text(answer, "Secret")
    if not secret:
        raise ValueError("its answer has no Secret")
    if username == _TOKEN_USER:
        return IdentityToken(secret)
    return _password(username, secret)


def _registry(key: str) -> Host | None:
    """The registry that a key names; None for a part of one."""
    whole = _WHOLE.fullmatch(key)
    if whole is None and _PART.fullmatch(key):
        return None
    try:
        return Host.parse(key if whole is None else whole[1]).canonical
    except HostInvalid:
        raise ValueError("expected a registry's host; patterns are not known here") from None


def _inline(entry: Any) -> Login | None:
    """The login in an entry of ``auths``."""
    if not isinstance(entry, dict):
        raise ValueError("expected an object")
    if _text(entry, "registrytoken"):
        raise ValueError("a registrytoken is not supported: it cannot be renewed")
    # Beside one, "auth" has a user name that means nothing, or nothing.
    if token := _text(entry, "identitytoken"):
        return IdentityToken(token)
    if auth := _text(entry, "auth"):
        try:
            # Docker pads with NUL octets, and takes them off again.
            username, colon, password = b64decode(auth, validate=True).decode().partition(":")
        except ValueError:
            colon = ""
        if not colon:
            raise ValueError("auth: expected base64 of USER:PASSWORD")
        return _password(username, password.strip("\0"))
    username, password = _text(entry, "username"), _text(entry, "password")
    if bool(username) != bool(password):
        raise ValueError("expected username and password, or neither")
    return _password(username, password) if username else None


def _password(username: str, password: str) -> Password:
    # RFC 7617 section 2.
    if not username or re.search(r"[\x00-\x1f\x7f:]", username):
        raise ValueError("expected a user name without a colon or control characters")
    # It forbids control characters in passwords too, and Google has keys in JSON there.
    if not password:
        raise ValueError("the password is empty")
    return Password(username, password)


def _helper(value: Any, key: str) -> Helper | None:
    name = _helper_name(value)
    return None if name is None else Helper(name, key)


def _helper_name(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not _HELPER_NAME.fullmatch(value):
        found = shown(value) if isinstance(value, str) else "something that is no text"
        raise ValueError(f"expected NAME of a program docker-credential-NAME, found {found}")
    return value


def _text(table: Mapping[str, Any], key: str) -> str:
    value = table.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{key}: expected a text")
    return value
