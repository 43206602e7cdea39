"""The keeper of codes beside a catalogue worker: who it is, what it may publish with, and what it shows."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError

from infra.clock import wall_ms
from infra.metrics import CatalogueMetrics
from models.bundle import Bundle
from models.codes.drift import Decision, Drift, Policy
from stream.codes.code_manager_thread import Duty, Keeping, Observer, Plan
from stream.codes.codebook_publisher import Pace, Topics, figures
from stream.codes.codebook_registry import Book
from stream.errors import LeadershipLostError
from stream.kafka.producer import Outgoing
from stream.kafka.topics import CODEBOOKS, ITEM_CODES, ITEMS
from stream.pipelines.steps import Steps
from stream.workers.context import Frame


class CodesKeeper:
    """Keeps codes while this worker has partition 0 of the topic of items, so that one of all catalogue workers does."""

    def __init__(self, frame: Frame[CatalogueMetrics], book: Book, bundle: Callable[[], Bundle]) -> None:
        self._frame, self._book, self._bundle = frame, book, bundle
        self._place = (frame.topic(ITEMS), 0)
        self._loop: asyncio.AbstractEventLoop | None = None
        settings = frame.settings
        pace = Pace(measure_s=settings.codes_measure_s, rest_s=settings.codes_rest_s)
        policy = Policy(gain=settings.codes_gain, lost=settings.codes_lost)
        plan = Plan(pace=pace, policy=policy, reservoir=settings.codes_reservoir, automatic=settings.codes_automatic)
        topics = Topics(frame.topic(CODEBOOKS), frame.topic(ITEM_CODES))
        self._keeping = Keeping(
            frame.connection, topics, book, Duty(self._mine, bundle, self._publish, wall_ms), _Observer(frame.metrics), plan
        )

    async def follow(self, _: Steps) -> None:
        """Show the generation in use; the first time also begin, as only now there is a loop to publish in."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._keeping.start()
        bundle = self._bundle()
        self._frame.metrics.codes(self._book.used(bundle.generation, bundle.codebook).generation)

    def stop(self) -> None:
        """End it."""
        self._keeping.stop()

    def _mine(self) -> bool:
        return not self._frame.app.should_stop and self._place in self._frame.app.progress.partitions()

    def _publish(self, records: Sequence[Outgoing]) -> None:
        assert self._loop is not None
        try:
            asyncio.run_coroutine_threadsafe(self._frame.publish(records), self._loop).result()
        except (CancelledError, RuntimeError) as error:  # the loop ends, and the worker with it
            raise LeadershipLostError from error


class _Observer(Observer):
    """Puts what the keeper does into the metrics."""

    def __init__(self, metrics: CatalogueMetrics) -> None:
        self._metrics = metrics

    def measured(self, generation: str, drift: Drift, decision: Decision) -> None:
        self._metrics.drift(generation, figures(drift), decision.wanted)

    def refreshed(self, how: str, result: str, seconds: float, changed: int) -> None:
        self._metrics.codes_refreshes.labels(how, result).inc()
        if seconds:
            self._metrics.codes_refresh_seconds.observe(seconds)
        self._metrics.codes_changed.inc(changed)

    def dismissed(self) -> None:
        self._metrics.no_drift()
