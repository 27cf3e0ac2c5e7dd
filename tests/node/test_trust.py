"""The store of each kind of system."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from regproxy.node.errors import Refused
from regproxy.node.trust import store, update
from tests.support import trees
from tests.support.trees import BUNDLE, FakeMachine


class StoreTests(SynchronousTestCase):
    def test_families(self) -> None:
        for make, directory in (
            (trees.debian, "/usr/local/share/ca-certificates"),
            (trees.alpine, "/usr/local/share/ca-certificates"),
            (trees.rhel, "/etc/pki/ca-trust/source/anchors"),
        ):
            with self.subTest(machine=make.__name__):
                found = store(make(Path(self.mktemp())).machine)
                self.assertEqual(found.file, f"{directory}/regproxy.crt")

    def test_suse_and_arch(self) -> None:
        for directory, program in (
            ("/etc/pki/trust/anchors", "update-ca-certificates"),
            ("/etc/ca-certificates/trust-source/anchors", "update-ca-trust"),
        ):
            fake = FakeMachine(Path(self.mktemp()))
            (fake.root / directory[1:]).mkdir(parents=True)
            fake.write(f"/usr/sbin/{program}", "", 0o755)
            self.assertEqual(store(fake.machine).directory, directory)

    def test_none(self) -> None:
        """An immutable system."""
        fake = FakeMachine(Path(self.mktemp()))
        (fake.root / "etc/pki/ca-trust/source/anchors").mkdir(parents=True)
        self.assertRaises(Refused, store, fake.machine)

    def test_gone(self) -> None:
        """When the certificate has gone, links to it go as well."""
        fake = trees.debian(Path(self.mktemp()))
        before = fake.snapshot()
        certificate = store(fake.machine).file
        fake.write(certificate, "ours\n")
        update(fake.machine)
        self.assertEqual(fake.read(BUNDLE), "stock\nours\n")
        fake.machine.remove(certificate)
        update(fake.machine)
        self.assertEqual(fake.snapshot(), before)
