"""The scripts that there are: for which runtime, in which ways."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from attrs import frozen


class Mode(StrEnum):
    """How the pulls of a runtime come here."""

    PROXY = "proxy"
    HOSTS = "hosts"
    DNS = "dns"


class Cloud(StrEnum):
    """Who hands user-data to a machine."""

    GCP = "gcp"
    ALIYUN = "aliyun"
    AWS = "aws"
    PLAIN = "plain"


@frozen
class Kind:
    """One script.

    Attributes:
        name: the last part of its URL.
        title: what people call the runtime.
        template: the file that it is made from, without its ending.
        record: under which name machines note what it has changed.
        units: the services that have to be restarted, by their names in systemd.
        modes: the first is the default.
        purpose: what it does, where that is not the same as for other runtimes.
    """

    name: str
    title: str
    template: str
    record: str
    units: tuple[str, ...] = ()
    modes: tuple[Mode, ...] = (Mode.PROXY,)
    purpose: str | None = None


KINDS: Final = {
    kind.name: kind
    for kind in (
        Kind(
            "docker",
            "Docker",
            template="docker",
            record="docker",
            units=("docker.service",),
            modes=(Mode.PROXY, Mode.DNS),
        ),
        Kind(
            "containerd",
            "containerd",
            template="containerd",
            record="containerd",
            units=("containerd.service",),
            modes=(Mode.PROXY, Mode.HOSTS, Mode.DNS),
        ),
        Kind("podman", "Podman", template="podman", record="podman", units=("podman.service",)),
        Kind("crio", "CRI-O", template="crio", record="crio", units=("crio.service",)),
        Kind(
            "k3s",
            "k3s",
            template="k3s",
            record="k3s",
            units=("k3s.service", "k3s-agent.service"),
            modes=(Mode.PROXY, Mode.HOSTS),
        ),
        Kind(
            "kind",
            "kind",
            template="kind",
            # In each node it is containerd's.
            record="containerd",
            units=("containerd.service",),
        ),
        Kind(
            "buildkit",
            "BuildKit",
            template="buildkit",
            record="buildkit",
            units=("buildkit.service", "buildkitd.service"),
        ),
        Kind(
            "ca-only",
            "The CA only",
            template="ca-only",
            record="ca-only",
            purpose="has all programs of this machine trust the proxy's CA",
        ),
        # The name that users of docker-registry-proxy know.
        Kind(
            "systemd",
            "Docker under systemd",
            template="docker",
            record="docker",
            units=("docker.service",),
        ),
    )
}

#: The runtimes that user-data is for.
IN_CLOUDS: Final = ("docker", "containerd")
