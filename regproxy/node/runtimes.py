"""What containerd, dockerd, CRI-O and podman have to be told, each in its own files."""

from __future__ import annotations

import fnmatch
import os
import re
import tomllib
from collections.abc import Iterator, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from attrs import frozen

from regproxy.node.actions import TRUST, UNITS, reload, restart
from regproxy.node.changes import (
    Change,
    Kind,
    append,
    block,
    block_of,
    docker_mirror,
    unless_there,
    whole,
)
from regproxy.node.errors import Refused
from regproxy.node.machine import Machine
from regproxy.node.services import Services
from regproxy.node.settings import ALL, Mode, Settings, server
from regproxy.node.trust import NAME, store

CONTAINERD: Final = "/etc/containerd/config.toml"
CERTS_D: Final = "/etc/containerd/certs.d"
_NOTE: Final = "# Written by regproxy, which removes it again.\n"
# The name of the table that has [registry], by the version of the file: containerd's
# docs/cri/registry.md. Without a version it is 1, which containerd 2.4 still reads.
_PLUGINS: Final = {1: "cri", 2: "io.containerd.grpc.v1.cri"}
_PLUGIN: Final = "io.containerd.cri.v1.images"


@frozen
class Runtimes:
    """The container runtimes of a machine."""

    machine: Machine
    services: Services

    def changes(self, settings: Settings) -> list[Change]:
        """What has to be in their files.

        Raises:
            Refused: there is none, or one whose configuration must not be touched.
        """
        if not (self._daemons or self._podman):
            raise Refused("neither containerd, dockerd, CRI-O nor podman is here")
        if settings.mode is Mode.MIRROR:
            return [*self._mirror(settings)]
        changes = [*self._trust(settings)]
        if settings.mode is Mode.PROXY:
            changes += self._proxy(settings)
        return changes

    @property
    def _daemons(self) -> list[str]:
        """Those that pull."""
        names = [name for name in ("containerd", "crio", "docker") if self.services.has(name)]
        if "containerd" in names and not self._serves_kubernetes():
            names.remove("containerd")
        return names

    @property
    def _podman(self) -> bool:
        return self.machine.exists("/etc/containers")

    def _serves_kubernetes(self) -> bool:
        """Whether containerd pulls itself, and does not only run what dockerd has pulled."""
        off = self._containerd().get("disabled_plugins", [])
        return not {*_PLUGINS.values(), _PLUGIN}.intersection(off)

    def _containerd(self) -> dict[str, Any]:
        return _parse(self.machine.read(CONTAINERD))

    def _restarts(self) -> list[str]:
        return [restart(name) for name in self._daemons]

    def _trust(self, settings: Settings) -> Iterator[Change]:
        ca = settings.ca.decode()
        # They read the system's certificates once, at their start.
        yield whole(store(self.machine).file, ca, [TRUST, *self._restarts()])
        directories = []
        if "docker" in self._daemons:
            directories.append("/etc/docker/certs.d")
        if self._podman:
            directories.append("/etc/containers/certs.d")
        for directory in directories:
            for host in settings.registries:
                yield whole(f"{directory}/{host}/{NAME}", ca)
        if "containerd" in self._daemons:
            hosts = self._hosts_directory()
            for host in settings.registries:
                file = f"{hosts}/{host}/{NAME}"
                yield whole(file, ca)
                yield unless_there(
                    f"{hosts}/{host}/hosts.toml", _NOTE + trusting(str(server(host)), file)
                )

    def _proxy(self, settings: Settings) -> Iterator[Change]:
        variables = {"HTTPS_PROXY": settings.proxy, "NO_PROXY": settings.no_proxy}
        for name in self._daemons:
            if self.services.systemd:
                lines = [f'Environment="{key}={value}"' for key, value in variables.items()]
                yield whole(
                    f"/etc/systemd/system/{name}.service.d/regproxy.conf",
                    _NOTE + "\n".join(["[Service]", *lines]) + "\n",
                    [UNITS, restart(name)],
                )
            else:
                lines = [f'export {key}="{value}"' for key, value in variables.items()]
                yield block(f"/etc/conf.d/{name}", lines, [restart(name)])

    def _mirror(self, settings: Settings) -> Iterator[Change]:
        if "containerd" in self._daemons:
            if not self._imported_directory():
                then = (restart("containerd"),)
                yield Change(CONTAINERD, with_hosts_directory, then, Kind.BLOCK)
            hosts = self._hosts_directory()
            for host in settings.hosts:
                origin = "" if host == ALL else f'server = "https://{server(host)}"\n\n'
                text = f'[host."{settings.mirror}"]\n  capabilities = ["pull", "resolve"]\n'
                yield unless_there(f"{hosts}/{host}/hosts.toml", _NOTE + origin + text)
        if "docker" in self._daemons:
            yield docker_mirror("/etc/docker/daemon.json", settings.mirror, [reload("docker")])
        if self._podman:
            reloads = [reload("crio")] if "crio" in self._daemons else []
            file = "/etc/containers/registries.conf.d/regproxy.conf"
            hosts_left = [host for host in settings.registries if host not in self._mirrored(file)]
            if hosts_left:
                yield whole(file, registries_conf(hosts_left, settings.mirror), reloads)

    def _hosts_directory(self) -> str:
        """Where containerd looks for directories of registries."""
        path = self._imported_directory() or _config_path(self._containerd())
        return path.partition(":")[0] or CERTS_D

    def _imported_directory(self) -> str:
        """What a file that ``config.toml`` imports says about it; empty if none does.

        Raises:
            Refused: such a file stands in the way.
        """
        table = self._containerd()
        plugin = _plugin(table)
        for pattern in table.get("imports", []):
            directory, name = os.path.split(os.path.join(os.path.dirname(CONTAINERD), pattern))
            for found in fnmatch.filter(self.machine.names(directory), name):
                file = f"{directory}/{found}"
                imported = _parse(self.machine.read(file), file)
                if path := _config_path(imported, plugin):
                    return path
                # Before containerd 2, of a plug-in that is in both files only the imported one
                # counts: https://github.com/containerd/containerd/issues/5837
                if plugin in imported.get("plugins", {}) and plugin in _PLUGINS.values():
                    raise Refused(
                        f'{file} has [plugins."{plugin}"]: set registry.config_path there'
                    )
        return ""

    def _mirrored(self, ours: str) -> set[str]:
        """The registries that others have configured for podman and CRI-O."""
        directory = "/etc/containers/registries.conf.d"
        files = [f"{directory}/{name}" for name in self.machine.names(directory)]
        found = set()
        for file in ["/etc/containers/registries.conf", *files]:
            if file != ours and file.endswith(".conf"):
                for entry in _parse(self.machine.read(file), file).get("registry", []):
                    found.add(entry.get("prefix") or entry.get("location"))
        return found


