"""What the way out may be: the checks of its keys when a configuration is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from attrs import evolve
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificates

from regproxy.config.model import RegistrySection
from regproxy.config.structure import KeyPath, Problem, Problems
from regproxy.config.wayout import DIRECT, ParentProxy, UpstreamSection
from regproxy.oci.errors import HostInvalid, shown
from regproxy.oci.names import Host
from regproxy.policy.no_proxy import Exempt

ReadFile = Callable[[Path], bytes]

_PROXY_EXPECTED: Final = 'expected "direct", or http, https, socks5 or socks5h://HOST:PORT'
# Programs do not agree on what the port is when it is left out.
_PROXY: Final = re.compile(r"(https?|socks5h?)://([^/?#@\s]+:[0-9]+)/?", re.IGNORECASE)
# RFC 1929 section 2.
_SOCKS_LIMIT: Final = 255


def content(read: ReadFile, key: KeyPath, path: Path, found: list[Problem]) -> bytes:
    """What is in the file at *path*; if it cannot be read, a problem with *key* is found."""
    try:
        return read(path)
    except OSError as error:
        found.append((key, f"cannot read {shown(str(path), 200)}: {error.strerror}"))
        return b""


def certificates(read: ReadFile, key: KeyPath, path: Path, found: list[Problem]) -> None:
    """See that the file at *path* holds certificates."""
    before = len(found)
    pem = content(read, key, path, found)
    if len(found) > before:
        return
    try:
        load_pem_x509_certificates(pem)
    except ValueError:
        found.append(
            (
                key,
                "expected certificates in PEM form (-----BEGIN CERTIFICATE-----),"
                f" found none that can be read in {shown(str(path), 200)}",
            )
        )


def login_problems(
    username: str | None, password: str | None, password_file: Path | None
) -> Iterator[Problem]:
    """What is wrong with the keys of a login, the content of its file apart."""
    both = password is not None and password_file is not None
    neither = password is None and password_file is None
    if both:
        yield ("password_file",), "not together with password: give one of them"
    if username is None:
        if not neither:
            yield ("username",), "missing: a password needs a user name"
    else:
        if neither:
            yield ("username",), "needs password_file or password"
        # RFC 7617 section 2.
        if not username or re.search(r"[\x00-\x1f\x7f:]", username):
            yield ("username",), "expected a name without a colon or control characters"


def password(
    read: ReadFile, given: str | None, file: Path | None, found: list[Problem]
) -> str | None:
    """The password of a login, which may be in a file."""
    if file is not None:
        try:
            text = content(read, ("password_file",), file, found).decode()
            given = text.removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            found.append((("password_file",), "not UTF-8"))
    if given == "" and not found:
        found.append((("password" if file is None else "password_file",), "empty"))
    return given


def finish_proxy(read: ReadFile, proxy: ParentProxy) -> ParentProxy:
    """*proxy* with its URL in canonical form."""
    if proxy.url == DIRECT.url:
        if proxy != DIRECT:
            raise Problems([(("url",), '"direct" is no proxy: it has no other keys')])
        return proxy
    found = list(login_problems(proxy.username, proxy.password, proxy.password_file))
    secret = password(read, proxy.password, proxy.password_file, found)
    if proxy.ca_file is not None:
        certificates(read, ("ca_file",), proxy.ca_file, found)
    scheme, url = "", proxy.url
    try:
        scheme, url = _proxy_url(proxy.url)
    except ValueError as error:
        found.append((("url",), str(error)))
    if scheme.startswith("socks"):
        for key, value in ("username", proxy.username), ("password", secret):
            if value is not None and len(value.encode()) > _SOCKS_LIMIT:
                found.append(((key,), f"SOCKS5 takes at most {_SOCKS_LIMIT} bytes"))
    if proxy.ca_file is not None and scheme and scheme != "https":
        found.append((("ca_file",), "is for https:// proxies"))
    _raise_any(found)
    return evolve(proxy, url=url)


def _proxy_url(text: str) -> tuple[str, str]:
    match = _PROXY.fullmatch(text)
    if match is None:
        # It may hold a password: not repeated.
        raise ValueError(f"{_PROXY_EXPECTED}, with username and password in keys of their own")
    try:
        host = Host.parse(match[2])
    except HostInvalid as error:
        raise ValueError(f"{_PROXY_EXPECTED}: {error.message}") from None
    scheme = match[1].lower()
    return scheme, f"{scheme}://{host.authority}"


def finish_upstream(section: UpstreamSection) -> UpstreamSection:
    """*section*, if it can be used."""
    found: list[Problem] = []
    for index, entry in enumerate(section.no_proxy):
        try:
            Exempt.parse(entry)
        except ValueError as error:
            found.append((("no_proxy", index), f"{error}, found {shown(entry)}"))
    found.extend(source_problems(section.source_address))
    _raise_any(found)
    return section


def source_problems(addresses: tuple[str, ...]) -> Iterator[Problem]:
    """What is wrong with ``source_address``."""
    versions: set[int] = set()
    for index, text in enumerate(addresses):
        try:
            version = ip_address(text).version
        except ValueError:
            yield ("source_address", index), f"expected an IP address, found {shown(text)}"
            continue
        if version in versions:
            yield ("source_address", index), f"there is an IPv{version} address already"
        versions.add(version)


def registry_problems(read: ReadFile, section: RegistrySection) -> list[Problem]:
    """What is wrong with how *section* says that its registry is reached."""
    found = list(source_problems(section.source_address or ()))
    cert, key = section.client_cert, section.client_key
    if cert is not None and key is not None:
        _pair(read, cert, key, found)
    elif cert is not None:
        found.append((("client_key",), "missing: client_cert needs its key"))
    elif key is not None:
        found.append((("client_cert",), "missing: client_key needs its certificate"))
    return found


def _pair(read: ReadFile, cert: Path, key: Path, found: list[Problem]) -> None:
    """See that the two files are a certificate and its key."""
    before = len(found)
    certificates(read, ("client_cert",), cert, found)
    pem = content(read, ("client_key",), key, found)
    if len(found) > before:
        return
    try:
        private = load_pem_private_key(pem, None)
    except (ValueError, TypeError):
        found.append(
            (
                ("client_key",),
                "expected a private key in PEM form, without a passphrase,"
                f" found none that can be read in {shown(str(key), 200)}",
            )
        )
        return
    leaf, *_ = load_pem_x509_certificates(read(cert))
    if leaf.public_key() != private.public_key():
        found.append((("client_key",), "is not the key of the first certificate in client_cert"))


def _raise_any(found: list[Problem]) -> None:
    if found:
        raise Problems(found)
