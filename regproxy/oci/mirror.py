"""What a mirror is asked for, and references that lead back to it.

A mirror answers for many registries under a name of its own, so a request has to say
which one it is for. There are three ways to: the query parameter ``ns`` (OCI
distribution specification, "Registry Proxying"), which containerd sends; the host as the
first component of the repository's name, for clients that only know one name for the
whole, as docker and podman do; and neither, which is what dockerd sends to its
``registry-mirrors``.

The first component is a host where Docker's reference library would take it for one:
when it has a dot or a colon, or is ``localhost``. So no repository of Docker Hub is
mistaken, whose namespaces have none of these.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from attrs import frozen

from regproxy.oci.errors import BadRequest, HostInvalid
from regproxy.oci.names import Host

_NAMESPACE: Final = b"ns"
_API: Final = b"/v2/"
# A colon cannot stand in a repository's name, nor an underscore in the last label of a
# host's: "registry.example.com_5000" is a port for clients that refuse the other form.
_PORT: Final = re.compile(r"([^:]*\.[^:]*)_([0-9]{1,5})")
# What begins with a scheme, or with another host (RFC 3986 section 4.2).
_ELSEWHERE: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*:|//")
_LINK: Final = re.compile(rb"<([^<>]*)>")


class NotOfTheMirror(BadRequest):
    """The path is none that a mirror answers."""

    status = HTTPStatus.NOT_FOUND

    def __init__(self) -> None:
        super().__init__("a mirror answers below /v2/ only, or where ?ns= names a registry")


@frozen
class MirrorTarget:
    """A request target as a mirror reads it.

    Attributes:
        namespace: the registry as the client names it; None if it names none.
        host: the same as a host.
        target: what that registry is to be asked for, in origin form.
    """

    namespace: str | None
    host: Host | None
    target: bytes


def parse_mirror_target(target: bytes) -> MirrorTarget:
    """Read a target in origin form.

    Where ``ns`` and the first component name the same registry, both are taken out: that
    is what containerd sends with ``override_path``. Where they differ, the component is
    a part of the repository's name.

    Raises:
        HostInvalid: what should name a registry is no host.
        NotOfTheMirror: no registry is named, and the path is not below ``/v2/``.
        BadRequest: ``ns`` is there more than once.
    """
    path, _, query = target.partition(b"?")
    fields = query.split(b"&")
    named = [field for field in fields if _decoded(field.partition(b"=")[0]) == _NAMESPACE]
    first, rest = _first_component(path)
    if named:
        if len(named) > 1:
            raise BadRequest("the query names more than one registry with ns")
        namespace = _text(_decoded(named[0].partition(b"=")[2]))
        host = Host.parse(namespace)
        query = b"&".join(field for field in fields if field not in named)
        if first is not None and _same(first, host):
            path = rest
        return MirrorTarget(namespace, host, path + b"?" + query if query else path)
    if not (path + b"/").startswith(_API):
        raise NotOfTheMirror()
    if first is None:
        return MirrorTarget(None, None, target)
    return MirrorTarget(first, _host(first), rest + target[len(path) :])


def lead_back(reference: bytes, origins: Iterable[bytes], host: Host) -> bytes:
    """*reference*, from an answer of the registry *host*, as one that leads there by the mirror.

    One that leads elsewhere stays as it is.

    Args:
        origins: schemes and authorities that are the registry, without a slash at the end.
    """
    known = (origin for origin in origins if reference.startswith(origin + b"/"))
    local = reference.removeprefix(next(known, b""))
    if _ELSEWHERE.match(local):
        return reference
    local, mark, fragment = local.partition(b"#")
    separator = b"&" if b"?" in local else b"?"
    namespace = _NAMESPACE + b"=" + quote(str(host), safe="").encode()
    return local + separator + namespace + mark + fragment


def links_lead_back(value: bytes, origins: Iterable[bytes], host: Host) -> bytes:
    """A line of the Link field (RFC 8288 section 3) whose targets :func:`lead_back`."""
    known = tuple(origins)
    return _LINK.sub(lambda match: b"<%s>" % lead_back(match[1], known, host), value)


def _first_component(path: bytes) -> tuple[str | None, bytes]:
    """The first component of the name if it is a host, and the path without it."""
    if not path.startswith(_API):
        return None, path
    component, _, rest = path.removeprefix(_API).partition(b"/")
    text = _text(unquote_to_bytes(component))
    is_host = "." in text or ":" in text or text == "localhost"
    return (text, _API + rest) if is_host else (None, path)


def _host(component: str) -> Host:
    match = _PORT.fullmatch(component)
    return Host.parse(component if match is None else f"{match[1]}:{match[2]}")


def _same(component: str, host: Host) -> bool:
    try:
        return _host(component).canonical == host.canonical
    except HostInvalid:
        # Whoever reads the path says what is wrong with it.
        return False


def _decoded(value: bytes) -> bytes:
    """A name or a value of a query, as forms and Go's url.Values write them."""
    return unquote_to_bytes(value.replace(b"+", b" "))


def _text(value: bytes) -> str:
    return value.decode("ascii", "backslashreplace")
