"""Tests of regproxy.cli.jobs."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

from rich.console import Console
from twisted.trial.unittest import SynchronousTestCase

from regproxy.cli.client import Client
from regproxy.cli.errors import CommandFailed
from regproxy.cli.jobs import INTERVAL, bars, conclude, follow
from regproxy.cli.output import Output
from regproxy.cli.settings import Settings
from tests.support.management_api import ManagementApi, job, problem


def image(**attributes: Any) -> dict[str, Any]:
    return {
        "reference": "ghcr.io/o/a:1",
        "state": "running",
        "done": 0,
        "total": None,
        "error": None,
    } | attributes


def terminal(output: Output, stream: io.StringIO) -> Output:
    """*output* with its remarks at a terminal, which *stream* keeps."""
    output.remarks = Console(file=stream, force_terminal=True, width=90, color_system=None)
    return output


class FollowTests(SynchronousTestCase):
    """follow"""

    def setUp(self) -> None:
        self.api = ManagementApi().start()
        self.addCleanup(self.api.stop)
        self.client = Client(Settings(self.api.url))
        self.waits: list[float] = []

    def follow(self, started: Any, *later: Any, stream: io.StringIO | None = None) -> Any:
        if later:
            self.api.script("GET", "jobs/j1", *later)
        output = terminal(Output(True), io.StringIO() if stream is None else stream)
        return follow(self.client, output, started, self.waits.append)

    def test_until_its_end(self) -> None:
        """It is looked at again and again while it runs."""
        ended = job("done", done=2, total=2)
        self.assertEqual(self.follow(job(), job(done=1, total=2), ended), ended)
        self.assertEqual(self.waits, [INTERVAL, INTERVAL])

    def test_ended_at_once(self) -> None:
        """Nothing is asked about what is over."""
        self.follow(job("failed"))
        self.assertEqual((self.waits, self.api.asked), ([], []))

    def test_interrupted(self) -> None:
        """Who interrupts it cancels the job."""
        self.api.script("DELETE", "jobs/j1", job("cancelled"))

        def interrupt(_: float) -> None:
            raise KeyboardInterrupt

        output = terminal(Output(True), io.StringIO())
        with self.assertRaises(KeyboardInterrupt):
            follow(self.client, output, job(), interrupt)
        self.assertEqual(self.api.written(), [("DELETE", "jobs/j1")])

    def test_forgotten(self) -> None:
        """After a restart nobody knows of the job."""
        error = self.assertRaises(
            CommandFailed, self.follow, job(), problem(404, "there is no job j1")
        )
        self.assertEqual(error.message, "there is no job j1")

    def test_bars_of_images(self) -> None:
        """Each image has one, with its bytes; names are no markup and no escapes."""
        stream = io.StringIO()
        self.follow(
            job(kind="warm", images=[image(reference="h/[b]\x1b:1"), image()]),
            job(
                "done",
                kind="warm",
                images=[
                    image(reference="h/[b]\x1b:1", state="done", done=1 << 20, total=1 << 20),
                    image(state="failed", error="gone", done=1, total=2),
                ],
            ),
            stream=stream,
        )
        shown = stream.getvalue()
        self.assertIn("h/[b]�:1 (done)", shown)
        self.assertIn("1.0/1.0 MiB", shown)
        self.assertIn("ghcr.io/o/a:1 (failed)", shown)

    def test_bar_of_items(self) -> None:
        stream = io.StringIO()
        self.follow(job(), job("done", done=7, total=7), stream=stream)
        self.assertIn("7/7", stream.getvalue())

    def test_no_bars_without_a_terminal(self) -> None:
        stream = io.StringIO()
        output = Output(True)
        output.remarks = Console(file=stream)
        self.api.script("GET", "jobs/j1", job("done"))
        follow(self.client, output, job(), self.waits.append)
        with bars(output) as progress:
            progress.add_task("x", total=1)
        self.assertEqual(stream.getvalue(), "")


class ConcludeTests(SynchronousTestCase):
    """conclude"""

    def conclude(self, value: Any, *, as_json: bool = False) -> tuple[str, str]:
        """What is printed, and the remarks."""
        out, err = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", out)
        self.patch(sys, "stderr", err)
        try:
            conclude(Output(as_json), value)
        except CommandFailed as error:
            return out.getvalue(), f"{err.getvalue()}{error.message}"
        return out.getvalue(), err.getvalue()

    def test_done(self) -> None:
        self.assertEqual(self.conclude(job("done", done=3)), ("verify: 3 items\n", ""))
        said = self.conclude(job("done", done=2048, unit="bytes"))
        self.assertEqual(said, ("verify: 2.0 KiB\n", ""))
        said = self.conclude(job("done", message="5 [blobs] read"))
        self.assertEqual(said, ("5 [blobs] read\n", ""))

    def test_json(self) -> None:
        """The server's own words, whatever became of it."""
        for state in ("done", "failed"):
            value = job(state, new=1)
            out, _ = self.conclude(value, as_json=True)
            self.assertEqual(json.loads(out), value)

    def test_failed(self) -> None:
        for state in ("failed", "cancelled"):
            out, err = self.conclude(job(state, message="no\nroom"))
            self.assertEqual((out, err), ("", f"verify: {state}: no room"))

    def test_in_part(self) -> None:
        """What failed is named, once."""
        said = "ghcr.io/o/a:1: gone"
        value = job("done", kind="warm", images=[image(error="gone")], failures=[said, "more"])
        out, err = self.conclude(value)
        self.assertEqual(out, "")
        self.assertEqual(err.splitlines(), [said, "more", "warm: not all of it was done"])
