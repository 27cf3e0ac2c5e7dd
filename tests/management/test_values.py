"""Tests for :mod:`regproxy.management.values`."""

from __future__ import annotations

from attrs import fields
from twisted.trial.unittest import SynchronousTestCase

from regproxy.management.values import RequestValue
from regproxy.web.access_log import AccessRecord


class RequestValueTests(SynchronousTestCase):
    """RequestValue"""

    def test_all_of_the_record(self) -> None:
        """It has all that the access log has, and the number."""
        names = {each.name for each in fields(RequestValue)}
        self.assertEqual(names, {each.name for each in fields(AccessRecord)} | {"id"})
