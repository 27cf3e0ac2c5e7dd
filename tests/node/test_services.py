"""Daemons under systemd and OpenRC."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from regproxy.node.errors import CommandFailed
from regproxy.node.services import Services
from tests.support import trees


class ServiceTests(SynchronousTestCase):
    def test_systemd(self) -> None:
        fake = trees.debian(Path(self.mktemp()))
        fake.daemon("containerd")
        self.assertTrue(fake.services.systemd)
        self.assertTrue(fake.services.has("containerd"))
        self.assertFalse(fake.services.has("docker"))
        fake.services.restart("containerd")
        fake.services.reload("containerd")
        fake.services.read_units()
        verbs = "restart containerd", "reload containerd", "daemon-reload"
        self.assertEqual(fake.acted(), [f"systemctl {verb}" for verb in verbs])

    def test_units_of_the_administrator(self) -> None:
        fake = trees.debian(Path(self.mktemp()))
        fake.write("/etc/systemd/system/crio.service", "")
        self.assertTrue(fake.services.has("crio"))

    def test_openrc(self) -> None:
        fake = trees.alpine(Path(self.mktemp()))
        fake.daemon("docker")
        self.assertFalse(fake.services.systemd)
        self.assertTrue(fake.services.has("docker"))
        fake.services.restart("docker")
        fake.services.reload("docker")
        fake.services.read_units()
        self.assertEqual(fake.acted(), ["rc-service docker restart", "rc-service docker reload"])

    def test_off(self) -> None:
        """What does not run is not started."""
        fake = trees.debian(Path(self.mktemp()))
        fake.daemon("docker")
        fake.running.clear()
        fake.services.restart("docker")
        fake.services.reload("docker")
        self.assertEqual(fake.acted(), [])

    def test_ends_later(self) -> None:
        """A daemon that ends some seconds after its start has not come back."""
        fake = trees.debian(Path(self.mktemp()))
        fake.daemon("containerd")
        slept: list[float] = []

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            if sum(slept) > 2:
                fake.running.clear()

        services = Services(fake.machine, sleep)
        self.assertRaises(CommandFailed, services.restart, "containerd")
        self.assertLess(sum(slept), 3)
