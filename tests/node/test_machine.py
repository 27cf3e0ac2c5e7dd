"""Files below a mount point, and programs by a command."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from regproxy.node import machine as machine_module
from regproxy.node.errors import CommandFailed
from regproxy.node.machine import Machine, Stat, runner


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        (self.root / "etc").mkdir(parents=True)
        self.machine = Machine(self.root, runner([]))
        self.stat = self.machine.stat("/etc/new")

    def test_links_stay_inside(self) -> None:
        """As the machine follows them, whose root is not ours."""
        (self.root / "run").mkdir()
        (self.root / "run/file").write_text("here")
        for name, target in (
            ("absolute", "/run/file"),
            ("relative", "../run/file"),
            ("above", "../../../../run/file"),
            ("chain", "absolute"),
        ):
            (self.root / "etc" / name).symlink_to(target)
            self.assertEqual(self.machine.read(f"/etc/{name}"), b"here")
            self.assertEqual(self.machine.link(f"/etc/{name}"), "/run/file")
        (self.root / "etc/up").symlink_to("/..")
        self.assertEqual(self.machine.path("/etc/up/run/file"), self.root / "run/file")
        self.assertIsNone(self.machine.link("/run/file"))
        self.assertIsNone(self.machine.link("/etc/nothing"))

    def test_circle(self) -> None:
        (self.root / "etc/a").symlink_to("b")
        (self.root / "etc/b").symlink_to("a")
        error = self.assertRaises(OSError, self.machine.read, "/etc/a")
        self.assertEqual(error.errno, errno.ELOOP)

    def test_write(self) -> None:
        """A file keeps its mode; a link stays one; nothing else is left there."""
        (self.root / "etc/real").write_text("old")
        (self.root / "etc/link").symlink_to("real")
        self.machine.write("/etc/link", b"new", Stat(0o640, self.stat.uid, self.stat.gid))
        self.assertEqual((self.root / "etc/real").read_text(), "new")
        self.assertEqual(self.machine.stat("/etc/real").mode, 0o640)
        self.assertEqual(sorted(os.listdir(self.root / "etc")), ["link", "real"])

    def test_label(self) -> None:
        """A file keeps what SELinux knows of it, on a file system that has such."""
        (self.root / "etc/file").write_text("old")
        found: dict[str, bytes] = {}
        self.patch(os, "listxattr", lambda _: ["security.selinux"])
        self.patch(os, "getxattr", lambda path, _: path.read_bytes() + b"'s label")
        self.patch(os, "setxattr", lambda _, name, value: found.update({name: value}))
        self.machine.write("/etc/file", b"new", self.stat)
        self.assertEqual(found, {"security.selinux": b"old's label"})

        def without(_: object) -> list[str]:
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

        self.patch(os, "listxattr", without)
        self.machine.write("/etc/file", b"newer", self.stat)
        self.assertEqual(self.machine.read("/etc/file"), b"newer")

    def test_write_that_is_killed(self) -> None:
        """The old content is there, and what is left of the new one goes with the next write."""

        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        (self.root / "etc/file").write_text("old")
        unlink = Path.unlink
        self.patch(os, "replace", killed)
        # A killed process tidies nothing up.
        self.patch(Path, "unlink", lambda *_, **__: None)
        self.assertRaises(KeyboardInterrupt, self.machine.write, "/etc/file", b"new", self.stat)
        self.assertEqual(self.machine.read("/etc/file"), b"old")
        self.assertEqual(len(os.listdir(self.root / "etc")), 2)
        self.patch(Path, "unlink", unlink)
        self.machine.remove("/etc/file")
        self.assertEqual(os.listdir(self.root / "etc"), [])

    def test_mounted_file(self) -> None:
        """It cannot be replaced, so it is written into."""

        def busy(source: object, target: object) -> None:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

        (self.root / "etc/resolv.conf").write_text("old")
        self.patch(os, "replace", busy)
        self.machine.write("/etc/resolv.conf", b"new", self.stat)
        self.assertEqual(self.machine.read("/etc/resolv.conf"), b"new")
        self.assertEqual(os.listdir(self.root / "etc"), ["resolv.conf"])

    def test_directories(self) -> None:
        missing = ["/etc/a", "/etc/a/b"]
        self.assertEqual(self.machine.missing_directories("/etc/a/b"), missing)
        self.machine.make_directories("/etc/a/b")
        self.assertEqual(self.machine.missing_directories("/etc/a/b"), [])
        self.assertFalse(self.machine.remove_directory("/etc/a"))
        for directory in reversed(missing):
            self.assertTrue(self.machine.remove_directory(directory))
        self.assertTrue(self.machine.remove_directory("/etc/a"))

    def test_names(self) -> None:
        (self.root / "etc/b").touch()
        (self.root / "etc/a").touch()
        self.assertEqual(self.machine.names("/etc"), ["a", "b"])
        self.assertEqual(self.machine.names("/none"), [])
        self.assertIsNone(self.machine.read("/etc/none"))


class CommandTests(SynchronousTestCase):
    def test_run(self) -> None:
        machine = Machine(Path("/"), runner([sys.executable, "-c"]))
        machine.run("print('well')")
        error = self.assertRaises(CommandFailed, machine.run, "print('ill'); exit(3)")
        self.assertIn("ended with 3: ill", str(error))
        self.assertTrue(machine.succeeds("pass"))
        self.assertFalse(machine.succeeds("exit(1)"))

    def test_missing(self) -> None:
        machine = Machine(Path("/"), runner(["/no/such/program"]))
        self.assertRaises(CommandFailed, machine.run, "x")

    def test_endless(self) -> None:
        self.patch(machine_module, "COMMAND_TIMEOUT", 0.2)
        machine = Machine(Path("/"), runner([sys.executable, "-c"]))
        self.assertRaises(CommandFailed, machine.run, "import time; time.sleep(60)")
