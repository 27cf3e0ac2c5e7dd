"""Machines made of files: what distributions have on their disks, and programs that act on it."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from regproxy.node.machine import Machine
from regproxy.node.services import Services

#: A file, a link or a directory: its mode and what is in it.
Snapshot = dict[str, tuple[int, bytes | str | None]]

UNITS: Final = "/usr/lib/systemd/system"
BUNDLE: Final = "/etc/ssl/certs/ca-certificates.crt"
EXTRACTED: Final = "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"


def snapshot(root: Path) -> Snapshot:
    """All that is below a directory."""
    found: Snapshot = {}
    for directory, directories, files in os.walk(root):
        for name in directories + files:
            path = Path(directory, name)
            mode = stat.S_IMODE(path.lstat().st_mode)
            content: bytes | str | None = None
            if path.is_symlink():
                content = os.readlink(path)
            elif path.is_file():
                content = path.read_bytes()
            found[str(path.relative_to(root))] = mode, content
    return found


class FakeMachine:
    """A directory that looks like the root of a machine.

    Attributes:
        commands: what was run, a line each.
        broken: daemons that end after the next restart while this is not empty.
        running: daemons that are active.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.commands: list[str] = []
        self.failing: set[str] = set()
        self.broken: set[str] = set()
        self.running: set[str] = set()
        self.machine = Machine(root, self.run)
        self.services = Services(self.machine, sleep=lambda _: None)
        self.write("/proc/sys/kernel/random/boot_id", "first\n")
        for directory in ("/etc", "/run", "/var/lib", "/usr/bin", "/usr/sbin"):
            (root / directory[1:]).mkdir(parents=True, exist_ok=True)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """A file with its directories."""
        target = self.root / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def link(self, path: str, target: str) -> None:
        """A symbolic link; *target* is as the machine sees it."""
        place = self.root / path[1:]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.symlink_to(target)

    def read(self, path: str) -> str:
        """The text of a file."""
        content = self.machine.read(path)
        assert content is not None, path
        return content.decode()

    def daemon(self, name: str) -> None:
        """Have a daemon, running."""
        if self.services.systemd:
            self.write(f"{UNITS}/{name}.service", f"[Service]\nExecStart=/usr/bin/{name}\n")
        else:
            self.write(f"/etc/init.d/{name}", "#!/sbin/openrc-run\n", 0o755)
        self.running.add(name)

    def snapshot(self) -> Snapshot:
        """All that is on the disk."""
        return snapshot(self.root)

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        """Act as the programs of the machine would."""
        line = " ".join(command)
        self.commands.append(line)
        if line in self.failing:
            return 1, f"{line} failed"
        match list(command):
            case ["update-ca-certificates", *options]:
                self._debian_bundle(fresh="--fresh" in options)
            case ["update-ca-trust"]:
                anchors = self._anchors("/etc/pki/ca-trust/source/anchors")
                self.write(EXTRACTED, "stock\n" + anchors)
            case ["systemctl", "--quiet", "is-active", name] | ["rc-service", name, "status"]:
                return (0 if name in self.running else 3), ""
            case ["systemctl", "restart", name] | ["rc-service", name, "restart"]:
                if name in self.broken:
                    self.running.discard(name)
                else:
                    self.running.add(name)
            case (
                ["systemctl", "reload", _]
                | ["rc-service", _, "reload"]
                | ["systemctl", "daemon-reload"]
                | ["resolvconf", "-u"]
            ):
                pass
            case _:
                return 127, f"{line}: not found"
        return 0, ""

    def acted(self) -> list[str]:
        """What was run since the last call, but for questions."""
        done = [line for line in self.commands if "is-active" not in line and "status" not in line]
        self.commands.clear()
        return done

    def _anchors(self, directory: str) -> str:
        return "".join(self.read(f"{directory}/{name}") for name in self.machine.names(directory))

    def _debian_bundle(self, *, fresh: bool) -> None:
        """The links and the bundle; without *fresh*, links stay where certificates have gone."""
        local = "/usr/local/share/ca-certificates"
        certs = self.root / "etc/ssl/certs"
        if fresh:
            for path in certs.iterdir():
                if path.is_symlink():
                    path.unlink()
        for name in self.machine.names(local):
            self.link(f"/etc/ssl/certs/{name.removesuffix('.crt')}.pem", f"{local}/{name}")
        self.write(BUNDLE, "stock\n" + self._anchors(local))


def debian(root: Path) -> FakeMachine:
    """Debian or Ubuntu with systemd; ``resolv.conf`` is nobody's."""
    machine = FakeMachine(root)
    machine.write("/usr/sbin/update-ca-certificates", "", 0o755)
    machine.write(BUNDLE, "stock\n")
    (root / "usr/local/share/ca-certificates").mkdir(parents=True)
    (root / "run/systemd/system").mkdir(parents=True)
    machine.write("/etc/resolv.conf", "search example.net\nnameserver 10.0.0.2\n")
    return machine


def rhel(root: Path) -> FakeMachine:
    """RHEL, Fedora or Amazon Linux; NetworkManager writes ``resolv.conf``."""
    machine = FakeMachine(root)
    machine.write("/usr/bin/update-ca-trust", "", 0o755)
    machine.write("/etc/pki/ca-trust/source/anchors/site.pem", "site\n")
    machine.write(EXTRACTED, "stock\nsite\n")
    (root / "run/systemd/system").mkdir(parents=True)
    machine.daemon("NetworkManager")
    machine.write(
        "/etc/resolv.conf",
        "# Generated by NetworkManager\nsearch a.example.net b.example.net\n"
        "nameserver 10.0.0.2\nnameserver 10.0.0.3\n",
    )
    return machine


def alpine(root: Path) -> FakeMachine:
    """Alpine with OpenRC."""
    machine = FakeMachine(root)
    machine.write("/usr/sbin/update-ca-certificates", "", 0o755)
    machine.write(BUNDLE, "stock\n")
    machine.write("/etc/resolv.conf", "nameserver 10.0.0.2\n")
    return machine


def resolved(machine: FakeMachine) -> None:
    """Have systemd-resolved look up names, as Ubuntu has."""
    machine.daemon("systemd-resolved")
    machine.write("/run/systemd/resolve/stub-resolv.conf", "nameserver 127.0.0.53\n")
    machine.link("/etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf")


def copy(source: FakeMachine, root: Path) -> FakeMachine:
    """The same files once more, the same daemons."""
    shutil.copytree(source.root, root, symlinks=True)
    twin = FakeMachine(root)
    twin.running |= source.running
    return twin
