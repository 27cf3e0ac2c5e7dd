"""Through a SOCKS5 proxy: the client's side of RFC 1928, with the login of RFC 1929.

Pure: bytes in, (value, rest) out. The handshake is driven by :mod:`regproxy.upstream.handshake`.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final

from regproxy.oci.names import Host
from regproxy.upstream.errors import ParentProxyRefused, UpstreamUnreachable
from regproxy.upstream.handshake import AnswerInvalid, Handshake, Step
from regproxy.upstream.logins import Password

_VERSION: Final = 5
_LOGIN_VERSION: Final = 1
_NO_LOGIN: Final = 0
_PASSWORD: Final = 2
_NOTHING_ACCEPTABLE: Final = 0xFF
_CONNECT: Final = 1
_IPV4: Final = 1
_NAME: Final = 3
_IPV6: Final = 4
_ADDRESS_LENGTHS: Final = {_IPV4: 4, _IPV6: 16}

# RFC 1928 section 6.
_SUCCEEDED: Final = 0
_REFUSALS: Final = {
    2: "its rules do not allow it",
    7: "it does not know the command",
    8: "it does not know this type of address",
}
_FAILURES: Final = {
    1: "general failure",
    3: "the network is unreachable",
    4: "the host is unreachable",
    5: "the connection was refused",
    6: "time to live expired",
}


def greeting(login: Password | None) -> bytes:
    """The ways of logging in that are offered."""
    methods = [_NO_LOGIN] if login is None else [_NO_LOGIN, _PASSWORD]
    return bytes([_VERSION, len(methods), *methods])


def login_message(login: Password) -> bytes:
    """Name and password, each at most 255 bytes long (RFC 1929 section 2)."""
    name, password = login.username.encode(), login.password.encode()
    return bytes([_LOGIN_VERSION, len(name)]) + name + bytes([len(password)]) + password


def request(target: Host) -> bytes:
    """The request for a connection to *target*."""
    if target.is_address:
        packed = ip_address(target.name).packed
        address = bytes([_IPV4 if len(packed) == 4 else _IPV6]) + packed
    else:
        name = target.name.encode("ascii")
        address = bytes([_NAME, len(name)]) + name
    return bytes([_VERSION, _CONNECT, 0]) + address + target.port.to_bytes(2, "big")


def parse_method(data: bytes) -> tuple[int, bytes] | None:
    """The way of logging in that the proxy has chosen.

    Raises:
        AnswerInvalid: it is not SOCKS5.
    """
    _check_version(data, _VERSION)
    return None if len(data) < 2 else (data[1], data[2:])


def parse_login(data: bytes) -> tuple[bool, bytes] | None:
    """Whether the login was accepted.

    Raises:
        AnswerInvalid: it is not SOCKS5.
    """
    _check_version(data, _LOGIN_VERSION)
    return None if len(data) < 2 else (data[1] == 0, data[2:])


def parse_reply(data: bytes) -> tuple[int, bytes] | None:
    """The code of the reply to a request. The address that it names is of no use here.

    Raises:
        AnswerInvalid: it is not SOCKS5.
    """
    _check_version(data, _VERSION)
    if len(data) < 5:
        return None
    kind = data[3]
    if kind != _NAME and kind not in _ADDRESS_LENGTHS:
        raise AnswerInvalid("answered with an address of an unknown type")
    length = 1 + data[4] if kind == _NAME else _ADDRESS_LENGTHS[kind]
    end = 4 + length + 2
    return None if len(data) < end else (data[1], data[end:])


def _check_version(data: bytes, version: int) -> None:
    if data and data[0] != version:
        raise AnswerInvalid("answered with something that is not SOCKS5")


def socks5(name: str, target: Host, login: Password | None) -> Handshake:
    """Ask the proxy called *name* for a connection to *target*.

    Raises:
        ParentProxyRefused: it does not want to.
        UpstreamUnreachable: it cannot.
    """
    method: int = yield Step(greeting(login), parse_method)
    if method == _PASSWORD and login is not None:
        accepted: bool = yield Step(login_message(login), parse_login)
        if not accepted:
            raise ParentProxyRefused(f"{name} does not accept this proxy's login")
    elif method == _NOTHING_ACCEPTABLE and login is None:
        raise ParentProxyRefused(f"{name} wants a login, and there is none for it")
    elif method != _NO_LOGIN:
        raise ParentProxyRefused(f"{name} accepts no way of logging in that is known here")
    code: int = yield Step(request(target), parse_reply)
    if code == _SUCCEEDED:
        return
    where = target.authority
    if code in _FAILURES:
        raise UpstreamUnreachable(f"{name} cannot reach {where}: {_FAILURES[code]}")
    reason = _REFUSALS.get(code, f"it answered {code}")
    raise ParentProxyRefused(f"{name} gives no connection to {where}: {reason}")
