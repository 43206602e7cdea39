"""A worker's bundle: it waits for the first one, and then follows the directory."""

import asyncio
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from stream.pipelines.batch import Steps
from stream.serving.bundle_swapper import BundleSwapper

WAIT_S = 0.5  # between two looks for the first bundle

T = TypeVar("T")


class BundleObserver(Protocol):
    """The events of a worker that serves a bundle and reads internal topics."""

    def no_bundle(self, reason: str) -> None:
        """The worker waits for a bundle that it can use."""

    def bundle(self, generation: str) -> None:
        """This bundle is in use now."""

    def bundle_problem(self, reason: str | None) -> None:
        """Why the bundle in the directory is not used while the previous one stays in use; None: there is no problem."""

    def skipped(self, topic: str, reason: str) -> None:
        """A record of an internal topic (without the prefix) cannot be used."""


class BundleFollower(Generic[T]):
    """Opens a bundle and looks for a new one every `poll_s` seconds, and tells the observer."""

    def __init__(
        self, swapper: BundleSwapper[T], observer: BundleObserver, poll_s: float, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._swapper, self._observer, self._poll_s, self._clock_s = swapper, observer, poll_s, clock_s
        self._looked_at = float("-inf")

    @property
    def current(self) -> T:
        """What is served now."""
        return self._swapper.current

    @property
    def generation(self) -> str:
        """The generation of the bundle that is served now."""
        return self._swapper.generation

    def open(self) -> None:
        """Return once there is a bundle that can be used, however long that takes. Blocks."""
        while not self._swapper.open():
            self._observer.no_bundle(self._swapper.problem or "")
            time.sleep(WAIT_S)
        self._observer.bundle(self._swapper.generation)

    async def follow(self, _: Steps) -> None:
        """A job: take a new bundle, at most every `poll_s`. It is loaded in a thread."""
        if self._clock_s() - self._looked_at < self._poll_s:
            return
        self._looked_at = self._clock_s()
        if await asyncio.to_thread(self._swapper.look):
            self._observer.bundle(self._swapper.generation)
        self._observer.bundle_problem(self._swapper.problem)
