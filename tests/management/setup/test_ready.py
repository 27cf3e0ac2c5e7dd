"""Tests for :mod:`regproxy.management.setup.ready`."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from regproxy.management.setup import ready

DIRECTORY = Path(__file__).resolve().parents[3] / "deploy/cloud-init"


class ReadyTests(SynchronousTestCase):
    """The files in deploy/."""

    def test_up_to_date(self) -> None:
        """They are what the templates make now: ``make cloud-init`` writes them anew."""
        found = {path.name: path.read_text() for path in DIRECTORY.iterdir()}
        self.assertEqual(found, dict(ready.files()))

    def test_blanks(self) -> None:
        """What is to be filled in is there once, in the lines that the head names."""
        for name, text in ready.files():
            dns = name.startswith("dns-")
            for line in (
                f"      proxy='http://{ready.PROXY.authority}'\n",
                f"      fingerprint='{ready.NOBODY.fingerprint}'\n",
                *([f"      name_server='{ready.NAME_SERVER}'\n"] if dns else []),
            ):
                self.assertEqual(text.count(line), 1, f"{line!r} in {name}")
                key = line.strip().partition("=")[0]
                self.assertIn(f"{key}=", text.partition("write_files")[0])
            self.assertNotIn("BEGIN CERTIFICATE-----\n", text)

    def test_writes(self) -> None:
        directory = Path(self.mktemp())
        ready.main(directory)
        self.assertEqual(
            {path.name: path.read_text() for path in directory.iterdir()}, dict(ready.files())
        )
