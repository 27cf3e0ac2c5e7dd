"""Waiting for what the server does in the background, with bars that show how far it is."""

from __future__ import annotations

from collections.abc import Callable
from time import sleep
from typing import Any, Final

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TransferSpeedColumn,
)
from rich.table import Column

from regproxy.cli.client import Client
from regproxy.cli.errors import CommandFailed, plain
from regproxy.cli.output import Output, size_text
from regproxy.cli.values import DONE, RUNNING, Job, JobImage, read

#: Seconds between looks at a job.
INTERVAL: Final = 0.5


def bars(output: Output, *counts: ProgressColumn) -> Progress:
    """Bars beside the result, at a terminal only; without *counts* they count bytes."""
    return Progress(
        # Without markup: it is a name that somebody else chose.
        TextColumn("{task.description}", markup=False, table_column=Column(ratio=1)),
        BarColumn(bar_width=24),
        *(counts or (DownloadColumn(binary_units=True), TransferSpeedColumn())),
        console=output.remarks,
        disable=not output.remarks.is_terminal,
    )


def follow(
    client: Client, output: Output, job: Any, wait: Callable[[float], object] = sleep
) -> Any:
    """Wait for the end of *job*, which the server has just begun.

    Who interrupts this cancels the job.

    Args:
        job: as the server says it.
        wait: is called with the seconds between two looks.

    Returns:
        The job as the server says it at its end.
    """
    value = read(Job, job)
    by_bytes = value.kind == "warm" or value.unit == "bytes"
    try:
        with bars(output, *(() if by_bytes else (MofNCompleteColumn(),))) as progress:
            display = _Display(progress)
            while True:
                display.show(value)
                if value.state != RUNNING:
                    return job
                wait(INTERVAL)
                job = client.get(f"jobs/{value.id}")
                value = read(Job, job)
    except KeyboardInterrupt:
        client.delete(f"jobs/{value.id}")
        raise


def conclude(output: Output, job: Any) -> None:
    """Print what came of *job*.

    Raises:
        CommandFailed: not all of it was done.
    """
    value = read(Job, job)
    failures = [f"{each.reference}: {each.error}" for each in value.images if each.error]
    failures += value.failures
    if output.json:
        output.value(job)
    else:
        for failure in dict.fromkeys(failures):
            output.remark(failure)
    if value.state != DONE:
        ended = f"{value.kind}: {value.state}"
        raise CommandFailed(f"{ended}: {value.message}" if value.message else ended)
    if failures:
        raise CommandFailed(f"{value.kind}: not all of it was done")
    if not output.json:
        output.text(value.message or f"{value.kind}: {_amount(value)}")


class _Display:
    """A bar for each image of a job; for the job itself where it has none."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def show(self, job: Job) -> None:
        for image in job.images:
            self._update(image.reference, _name(image), image.done, image.total)
        if not job.images:
            self._update("", job.message or job.kind, job.done, job.total)

    def _update(self, key: str, name: str, done: int, total: int | None) -> None:
        if key not in self._tasks:
            self._tasks[key] = self._progress.add_task(plain(name), total=None)
        self._progress.update(
            self._tasks[key], description=plain(name), completed=done, total=total
        )


def _amount(job: Job) -> str:
    return size_text(job.done) if job.unit == "bytes" else f"{job.done:,} items"


def _name(image: JobImage) -> str:
    return f"{image.reference} ({image.state})" if image.state != RUNNING else image.reference
