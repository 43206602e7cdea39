"""The refresh worker: requests into interests and candidate sets, published; it follows every item code and every new bundle."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from infra.clock import wall_ms
from infra.metrics import Metrics
from infra.settings import Settings
from infra.wiring import choose_device
from infra.workers.frame import Frame, Steps, count
from stream.codes.book_tail import Codebooks
from stream.messages import RefreshRequest
from stream.outbound import Outgoing
from stream.refresh import Limits, Refresh, RefreshOutcome, coalesce
from stream.serving.live import LiveServing
from stream.serving.snapshot import Snapshots
from stream.serving.swapper import Swapper
from stream.serving.watcher import Watcher
from stream.topics import CANDIDATES, CODEBOOKS, ITEM_CODES, REFRESH

log = logging.getLogger(__name__)

TOGETHER = 16  # lists of requests, of all partitions, that are answered as one


def run(settings: Settings) -> int:
    """Run it until a signal; the exit code."""
    return RefreshWorker(Frame("refresh", settings, "bundle", "index")).run()


class RefreshWorker:
    """Answers lists of requests, each user once a list. Users that a backlog got a short answer are owed a full one."""

    def __init__(self, frame: Frame) -> None:
        self._frame, self._settings = frame, frame.settings
        self._device = choose_device(frame.settings)
        frame.await_bundle()
        self._codebooks = Codebooks(frame.connection, frame.topic(CODEBOOKS))
        self._codebooks.start(frame.stopping)
        self._watcher = _Watcher(frame.metrics)
        topic, settings = frame.topic(ITEM_CODES), frame.settings
        self._snapshots = Snapshots(settings.data_dir, topic, settings.epoch, settings.snapshot_s)
        self._swapper = Swapper(frame.settings.bundle_path, self._load, lambda old: cast(LiveServing, old).stop(save=False))
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
        self._owed: dict[str, RefreshRequest] = {}
        self._one_at_a_time = asyncio.Lock()
        self._looked_at = 0.0

    def run(self) -> int:
        """Run it until a signal; the exit code."""
        self._frame.read([REFRESH], self._handle, in_step=False, together=TOGETHER)
        self._frame.every_tick(self._settle)
        self._frame.every_tick(self._follow)
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

    def _behind(self) -> bool:
        return sum(self._frame.app.progress.lag().values()) > self._settings.refresh_lag_budget

    async def _handle(self, records: Sequence[Any]) -> None:
        metrics, steps, size = self._frame.metrics, Steps(), self._settings.refresh_batch
        asked = read_requests(records)
        requests, behind = coalesce(asked), self._behind()
        for at in range(0, len(requests), size):
            outcome = await self._answer(requests[at : at + size], behind, steps)
            now = wall_ms()
            for _, sent_ms in outcome.sets:
                metrics.event_to_candidate.observe(max(0, now - sent_ms) / 1000)
        metrics.users_coalesced.inc(len(asked) - len(requests))
        metrics.batch("refresh", len(records), steps.seconds)
        for request in requests if behind else ():
            old = self._owed.get(request.user_id)
            self._owed[request.user_id] = coalesce([old, request])[0] if old else request

    async def _answer(self, requests: Sequence[RefreshRequest], behind: bool, steps: Steps) -> RefreshOutcome:
        topic = self._frame.topic(CANDIDATES)
        async with self._one_at_a_time:  # to the end: an older set must not be published after a newer one
            outcome = await asyncio.to_thread(self._process, requests, behind)
            steps.done("compute")
            await self._frame.publish([Outgoing(topic, found.user_id.encode(), msgspec.json.encode(found)) for found, _ in outcome.sets])
        steps.done("publish")
        count(self._frame.metrics.refreshes, lambda level: {"level": level}, outcome.levels)
        if outcome.failure:
            self._frame.health.set_failed("model", outcome.failure)
        else:
            self._frame.health.set_ready("model")
        return outcome

    def _process(self, requests: Sequence[RefreshRequest], behind: bool) -> RefreshOutcome:
        live = self._live  # taken once: it may be replaced meanwhile
        with live.lock:
            self._serving = live.serving
            return self._refresh.process(requests, behind)

    async def _settle(self) -> None:
        """Give what is owed, a batch at a time, once the backlog is gone."""
        while self._owed and not self._behind() and not self._frame.app.should_stop:
            requests = list(self._owed.values())[: self._settings.refresh_batch]
            await self._answer(requests, behind=False, steps=Steps())
            for request in requests:
                if self._owed.get(request.user_id) is request:
                    del self._owed[request.user_id]

    async def _follow(self) -> None:
        """Take a new bundle, and notice a tail that ended."""
        if (failure := self._live.failure or self._codebooks.failure) is not None:
            raise failure
        self._show(self._live)
        now = asyncio.get_running_loop().time()
        if now - self._looked_at >= self._settings.bundle_poll_s:
            self._looked_at = now
            if await asyncio.to_thread(self._swapper.look):
                self._frame.metrics.bundle(self._swapper.generation)

    def _show(self, live: LiveServing) -> None:
        metrics, index = self._frame.metrics, live.index
        metrics.codes_unfinished.set(sum(record.ends is None for record in self._codebooks.book.of(live.bundle)))
        metrics.index_bytes.set(len(index) * live.bytes_per_item())
        metrics.index_segment.set(index.changes)


class _Watcher(Watcher):
    """Puts what an index does into the metrics."""

    def __init__(self, metrics: Metrics) -> None:
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

    def upkeep(self, what: str, seconds: float) -> None:
        self._metrics.index_upkeep_seconds.labels(what).observe(seconds)


def read_requests(records: Sequence[Any]) -> list[RefreshRequest]:
    """The requests of records; a record that is none is logged and passed over, since the topic is ours alone."""
    requests = []
    for record in records:
        try:
            requests.append(msgspec.json.decode(record.value or b"", type=RefreshRequest))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            log.error("%s/%d offset %d is no refresh request and is passed over: %r", record.topic, record.partition, record.offset, error)
    return requests
