"""A job that fetches images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from attrs import evolve, frozen
from twisted.internet.defer import CancelledError, DeferredList, ensureDeferred

from regproxy.management.jobs import JobFailed, Progress
from regproxy.management.values import JobImage, JobState
from regproxy.oci.manifests import Platform
from regproxy.oci.references import ImageName
from regproxy.registry.prefetch import Prefetch, Unfetched

#: Images of one job that are fetched at a time, so that the first are there soon.
AT_A_TIME: Final = 4


class Warming:
    """Fetches images.

    Args:
        names: the images, by the texts that name them.
        platforms: see :meth:`~regproxy.registry.prefetch.Prefetch.fetch`.
    """

    def __init__(
        self,
        prefetch: Prefetch,
        names: Mapping[str, ImageName],
        platforms: Sequence[Platform] | None,
    ) -> None:
        self._prefetch = prefetch
        self._names = names
        self._platforms = platforms

    async def run(self, progress: Progress) -> None:
        """Do it.

        Raises:
            JobFailed: some of them are not there.
        """
        for text in self._names:
            progress.images[text] = JobImage(text, JobState.RUNNING)
        progress.total = 0
        rest = iter(self._names.items())
        try:
            results: list[tuple[bool, Any]] = await DeferredList(
                [ensureDeferred(self._fetch(rest, progress)) for _ in range(AT_A_TIME)],
                consumeErrors=True,
            )
            for success, result in results:
                if not success:
                    result.raiseException()
        except CancelledError:
            _conclude(progress, JobState.CANCELLED)
            raise
        failed = [each for each in progress.images.values() if each.error is not None]
        if failed:
            raise JobFailed(f"{len(failed)} of {len(self._names)} images could not be fetched")
        progress.message = f"{len(self._names)} images are here"

    async def _fetch(self, rest: Iterator[tuple[str, ImageName]], progress: Progress) -> None:
        """Fetch one after the other of the *rest*, which others fetch from too."""
        for text, name in rest:
            state, error = JobState.DONE, None
            try:
                await self._prefetch.fetch(name, self._platforms, _Meter(progress, text))
            except Unfetched as unfetched:
                state, error = JobState.FAILED, str(unfetched)
                progress.fail(f"{text}: {error}")
            progress.images[text] = evolve(progress.images[text], state=state, error=error)


@frozen
class _Meter:
    """What is told of one image counts for the job too."""

    progress: Progress
    text: str

    def expect(self, size: int) -> None:
        """See :class:`~regproxy.registry.prefetch.Meter`."""
        image = self.progress.images[self.text]
        self.progress.images[self.text] = evolve(image, total=(image.total or 0) + size)
        self.progress.total = (self.progress.total or 0) + size

    def advance(self, size: int) -> None:
        """See :class:`~regproxy.registry.prefetch.Meter`."""
        image = self.progress.images[self.text]
        self.progress.images[self.text] = evolve(image, done=image.done + size)
        self.progress.done += size


def _conclude(progress: Progress, state: JobState) -> None:
    for text, image in progress.images.items():
        if image.state is JobState.RUNNING:
            progress.images[text] = evolve(image, state=state)
