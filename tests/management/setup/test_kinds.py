"""Tests for :mod:`regproxy.management.setup.kinds`."""

from __future__ import annotations

from importlib.resources import files

from twisted.trial.unittest import SynchronousTestCase

from regproxy.management.setup.kinds import IN_CLOUDS, KINDS, Mode


class KindTests(SynchronousTestCase):
    """The table."""

    def test_names(self) -> None:
        """Those that people are told of."""
        expected = "docker containerd podman crio k3s kind buildkit ca-only systemd"
        self.assertEqual(list(KINDS), expected.split())

    def test_templates(self) -> None:
        """Each has one."""
        directory = files("regproxy.management").joinpath("templates", "setup")
        for kind in KINDS.values():
            self.assertTrue(directory.joinpath(f"{kind.template}.sh").is_file(), kind.name)

    def test_notes(self) -> None:
        """Scripts that note what they do under one name are of one template, or of a node's."""
        for one in KINDS.values():
            for other in KINDS.values():
                if one.record == other.record and "kind" not in (one.name, other.name):
                    self.assertEqual(one.template, other.template)

    def test_clouds(self) -> None:
        """What user-data is for can have both ways."""
        for name in IN_CLOUDS:
            self.assertLessEqual({Mode.PROXY, Mode.DNS}, set(KINDS[name].modes))
