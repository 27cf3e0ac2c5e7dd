"""Tests of regproxy.config.wayout."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from regproxy.config.wayout import DEFAULT_UPSTREAM, DIRECT, ParentProxy


class ParentProxyTests(SynchronousTestCase):
    """ParentProxy"""

    def test_password_is_not_shown(self) -> None:
        """A repr may reach a log."""
        self.assertNotIn("geheim", repr(ParentProxy("http://a:1", "team", "geheim")))

    def test_default(self) -> None:
        """Nothing goes through a parent that nobody named."""
        self.assertEqual(DEFAULT_UPSTREAM.proxy, DIRECT)
