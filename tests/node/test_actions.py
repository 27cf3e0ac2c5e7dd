"""The order of what has to be done."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from regproxy.node.actions import RESOLVCONF, TRUST, UNITS, carry_out, ordered, reload, restart
from tests.support import trees


class OrderTests(SynchronousTestCase):
    def test_order(self) -> None:
        """Daemons last, each once; who restarts need not reload."""
        actions = [restart("docker"), reload("docker"), reload("crio"), UNITS, RESOLVCONF, TRUST]
        self.assertEqual(
            ordered([*actions, *actions]),
            [TRUST, UNITS, RESOLVCONF, reload("crio"), restart("docker")],
        )

    def test_carry_out(self) -> None:
        fake = trees.debian(Path(self.mktemp()))
        fake.daemon("docker")
        for action in (TRUST, UNITS, RESOLVCONF, restart("docker"), reload("docker")):
            carry_out(action, fake.machine, fake.services)
        self.assertEqual(
            fake.acted(),
            [
                # No certificate of ours is there, so links to one may be.
                "update-ca-certificates --fresh",
                "systemctl daemon-reload",
                "resolvconf -u",
                "systemctl restart docker",
                "systemctl reload docker",
            ],
        )

    def test_unknown(self) -> None:
        """As in the journal of another version."""
        fake = trees.debian(Path(self.mktemp()))
        self.assertRaises(ValueError, carry_out, "reboot", fake.machine, fake.services)
