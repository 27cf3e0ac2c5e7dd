"""A Debian of its own that systemd has started, with docker, containerd and podman.

The system is made once, by debootstrap, and kept for later runs; each container writes over it
only.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import unittest
from pathlib import Path
from typing import Final

from tests.support.namespaces import Namespace
from tests.support.process import Process, ProcessFailed, Result, environment, run
from tests.support.programs import program

_SUITE: Final = "bookworm"
_PACKAGES: Final = (
    *("ca-certificates", "containerd", "curl", "dbus", "docker.io", "netavark", "podman"),
    *("python3-grpcio", "systemd", "systemd-sysv"),
)
# As other caches of root.
_CACHE: Final = Path("/var/cache/regproxy-e2e")
# Asks containerd as the kubelet does (the CRI's api.proto: a PullImageRequest has an ImageSpec in
# its field 1, which has the reference in its field 1).
_PULL_BY_CRI: Final = """
import sys
import grpc
def field(content):
    return bytes([0x0A, len(content)]) + content
channel = grpc.insecure_channel("unix:///run/containerd/containerd.sock")
grpc.channel_ready_future(channel).result(30)
pull = channel.unary_unary("/runtime.v1.ImageService/PullImage")
print(pull(field(field(sys.argv[1].encode())), timeout=60))
"""
# Seconds. Some hundred packages are fetched and unpacked.
_MAKING: Final = 900.0
# Seconds, on a busy machine.
_STARTING: Final = 120.0
# The storage of images: these do not work on the file system of a container.
_STORES: Final = ("docker", "containerd", "containers")


def tree() -> Path:
    """The system that containers begin with.

    Raises:
        unittest.SkipTest: it cannot be made, as there is no way to Debian's packages.
    """
    name = hashlib.sha256(" ".join((_SUITE, *_PACKAGES)).encode()).hexdigest()[:12]
    made = _CACHE / name
    if not made.exists():
        _CACHE.mkdir(parents=True, exist_ok=True)
        being_made = _CACHE / f"{name}.{os.getpid()}"
        packages = ",".join(_PACKAGES)
        arguments = ["--variant=minbase", f"--include={packages}", _SUITE, str(being_made)]
        try:
            run(program("debootstrap"), *arguments, env=environment(), timeout=_MAKING).check()
            being_made.rename(made)
        except ProcessFailed as failed:
            raise unittest.SkipTest(f"debootstrap made no Debian: {failed}"[-2000:]) from None
        finally:
            shutil.rmtree(being_made, ignore_errors=True)
    return made


class Debian:
    """A running one, in the network of a namespace. Root only."""

    def __init__(self, directory: Path, namespace: Namespace) -> None:
        lower = tree()
        directory.mkdir(parents=True, exist_ok=True)
        layers = [directory / name for name in ("upper", "work", "root")]
        stores = [directory / name for name in _STORES]
        for path in (*layers, *stores):
            path.mkdir()
        upper, work, root = layers
        mount = f"lowerdir={lower},upperdir={upper},workdir={work}"
        arguments = [
            *namespace.entering(),
            *("sh", "-c", 'mount -t overlay -o "$0" overlay "$1" && shift && exec "$@"'),
            *(mount, str(root), program("systemd-nspawn"), "--quiet", "--boot"),
            *("--register=no", "--keep-unit", f"--directory={root}", "--machine=regproxy-e2e"),
            *("--capability=all", "--system-call-filter=add_key keyctl bpf"),
            *("--resolv-conf=off", "--console=read-only"),
            *(f"--bind={path}:/var/lib/{path.name}" for path in stores),
        ]
        self.process = Process("debian", arguments, log=directory / "debian.log", env=environment())
        try:
            self.process.wait_until(self._has_begun, _STARTING)
            # It waits until all has started, or has not.
            self.run("systemctl is-system-running --wait")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Have it gone. The network namespace and the files are its maker's."""
        # With the first process of a namespace the kernel ends all others (pid_namespaces(7)).
        # To kill who has made it would leave them to this machine.
        if (leader := self._leader()) is not None:
            os.kill(leader, signal.SIGKILL)
        self.process.stop()

    def run(self, script: str) -> Result:
        """Run a script there, as root, with a terminal's environment."""
        leader = self._leader()
        assert leader is not None
        enter = [program("nsenter"), f"--target={leader}", "--all", "--root", "--wd=/"]
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return run(
            *enter, "/bin/sh", "-c", script, env={"PATH": path, "HOME": "/root"}, timeout=_STARTING
        )

    def pull_by_cri(self, reference: str) -> Result:
        """Have containerd pull, as the kubelet of a Kubernetes node has; of at most 125 letters."""
        return self.run(f"python3 - {reference} <<'END'\n{_PULL_BY_CRI}END")

    def _has_begun(self) -> bool:
        return (
            self._leader() is not None and self.run("systemctl show --property=Version").code == 0
        )

    def _leader(self) -> int | None:
        """Its first process, as this machine counts."""
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                text = status.read_text()
            except (FileNotFoundError, ProcessLookupError):
                # It has ended meanwhile.
                continue
            parent = re.search(r"^PPid:\t(\d+)$", text, re.MULTILINE)
            numbers = re.search(r"^NSpid:.*\t1$", text, re.MULTILINE)
            if parent and int(parent[1]) == self.process.pid and numbers:
                return int(status.parent.name)
        return None
