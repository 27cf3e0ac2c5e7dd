"""Which server the command talks to, and as whom.

What is said on the command line goes before the environment, and that before the file
``~/.config/regproxy/cli.toml``.
"""

from __future__ import annotations

import os
import tomllib
from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from attrs import field, frozen

from regproxy.cli.errors import CommandFailed

#: The default of ``[management] listen``.
DEFAULT_URL: Final = "http://127.0.0.1:8080"
_KEYS: Final = ("url", "token", "token_file", "user", "password")
_SECRETS: Final = ("token", "password")


@frozen
class Settings:
    """A server and a login there.

    Attributes:
        url: of the root of the management site, without a slash at its end.
        authorization: the value of the Authorization field, or None.
    """

    url: str
    authorization: str | None = field(default=None, repr=False)


@frozen
class Options:
    """What the command line says; None where it says nothing."""

    url: str | None = None
    token_file: Path | None = None
    user: str | None = None


def find_settings(
    options: Options,
    environ: Mapping[str, str],
    file: Path,
    ask: Callable[[str], str],
) -> Settings:
    """Put together what *options*, *environ* and *file* say.

    The login comes whole from the first of them that has one. The one in the file is for the
    server that the file names: it is sent to no other.

    Args:
        ask: asks the user for the password of the user that it is given.

    Raises:
        CommandFailed: something that was named cannot be read or used.
    """
    stored = _read(file)
    url = _url(options.url or environ.get("REGPROXY_URL") or stored.get("url") or DEFAULT_URL)
    if options.token_file is not None:
        return Settings(url, _bearer(_secret(options.token_file)))
    if options.user is not None:
        return Settings(url, _basic(options.user, environ.get("REGPROXY_PASSWORD"), ask))
    if token := environ.get("REGPROXY_TOKEN"):
        return Settings(url, _bearer(token))
    if user := environ.get("REGPROXY_USER"):
        return Settings(url, _basic(user, environ.get("REGPROXY_PASSWORD"), ask))
    if url == _url(stored.get("url", DEFAULT_URL)):
        return Settings(url, _stored_login(stored, file, ask))
    return Settings(url)


def _stored_login(stored: Mapping[str, str], file: Path, ask: Callable[[str], str]) -> str | None:
    if token := stored.get("token"):
        return _bearer(token)
    if name := stored.get("token_file"):
        return _bearer(_secret(file.parent / Path(name).expanduser()))
    if user := stored.get("user"):
        return _basic(user, stored.get("password"), ask)
    return None


def _read(file: Path) -> Mapping[str, str]:
    """What *file* says; nothing when there is none."""
    try:
        with file.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            table = tomllib.load(stream)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise CommandFailed(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise CommandFailed(f"{file} is not TOML: {error}") from None
    for key, value in table.items():
        if key not in _KEYS:
            raise CommandFailed(f"{file}: unknown key {key} (allowed: {', '.join(_KEYS)})")
        if not isinstance(value, str) or not value:
            raise CommandFailed(f"{file}: {key} has to be a text, in quotes")
    if mode & 0o077 and any(key in table for key in _SECRETS):
        raise CommandFailed(f"{file} holds a secret and others can read it: chmod 600 {file}")
    return table


def _secret(path: Path) -> str:
    """The first line of the file at *path*."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise CommandFailed(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CommandFailed(f"{path} is no text") from None
    token = text.partition("\n")[0].strip()
    if not token:
        raise CommandFailed(f"{path} is empty: its first line has to be the token")
    return token


def _bearer(token: str) -> str:
    # A field's value has no line breaks in it, nor other control characters
    # (RFC 9110 section 5.5).
    if not token.isascii() or not token.isprintable():
        raise CommandFailed("the token has characters that no token has")
    return f"Bearer {token}"


def _basic(user: str, password: str | None, ask: Callable[[str], str]) -> str:
    if ":" in user:
        raise CommandFailed("the name of a user has no colon (RFC 7617 section 2)")
    login = f"{user}:{ask(user) if password is None else password}"
    return "Basic " + b64encode(login.encode()).decode("ascii")


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or "@" in parts.netloc or parts.query or parts.fragment:
        raise CommandFailed(
            "the URL of the server has to be like http://127.0.0.1:8080;"
            " logins have options of their own"
        )
    return text.rstrip("/")
