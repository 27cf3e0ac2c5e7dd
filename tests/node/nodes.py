"""Machines to be configured, and with what."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import define, field
from twisted.trial.unittest import SynchronousTestCase

from regproxy.node.node import Alone, Node
from regproxy.node.settings import Mode, Settings
from tests.support import trees
from tests.support.trees import FakeMachine

CA = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
PROXY = Settings(
    Mode.PROXY,
    proxy="http://10.0.0.5:3128",
    no_proxy="localhost,10.0.0.0/8",
    hosts=("docker.io", "ghcr.io", "registry.example.com:5000"),
    ca=CA,
)
MIRROR = Settings(
    Mode.MIRROR,
    mirror="http://10.0.0.5:5000",
    hosts=("docker.io", "ghcr.io", "registry.example.com:5000", "_default"),
)
DNS = Settings(Mode.DNS, servers=("10.0.0.5",), hosts=("docker.io", "ghcr.io"), ca=CA)
UNDO = Settings(Mode.UNDO)
CONTAINERD_1 = """\
version = 2

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.k8s.io/pause:3.9"

  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = ""

    [plugins."io.containerd.grpc.v1.cri".registry.headers]
"""
CONTAINERD_2 = """\
version = 3
[plugins.'io.containerd.cri.v1.images']
  snapshotter = 'overlayfs'
"""


def with_containerd(machine: FakeMachine, config: str | None) -> FakeMachine:
    machine.daemon("containerd")
    if config is not None:
        machine.write("/etc/containerd/config.toml", config)
    return machine


def with_docker(machine: FakeMachine) -> FakeMachine:
    machine.daemon("docker")
    machine.daemon("containerd")
    # As Docker's package has it.
    machine.write("/etc/containerd/config.toml", 'disabled_plugins = ["cri"]\n')
    machine.write("/etc/docker/daemon.json", '{"log-driver":   "json-file"}', 0o600)
    return machine


def with_crio(machine: FakeMachine) -> FakeMachine:
    machine.daemon("crio")
    machine.write("/etc/containers/registries.conf", 'unqualified-search-registries = ["q.io"]\n')
    return machine


def with_hosts(machine: FakeMachine) -> FakeMachine:
    """Somebody has configured a registry already."""
    machine.write("/etc/containerd/certs.d/ghcr.io/hosts.toml", 'server = "https://mine"\n')
    return machine


def with_resolved(machine: FakeMachine) -> FakeMachine:
    trees.resolved(machine)
    return machine


MACHINES: dict[str, Callable[[Path], FakeMachine]] = {
    "debian with containerd 1": lambda root: with_containerd(trees.debian(root), CONTAINERD_1),
    "debian with containerd 2": lambda root: with_containerd(
        with_resolved(trees.debian(root)), CONTAINERD_2
    ),
    "debian with containerd without a file": lambda root: with_containerd(trees.debian(root), None),
    "debian with docker": lambda root: with_docker(trees.debian(root)),
    "rhel with containerd 1": lambda root: with_hosts(
        with_containerd(trees.rhel(root), CONTAINERD_1)
    ),
    "rhel with crio": lambda root: with_crio(trees.rhel(root)),
    "alpine with containerd 2": lambda root: with_containerd(trees.alpine(root), CONTAINERD_2),
    "alpine with docker": lambda root: with_docker(trees.alpine(root)),
}


@define
class Turns:
    """A cluster that writes down what it is asked."""

    log: list[str] = field(factory=list)

    @contextmanager
    def turn(self) -> Iterator[None]:
        self.log.append("turn")
        try:
            yield
        finally:
            self.log.append("end")

    def label(self, value: str | None) -> None:
        self.log.append(f"label {value}")


class Killed(BaseException):
    """The process ends here."""


def node_on(fake: FakeMachine, turns: Turns | None = None) -> Node:
    return Node(
        fake.machine, fake.services, turns or Alone(), reach=lambda _: None, log=lambda _: None
    )


class MachineTestCase(SynchronousTestCase):
    maxDiff = None

    def new(self, kind: str) -> FakeMachine:
        return MACHINES[kind](Path(self.mktemp()))