def with_hosts_directory(base: bytes | None) -> bytes:
    """containerd's ``config.toml`` with a ``config_path``, if it has none.

    Raises:
        Refused: it is not TOML, or has mirrors in it, which exclude a ``config_path``.
    """
    text = (base or b"").decode()
    table = _parse(base)
    if base is None:
        # Version 2 is what 1.6 and 2.x take alike.
        text, table = "version = 2\n", {"version": 2}
    plugin = _plugin(table)
    if _config_path(table):
        return text.encode()
    registry = table.get("plugins", {}).get(plugin, {}).get("registry", {})
    for key in "mirrors", "configs":
        if registry.get(key):
            raise Refused(
                f"{CONTAINERD} has registry.{key}, which containerd does not take beside the"
                f" config_path that a mirror needs: move it to {CERTS_D}"
            )
    line = f'config_path = "{CERTS_D}"'
    name = rf"[\"']?{re.escape(plugin)}[\"']?"
    header = re.search(rf"^[ \t]*\[[ \t]*plugins\.{name}\.registry[ \t]*\][^\n]*\n", text, re.M)
    if header is None:
        new = append(text.encode(), [f'[plugins."{plugin}".registry]', line]).decode()
    else:
        head, rest = text[: header.end()], text[header.end() :]
        empty = re.match(r"(?:(?![ \t]*\[).*\n)*?([ \t]*config_path[ \t]*=[^\n]*)\n", rest)
        if empty:
            before, after = rest[: empty.start(1)], rest[empty.end() :]
            new = head + before + block_of([line], was=empty[1]) + after
        else:
            new = head + block_of([line]) + rest
    if _config_path(_parse(new.encode())) != CERTS_D:
        raise Refused(f'{CONTAINERD}: [plugins."{plugin}".registry] is written in a way of its own')
    return new.encode()


def trusting(server: str, ca_file: str) -> str:
    """A ``hosts.toml`` with a CA for the registry itself.

    containerd 1.6 takes no file without a host, so the registry is its own. It is asked with the
    CA by either name.
    """
    return (
        f'server = "https://{server}"\nca = "{ca_file}"\n\n[host."https://{server}"]\n'
        f'  capabilities = ["pull", "resolve", "push"]\n  ca = "{ca_file}"\n'
    )


def registries_conf(hosts: Sequence[str], mirror: str) -> str:
    """A file for ``registries.conf.d`` with a mirror of each of *hosts*."""
    url = urlsplit(mirror)
    # A mirror has no host with a colon in its paths: it takes HOST_PORT.
    return _NOTE + "".join(
        f'\n[[registry]]\nlocation = "{host}"\n\n[[registry.mirror]]\n'
        f'location = "{url.netloc}/{host.replace(":", "_")}"\n'
        + ("insecure = true\n" if url.scheme == "http" else "")
        for host in hosts
    )


def _plugin(table: dict[str, Any]) -> str:
    return _PLUGINS.get(table.get("version", 1 if table else 2), _PLUGIN)


def _config_path(table: dict[str, Any], plugin: str = "") -> str:
    registry = table.get("plugins", {}).get(plugin or _plugin(table), {}).get("registry", {})
    path: str = registry.get("config_path", "")
    return path


def _parse(content: bytes | None, name: str = CONTAINERD) -> dict[str, Any]:
    try:
        return tomllib.loads((content or b"").decode())
    except ValueError as error:
        raise Refused(f"{name} is not TOML: {error}") from None
