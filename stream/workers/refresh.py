"""The refresh worker: requests into interests and candidate sets, published; it follows every item code and every new bundle."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from infra.clock import wall_ms
from infra.metrics import RefreshMetrics
from infra.settings import Settings
from infra.wiring import choose_device
from stream.codes.codebook_reader import Codebooks
from stream.kafka.messages import RefreshRequest
from stream.kafka.skips import Skips
from stream.kafka.topics import CODEBOOKS, ITEM_CODES, REFRESH
from stream.pipelines.refresh import Limits, Refresh, RefreshOutcome
from stream.pipelines.steps import Steps
from stream.serving.live_index import LiveServing
from stream.serving.snapshot import Snapshots
from stream.serving.swapper import Swapper
from stream.serving.watcher import Watcher
from stream.workers.answering import Answering
from stream.workers.context import Frame

TOGETHER = 16  # lists of requests, of all partitions, that are answered as one


def run(settings: Settings) -> int:
    """Run it until a signal; the exit code."""
    return RefreshWorker(Frame(RefreshMetrics(), settings, "bundle", "index")).run()


class RefreshWorker:
    """Answers requests (stream.workers.answering) with the newest bundle and index."""

    def __init__(self, frame: Frame[RefreshMetrics]) -> None:
        self._frame, self._settings = frame, frame.settings
        self._device = choose_device(frame.settings)
        self._codebooks = Codebooks(frame.connection, frame.topic(CODEBOOKS), Skips(frame.metrics.skipped))
        self._codebooks.start(frame.stopping)
        self._watcher = _Watcher(frame.metrics)
        topic, settings = frame.topic(ITEM_CODES), frame.settings
        self._snapshots = Snapshots(settings.data_dir, topic, settings.epoch, settings.snapshot_s)
        self._swapper = frame.open_bundle(
            lambda: Swapper(settings.bundle_path, self._load, lambda old: cast(LiveServing, old).stop(save=False))
        )
        frame.metrics.bundle(self._swapper.generation)
        frame.health.set_ready("bundle")
        frame.health.set_ready("index")
        limits = Limits(
            settings.top_k_categories,
            settings.candidates,
            settings.exclude_bought,
            settings.only_available,
            settings.rescore,
            settings.shares,
            settings.demand,
        )
        self._serving = self._live.serving
        self._refresh = Refresh(frame.store, lambda: self._serving, wall_ms, limits)
        self._answering = Answering(self._process, frame.publish, frame.app.progress, frame.metrics, frame.health, settings)
        self._looked_at = 0.0

    def run(self) -> int:
        """Run it until a signal; the exit code."""
        self._frame.read([REFRESH], self._answering.handle, in_step=False, together=TOGETHER)
        self._frame.every_tick(self._answering.settle)
        self._frame.every_tick(self._follow)
        self._frame.at_stop(self._answering.close)
        try:
            return self._frame.run()
        finally:
            self._live.stop()
            self._codebooks.stop()

    @property
    def _live(self) -> LiveServing:
        return cast(LiveServing, self._swapper.current)

    def _load(self, directory: Path) -> LiveServing:
        topic, book = self._frame.topic(ITEM_CODES), self._codebooks.book
        live = LiveServing(directory, self._device, self._frame.connection, topic, book, self._watcher, self._snapshots)
        live.start(self._frame.stopping)
        self._watcher.items(len(live.index), 0, ())
        return live

    def _process(self, requests: Sequence[RefreshRequest], behind: bool, steps: Steps) -> RefreshOutcome:
        live = self._live  # taken once: it may be replaced meanwhile
        with live.lock:
            self._serving = live.serving
            return self._refresh.process(requests, behind, steps)

    async def _follow(self, _: Steps) -> None:
        """Take a new bundle, and notice a tail that ended."""
        if (failure := self._live.failure or self._codebooks.failure) is not None:
            raise failure
        self._show(self._live)
        now = asyncio.get_running_loop().time()
        if now - self._looked_at >= self._settings.bundle_poll_s:
            self._looked_at = now
            if await asyncio.to_thread(self._swapper.look):
                self._frame.metrics.bundle(self._swapper.generation)
            self._frame.health.warn("bundle", self._swapper.problem)

    def _show(self, live: LiveServing) -> None:
        metrics, index = self._frame.metrics, live.index
        metrics.codes_unfinished.set(sum(record.ends is None for record in self._codebooks.book.of(live.bundle)))
        metrics.index_bytes.set(len(index) * live.bytes_per_item())
        metrics.index_segment.set(index.changes)


class _Watcher(Watcher):
    """Puts what an index does into the metrics."""

    def __init__(self, metrics: RefreshMetrics) -> None:
        self._metrics = metrics

    def items(self, items: int, newest_ts: int, sent_ms: Sequence[int]) -> None:
        now = wall_ms()
        self._metrics.index_items.set(items)
        if newest_ts:
            self._metrics.index_newest.set(newest_ts / 1000)
        for sent in sent_ms:
            self._metrics.item_to_index.observe(max(0, now - sent) / 1000)

    def generations(self, serving: str, held: Sequence[str]) -> None:
        self._metrics.codes(serving, len(held))

    def others(self, bundles: int, codebooks: int) -> None:
        self._metrics.codes_left_out.inc(bundles)
        self._metrics.codes_made_here.inc(codebooks)

    def skipped(self, reason: str) -> None:
        self._metrics.skipped(ITEM_CODES.name, reason)

    def upkeep(self, what: str, seconds: float) -> None:
        self._metrics.index_upkeep_seconds.labels(what).observe(seconds)
