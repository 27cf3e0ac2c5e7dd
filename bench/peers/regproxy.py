"""regproxy itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

from bench.setting import Peer, Setting
from bench.upstreams import HOST, REPOSITORY, Upstream
from bench.way import ADDRESS, Way
from tests.support.process import free_port
from tests.support.proxy import Proxy, Value


class Entrance(Enum):
    """By which of its listeners clients come."""

    CONNECT = "proxy"
    TLS = "tls"
    MIRROR = "mirror"


class _Pinned(Proxy):
    """A proxy that runs where servers are to run."""

    def __init__(self, setting: Setting, tables: dict[str, dict[str, Value]]) -> None:
        self._setting = setting
        super().__init__(setting.subdirectory("regproxy"), tables)

    def arguments(self) -> list[str]:
        program, *arguments = super().arguments()
        if self._setting.profile is not None:
            options = ["--savestats", "--profiler=cprofile", f"--profile={self._setting.profile}"]
            arguments = options + arguments
        return self._setting.pinned([program, *arguments])


@contextmanager
def regproxy(
    setting: Setting, upstream: Upstream, entrance: Entrance = Entrance.CONNECT
) -> Iterator[Peer]:
    """Before *upstream*, with a new store. Tags are fresh for an hour."""
    port = free_port()
    tables: dict[str, dict[str, Value]] = {
        f'registries."{HOST}"': {
            "upstream": [upstream.url],
            "plain_http": upstream.url.startswith("http:"),
            "ca_file": str(upstream.keys.ca),
            "relay_private": True,
        },
        "freshness": {"default": "1h"},
    }
    if entrance is not Entrance.CONNECT:
        tables[entrance.value] = {"listen": [f"tcp:{port}:interface={ADDRESS}"]}
    proxy = _Pinned(setting, tables)
    try:
        match entrance:
            case Entrance.CONNECT:
                way = Way(proxy.port, HOST, REPOSITORY, proxy.ca_file, connect=True)
            case Entrance.TLS:
                way = Way(port, HOST, REPOSITORY, proxy.ca_file)
            case Entrance.MIRROR:
                way = Way(port, ADDRESS, f"{HOST}/{REPOSITORY}")
        yield Peer("regproxy", proxy.process, way)
    finally:
        proxy.process.stop()
