"""The machine, seen from a container: its files below a mount point, its programs by a command."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from attrs import frozen

from regproxy.node.errors import CommandFailed

# Seconds. The restart of a daemon that stops slowly: systemd itself waits 90 s.
COMMAND_TIMEOUT: Final = 100.0
_PROGRAMS: Final = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_MAX_LINKS: Final = 40

#: Runs a command line on the machine and returns exit code and output.
Run = Callable[[Sequence[str]], tuple[int, str]]


def runner(enter: Sequence[str]) -> Run:
    """What runs commands: *enter* is the beginning of each command line."""

    def run(command: Sequence[str]) -> tuple[int, str]:
        try:
            done = subprocess.run(
                [*enter, *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=COMMAND_TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CommandFailed(f"{' '.join(command)}: {error}") from None
        return done.returncode, done.stdout.decode("utf-8", "replace").strip()

    return run


def _new(target: Path) -> Path:
    """Where a file is written before it is moved: always the same place, so that none is left."""
    return target.with_name(f".{target.name}.regproxy")


def _copy_attributes(source: Path, target: int) -> None:
    """Extended attributes, such as SELinux's label: a new file would get the directory's."""
    try:
        names = os.listxattr(source)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTSUP):
            raise
        return
    for name in names:
        os.setxattr(target, name, os.getxattr(source, name))


def _keep_entries(directory: Path) -> None:
    """Have the names in a directory on the disk before anything else is: a loss of power must not
    keep a file and lose what the journal, on another file system perhaps, says of it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@frozen
class Stat:
    """Who owns a file, and who may read it."""

    mode: int
    uid: int
    gid: int


@frozen
class Machine:
    """A machine.

    Attributes:
        root: where its root directory is mounted. All other paths are as the machine has them.
    """

    root: Path
    run_command: Run

    def path(self, inside: str) -> Path:
        """Where *inside* leads to. Links are followed as the machine would follow them.

        Raises:
            OSError: they lead in a circle.
        """
        at = self.root
        parts = list(reversed(PurePosixPath(inside).parts))
        links = 0
        while parts:
            part = parts.pop()
            if part == "/":
                at = self.root
            elif part == "..":
                at = at if at == self.root else at.parent
            elif (at / part).is_symlink():
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), inside)
                parts += reversed(PurePosixPath(os.readlink(at / part)).parts)
            else:
                at /= part
        return at

    def link(self, inside: str) -> str | None:
        """What a symbolic link at *inside* leads to, as the machine sees it; None for no link."""
        directory, name = os.path.split(inside)
        if not (self.path(directory) / name).is_symlink():
            return None
        return "/" + str(self.path(inside).relative_to(self.root))

    def exists(self, inside: str) -> bool:
        """Whether there is a file or directory."""
        return self.path(inside).exists()

    def read(self, inside: str) -> bytes | None:
        """The content of a file; None if there is none."""
        try:
            return self.path(inside).read_bytes()
        except FileNotFoundError:
            return None

    def names(self, inside: str) -> list[str]:
        """The files of a directory, sorted; none if there is no directory."""
        try:
            return sorted(os.listdir(self.path(inside)))
        except FileNotFoundError:
            return []

    def stat(self, inside: str) -> Stat:
        """Of a file, or of one yet to be made: that has the owner of the root directory."""
        try:
            found = self.path(inside).stat()
        except FileNotFoundError:
            owner = self.root.stat()
            return Stat(0o644, owner.st_uid, owner.st_gid)
        return Stat(found.st_mode & 0o7777, found.st_uid, found.st_gid)

    def missing_directories(self, inside: str) -> list[str]:
        """Of a directory and those above it, the ones that there are not; the topmost first."""
        missing: list[str] = []
        at = PurePosixPath(inside)
        while not self.exists(str(at)):
            missing.insert(0, str(at))
            at = at.parent
        return missing

    def make_directories(self, inside: str) -> None:
        """Make a directory and those above it."""
        for directory in self.missing_directories(inside):
            self.path(directory).mkdir(mode=0o755)

    def write(self, inside: str, content: bytes, stat: Stat) -> None:
        """Replace a file: whoever reads it meets the old content or the new, both whole."""
        target = self.path(inside)
        new = _new(target)
        try:
            with new.open("wb") as file:
                os.fchmod(file.fileno(), stat.mode)
                os.fchown(file.fileno(), stat.uid, stat.gid)
                _copy_attributes(target, file.fileno())
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.replace(new, target)
            except OSError as error:
                # It is a mount itself, as resolv.conf is where nodes are containers.
                if error.errno != errno.EBUSY:
                    raise
                target.write_bytes(content)
            else:
                _keep_entries(target.parent)
        finally:
            new.unlink(missing_ok=True)

    def remove(self, inside: str) -> None:
        """Remove a file, if it is there, and what a write of it has left that was killed."""
        target = self.path(inside)
        for path in target, _new(target):
            path.unlink(missing_ok=True)
        if target.parent.exists():
            _keep_entries(target.parent)

    def remove_directory(self, inside: str) -> bool:
        """Remove a directory if it is empty; returns whether it is gone."""
        try:
            self.path(inside).rmdir()
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            return False
        return True

    def has_program(self, name: str) -> bool:
        """Whether a program of this name is installed."""
        return any(self.exists(f"{directory}/{name}") for directory in _PROGRAMS)

    def run(self, *command: str) -> None:
        """Run a command on the machine.

        Raises:
            CommandFailed: it ended with an error, or took too long.
        """
        code, output = self.run_command(command)
        if code != 0:
            raise CommandFailed(f"{' '.join(command)} ended with {code}: {output[-500:]}")

    def succeeds(self, *command: str) -> bool:
        """Whether a command ends well."""
        return self.run_command(command)[0] == 0
