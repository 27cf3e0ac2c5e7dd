"""Whether what the machine would be pointed at answers from here, before it is."""

from __future__ import annotations

import secrets
import socket
import ssl
from http.client import HTTPException
from typing import Final
from urllib.request import HTTPSHandler, ProxyHandler, build_opener

from regproxy.dns.message import HEADER_SIZE, Query, Question, Type
from regproxy.node.errors import Unreachable
from regproxy.node.settings import Mode, Settings

# Seconds.
TIMEOUT: Final = 5.0
DNS_PORT: Final = 53
_MAX: Final = 65535


def check(settings: Settings, dns_port: int = DNS_PORT) -> None:
    """See that the listener of the mode answers.

    Raises:
        Unreachable: it does not, or not as a regproxy.
    """
    match settings.mode:
        case Mode.PROXY:
            _get(f"{settings.proxy}/healthz", settings.ca)
        case Mode.MIRROR:
            _get(f"{settings.mirror}/v2/")
        case Mode.DNS:
            for server in settings.servers:
                _ask(server, settings.names[0], dns_port)
        case Mode.UNDO:
            pass


def _get(url: str, ca: bytes = b"") -> None:
    context = ssl.create_default_context()
    # The environment may name a proxy; this is about the way without one.
    opener = build_opener(ProxyHandler({}), HTTPSHandler(context=context))
    try:
        if url.startswith("https:") and ca:
            # The machine will trust it, and [proxy] tls_names has certificates of it.
            context.load_verify_locations(cadata=ca.decode("ascii"))
        with opener.open(url, timeout=TIMEOUT) as answer:
            answer.read()
    except (OSError, ValueError, HTTPException) as error:
        raise Unreachable(f"{url}: {error}") from None


def _ask(server: str, name: str, port: int) -> None:
    """See that *name* has an address there."""
    query = Query(Question.about(name, Type.A), secrets.randbits(16)).encoded()
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as datagrams:
        datagrams.settimeout(TIMEOUT)
        try:
            datagrams.connect((server, port))
            datagrams.send(query)
            answer = datagrams.recv(_MAX)
        except OSError as error:
            raise Unreachable(f"name server {server}: {error}") from None
    # RFC 1035 section 4.1.1: the code of the error, and the number of answers.
    if len(answer) < HEADER_SIZE or answer[:2] != query[:2] or answer[3] & 15 or not answer[7]:
        raise Unreachable(f"name server {server} has no address of {name}")
