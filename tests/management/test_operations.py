"""Tests for :mod:`regproxy.management.operations`."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from regproxy.management.encoding import Malformed, from_texts
from regproxy.management.operations import SAFE, Nothing, Operation, Paged
from regproxy.management.paging import DEFAULT_LIMIT, MAX_LIMIT


async def unused(parameters: object, body: object) -> Any:
    raise NotImplementedError


class OperationTests(SynchronousTestCase):
    def test_in_path(self) -> None:
        for path, expected in (
            ("/jobs", set()),
            ("/jobs/{id}", {"id"}),
            ("/a/{b}/c/{d}", {"b", "d"}),
        ):
            operation: Operation[Nothing, None, None] = Operation(
                name="x",
                method="GET",
                path=path,
                summary="",
                handler=unused,
                parameters=Nothing,
                answer=None,
            )
            self.assertEqual(operation.in_path, expected)

    def test_paged(self) -> None:
        self.assertEqual(from_texts({}, Paged), Paged(DEFAULT_LIMIT, None))
        for limit in (0, MAX_LIMIT + 1):
            self.assertRaises(Malformed, from_texts, {"limit": str(limit)}, Paged)

    def test_safe(self) -> None:
        self.assertNotIn("POST", SAFE)
        self.assertIn("HEAD", SAFE)
