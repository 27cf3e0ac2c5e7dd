"""Tests for :mod:`regproxy.management.pages.words`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from regproxy.management.pages import words

NOW = datetime(2026, 3, 9, 17, 4, 11, tzinfo=UTC)


class SizeTests(SynchronousTestCase):
    """Bytes."""

    def test_sizes(self) -> None:
        for value, text in (
            (0, "0 B"),
            (999, "999 B"),
            (1000, "0.98 KiB"),
            (1024, "1.00 KiB"),
            (10 * 1024, "10.0 KiB"),
            (100 * 1024, "100 KiB"),
            (1023.9 * 1024, "1.00 MiB"),
            (1.21 * 1024**3, "1.21 GiB"),
            (5 * 1024**6, "5.00 EiB"),
            (None, "\N{EN DASH}"),
        ):
            self.assertEqual(words.size(value), text)

    @given(st.integers(0, 2**63))
    def test_fits_its_column(self, value: int) -> None:
        """Never more than three digits, and never far from the truth."""
        number, unit = words.size(value).split(" ")
        self.assertLessEqual(len(re.sub(r"\D", "", number)), 3)
        factor = 1024 ** ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB").index(unit)
        self.assertLessEqual(abs(float(number) * factor - value), 0.01 * value)

    def test_rates(self) -> None:
        self.assertEqual(words.rate(34.2 * 1024**2), "34.2 MiB/s")
        self.assertEqual(words.rate(None), "\N{EN DASH}")

    def test_ticks(self) -> None:
        """A round rate is not written as if it had been measured."""
        self.assertEqual(words.tick(0), "0 B/s")
        self.assertEqual(words.tick(512 * 1024), "512 KiB/s")
        self.assertEqual(words.tick(2.5 * 1024**2), "2.5 MiB/s")


class NumberTests(SynchronousTestCase):
    """Numbers of things, and parts of a whole."""

    def test_counts(self) -> None:
        self.assertEqual(words.count(1284117), "1,284,117")

    def test_percents(self) -> None:
        for ratio, text in (
            (0, "0%"),
            (0.942, "94.2%"),
            (0.9999, "99.9%"),
            (1, "100%"),
            (None, "\N{EN DASH}"),
        ):
            self.assertEqual(words.percent(ratio), text)


class TimeTests(SynchronousTestCase):
    """Durations and times."""

    def test_spans(self) -> None:
        for seconds, text in (
            (-1, "0 ms"),
            (0.0042, "4 ms"),
            (0.9996, "1.0 s"),
            (3, "3 s"),
            (4.21, "4.2 s"),
            (9.96, "9 s"),
            (59.9, "59 s"),
            (3599, "59 min"),
            (21600, "6 h"),
            (86400 * 1200, "1,200 d"),
            (None, "\N{EN DASH}"),
        ):
            self.assertEqual(words.span(seconds), text)

    def test_ago(self) -> None:
        for seconds, text in (
            (0.9, "now"),
            (-0.9, "now"),
            (3.7, "3 s ago"),
            (125, "2 min ago"),
            (-86400 * 3, "in 3 d"),
        ):
            self.assertEqual(words.ago(NOW - timedelta(seconds=seconds), NOW), text)
        self.assertEqual(words.ago(None, NOW), "never")

    def test_dates(self) -> None:
        self.assertEqual(words.day(NOW), "9 March 2026")
        self.assertEqual(words.moment(NOW), "2026-03-09 17:04:11 UTC")

    def test_days_left(self) -> None:
        """The day of the end is the last; after it there is less than none."""
        self.assertEqual(words.days_left(NOW + timedelta(hours=49), NOW), 2)
        self.assertEqual(words.days_left(NOW + timedelta(hours=1), NOW), 0)
        self.assertEqual(words.days_left(NOW - timedelta(hours=1), NOW), -1)


class TextTests(SynchronousTestCase):
    """Errors for people."""

    def test_sentences(self) -> None:
        self.assertEqual(words.sentence("there is nothing"), "There is nothing.")
        self.assertEqual(words.sentence("It is so."), "It is so.")


class ContentTests(SynchronousTestCase):
    """What is in images."""

    def test_digests(self) -> None:
        self.assertEqual(words.short(f"sha256:{'0123456789abcdef' * 4}"), "0123456789ab")

    def test_registries(self) -> None:
        self.assertEqual(words.known_as("registry-1.docker.io"), "docker.io")
        self.assertEqual(words.known_as("ghcr.io"), "ghcr.io")

    def test_layers(self) -> None:
        for media_type, text in (
            ("application/vnd.oci.image.layer.v1.tar+gzip", "layer, gzip"),
            ("application/vnd.oci.image.layer.v1.tar+zstd", "layer, zstd"),
            ("application/vnd.oci.image.layer.v1.tar", "layer, not compressed"),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "layer, gzip"),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", "layer, gzip"),
            ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "layer, gzip"),
            ("application/vnd.in-toto+json", "application/vnd.in-toto+json"),
        ):
            self.assertEqual(words.layer(media_type), text)

    def test_platforms(self) -> None:
        self.assertEqual(words.platform("linux/arm64/v8"), "linux/arm64/v8")
        self.assertEqual(words.platform("unknown/unknown"), "attestation")
        self.assertEqual(words.platform(None), "no platform")
