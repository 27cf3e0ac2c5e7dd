"""Tests of regproxy.cli.output."""

from __future__ import annotations

import io
import json
import sys
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.cli.output import (
    Output,
    ago_text,
    facts,
    ratio_text,
    size_text,
    span_text,
    styled,
    table,
)
from tests.support.screen import lines_of

NOW = datetime(2026, 11, 24, tzinfo=UTC)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class OutputTests(SynchronousTestCase):
    """Output"""

    def test_form(self) -> None:
        """Text at a terminal, JSON elsewhere, and what was asked for anywhere."""
        for stream, is_json in ((Terminal(), False), (io.StringIO(), True)):
            self.patch(sys, "stdout", stream)
            self.assertEqual(Output().json, is_json)
            self.assertTrue(Output(True).json)
            self.assertFalse(Output(False).json)

    def test_colours(self) -> None:
        """There are none where nobody looks."""
        out = io.StringIO()
        self.patch(sys, "stdout", out)
        Output(False).console.print(styled("text", "red"))
        self.assertEqual(out.getvalue(), "text\n")

    def test_json(self) -> None:
        out, err = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", out)
        self.patch(sys, "stderr", err)
        output = Output()
        output.lines({"a": each} for each in (1, 2))
        output.value({"b": "ü"})
        output.remark("re\x1bmark")
        first, second, rest = out.getvalue().split("\n", 2)
        self.assertEqual([json.loads(first), json.loads(second)], [{"a": 1}, {"a": 2}])
        self.assertEqual(json.loads(rest), {"b": "ü"})
        self.assertEqual(err.getvalue(), "re�mark\n")


class TextTests(SynchronousTestCase):
    """Texts for people."""

    def test_sizes(self) -> None:
        for size, text in (
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1 << 30, "1.0 GiB"),
            (3 << 59, "1536.0 PiB"),
        ):
            self.assertEqual(size_text(size), text)

    @given(st.integers(0, 1 << 60))
    def test_size_is_about_right(self, size: int) -> None:
        number, unit = size_text(size).split(" ")
        units = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
        about = float(number) * 1024 ** units.index(unit)
        self.assertLessEqual(abs(about - size), size * 0.05)

    def test_spans(self) -> None:
        for seconds, text in (
            (0.9, "0 seconds"),
            (1, "1 second"),
            (119, "1 minute"),
            (7200, "2 hours"),
            (400 * 86400, "400 days"),
        ):
            self.assertEqual(span_text(timedelta(seconds=seconds)), text)

    def test_ago(self) -> None:
        self.assertEqual(ago_text(NOW - timedelta(minutes=3), NOW), "3 minutes ago")
        self.assertEqual(ago_text(NOW + timedelta(minutes=3), NOW), "0 seconds ago")

    def test_ratio(self) -> None:
        self.assertEqual(ratio_text(1, 3), "33.3%")
        self.assertEqual(ratio_text(0, 0), "-")


class TableTests(SynchronousTestCase):
    """table, facts, styled"""

    def test_columns(self) -> None:
        made = table("Name", "Size", right=("Size",))
        made.add_row(styled("[bold]a[/]"), "5")
        self.assertEqual(lines_of(made), ["Name        Size", "[bold]a[/]     5"])

    def test_facts(self) -> None:
        self.assertEqual(lines_of(facts(("A", "1"), ("Bcd", "2"))), ["A    1", "Bcd  2"])
