"""Small trees that a script takes for machines of one family or another.

Their programs are busybox, and in the place of what starts services and keeps trusted
certificates small scripts that write down what they were asked for.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from attrs import frozen

from tests.support.process import Result, environment
from tests.support.programs import program

#: Both are POSIX shells, and neither is more.
SHELLS: Final = ("busybox", "dash")

_LOG: Final = "log"
# Where programs keep what is nobody's business.
_FLEETING: Final = ("log", "tmp", "dev", "run", "services")

_LOGGED: Final = f'#!/bin/sh\necho "${{0##*/}} $*" >>/{_LOG}\n'
# As they gather what is in the directory of the family.
_GATHER: Final = "mkdir -p /etc/ssl/certs\ncat {anchors}/* >/etc/ssl/certs/bundle 2>/dev/null\n:\n"
_SYSTEMCTL: Final = r"""
for unit; do :; done
case $1 in
    is-active) cat "/services/$unit" 2>/dev/null || { echo inactive; exit 3; } ;;
    show) cat "/etc/systemd/system/$unit.d/"*.conf | grep ^Environment ;;
esac
"""
_RC_SERVICE: Final = r'[ "$2" != status ] || [ -e "/services/$1.service" ]' + "\n"
# Curl's answer is the status; of a file it is the content.
_CURL: Final = r"""
for url; do :; done
case $url in
    */ca.crt) cat /services/ca.crt ;;
    *) [ ! -e /services/unreachable ] || { echo 'curl: unreachable' >&2; exit 7; }
       printf 401 ;;
esac
"""


@frozen
class Family:
    """A family of distributions.

    Attributes:
        anchors: where its administrators put certificates.
        update: the command that has them trusted.
        init: what starts its services: systemd, openrc or none.
    """

    name: str
    anchors: str
    update: str
    init: str


DEBIAN: Final = Family(
    "debian", "/usr/local/share/ca-certificates", "update-ca-certificates", "systemd"
)
RHEL: Final = Family("rhel", "/etc/pki/ca-trust/source/anchors", "update-ca-trust", "systemd")
SUSE: Final = Family("suse", "/etc/pki/trust/anchors", "update-ca-certificates", "systemd")
ALPINE: Final = Family(
    "alpine", "/usr/local/share/ca-certificates", "update-ca-certificates", "openrc"
)
ARCH: Final = Family(
    "arch", "/etc/ca-certificates/trust-source/anchors", "update-ca-trust", "systemd"
)
#: Debian in a container.
BARE: Final = Family("bare", "/usr/local/share/ca-certificates", "update-ca-certificates", "none")
FAMILIES: Final = (DEBIAN, RHEL, SUSE, ALPINE, BARE)


class Machine:
    """A tree of its own. Root only."""

    def __init__(self, root: Path, family: Family, running: Iterable[str] = ()) -> None:
        """Make it; the services *running* do."""
        self.root = root
        self.family = family
        for name in ("bin", "dev", "etc", "services", "tmp", "usr/bin", "var/lib"):
            (root / name).mkdir(parents=True)
        os.mknod(root / "dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        for name in (*SHELLS, "flock"):
            self._bring(program(name))
        subprocess.run(
            [program("chroot"), root, "/bin/busybox", "--install", "-s", "/bin"], check=True
        )
        # Of these only what a family has.
        for name in ("wget", "systemctl", "rc-service"):
            (root / "bin" / name).unlink(missing_ok=True)
        self.mkdir(family.anchors)
        self.command(family.update, _GATHER.format(anchors=family.anchors))
        (root / "etc/ssl/certs").mkdir(parents=True)
        (root / "etc/ssl/certs/bundle").touch()
        self.command("curl", _CURL)
        if family.init == "systemd":
            self.command("systemctl", _SYSTEMCTL)
            self.mkdir("/run/systemd/system")
        elif family.init == "openrc":
            self.command("rc-service", _RC_SERVICE)
            self.mkdir("/run/openrc")
            self.mkdir("/etc/conf.d")
        for unit in running:
            self.write(f"/services/{unit}", "active\n")

    def _bring(self, file: str) -> None:
        """Put a program there, and the libraries that it wants."""
        shutil.copy(file, self.root / "bin")
        listed = subprocess.run(["ldd", file], capture_output=True, text=True, check=False).stdout
        for library in re.findall(r"(/\S+) \(0x", listed):
            self.mkdir(str(Path(library).parent))
            shutil.copy(library, self.root / library[1:])

    def mkdir(self, name: str) -> None:
        """Make a directory, and those above."""
        (self.root / name.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def command(self, name: str, script: str) -> None:
        """Have a command that is logged, and then does as *script* says."""
        file = self.root / "usr/bin" / name
        file.write_text(_LOGGED + script)
        file.chmod(0o755)

    def write(self, name: str, text: str) -> None:
        """Write a file."""
        self.mkdir(str(Path(name).parent))
        (self.root / name.lstrip("/")).write_text(text)

    def read(self, name: str) -> str:
        """Read a file."""
        return (self.root / name.lstrip("/")).read_text()

    def run(self, script: str, *arguments: str, shell: str = "busybox") -> Result:
        """Run a script as root does it, from its input."""
        command = {"busybox": ["/bin/busybox", "sh"], "dash": ["/bin/dash"]}[shell]
        done = subprocess.run(
            [program("chroot"), self.root, *command, "-s", *arguments],
            input=script.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(PATH="/usr/bin:/bin"),
            timeout=60,
            check=False,
        )
        return Result(" ".join(command), done.returncode, done.stdout.decode())

    def log(self) -> list[str]:
        """What commands were asked for, since the last look."""
        file = self.root / _LOG
        lines = file.read_text().splitlines() if file.exists() else []
        file.write_text("")
        return lines

    def restarted(self) -> list[str]:
        """The services that were, since the last look, by their names in systemd."""
        names = []
        for line in self.log():
            match line.split():
                case ["systemctl", "restart", unit]:
                    names.append(unit)
                case ["rc-service", service, "restart"]:
                    names.append(f"{service}.service")
        return names

    def snapshot(self) -> Mapping[str, tuple[int, int, bytes]]:
        """All that lasts: by name the mode, the owner, and the content or target."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            if name.partition("/")[0] in _FLEETING or name.startswith("bin/"):
                continue
            status = path.lstat()
            content = b""
            if stat.S_ISREG(status.st_mode):
                content = path.read_bytes()
            elif stat.S_ISLNK(status.st_mode):
                content = str(path.readlink()).encode()
            found[f"/{name}"] = (status.st_mode, status.st_uid, content)
        return found
