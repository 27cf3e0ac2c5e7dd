"""Tests of regproxy.cli.main."""

from __future__ import annotations

import sys
from io import StringIO
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from regproxy import __version__
from regproxy.cli.main import main
from regproxy.config.load import loads


class MainTests(SynchronousTestCase):
    """main"""

    def setUp(self) -> None:
        """Catch what is printed."""
        self.out, self.err = StringIO(), StringIO()
        self.patch(sys, "stdout", self.out)
        self.patch(sys, "stderr", self.err)

    def test_version(self) -> None:
        """--version prints it."""
        stop = self.assertRaises(SystemExit, main, ["--version"])
        self.assertEqual(stop.code, 0)
        self.assertEqual(self.out.getvalue(), f"regproxy {__version__}\n")

    def test_usage(self) -> None:
        """No command, an unknown one, and no file are usage errors."""
        for arguments in ([], ["x"], ["check-config"]):
            stop = self.assertRaises(SystemExit, main, arguments)
            self.assertEqual(stop.code, 2)
            self.assertIn("usage: regproxy", self.err.getvalue())

    def test_good_file(self) -> None:
        """The effective configuration is printed, and is one."""
        path = Path(self.mktemp())
        path.write_text("data = '/d'")
        self.assertEqual(main(["check-config", str(path)]), 0)
        self.assertEqual(loads(self.out.getvalue(), "f", data=None).data, Path("/d"))
        self.assertEqual(self.err.getvalue(), "")

    def test_bad_file(self) -> None:
        """Problems go to standard error, a line each."""
        path = Path(self.mktemp())
        path.write_text("a = 1\nb = 2")
        self.assertEqual(main(["check-config", str(path)]), 1)
        self.assertEqual(self.out.getvalue(), "")
        lines = self.err.getvalue().splitlines()
        self.assertEqual(
            [line.split(": ")[:2] for line in lines], [[str(path), "a"], [str(path), "b"]]
        )
