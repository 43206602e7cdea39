"""The refresh worker: requests into interests and candidate sets, published; it follows every item code and every new bundle."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from infra.clock import wall_ms
from infra.settings import Settings
from infra.wiring import choose_device
from infra.workers.frame import Frame, Steps, count
from stream.messages import RefreshRequest
from stream.outbound import Outgoing
from stream.refresh import Limits, Refresh, RefreshOutcome, coalesce
from stream.serving import LiveServing, Swapper
from stream.topics import CANDIDATES, ITEM_CODES, REFRESH

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
        self._swapper = Swapper(frame.settings.bundle_path, self._load, lambda old: cast(LiveServing, old).tail.stop())
        frame.metrics.bundle(self._swapper.generation)
        frame.health.set_ready("bundle")
        frame.health.set_ready("index")
        limits = Limits(frame.settings.top_k_categories, frame.settings.candidates, frame.settings.exclude_bought)
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
            self._live.tail.stop()

    @property
    def _live(self) -> LiveServing:
        return cast(LiveServing, self._swapper.current)

    def _load(self, directory: Path) -> LiveServing:
        live = LiveServing(directory, self._device, self._frame.connection, self._frame.topic(ITEM_CODES), self._on_items)
        live.start(self._frame.stopping)
        self._on_items(len(live.serving.index), 0, ())
        return live

    def _on_items(self, items: int, newest_ts: int, sent_ms: Sequence[int]) -> None:
        metrics, now = self._frame.metrics, wall_ms()
        metrics.index_items.set(items)
        if newest_ts:
            metrics.index_newest.set(newest_ts / 1000)
        for sent in sent_ms:
            metrics.item_to_index.observe(max(0, now - sent) / 1000)

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
        if (failure := self._live.tail.failure) is not None:
            raise failure
        now = asyncio.get_running_loop().time()
        if now - self._looked_at >= self._settings.bundle_poll_s:
            self._looked_at = now
            if await asyncio.to_thread(self._swapper.look):
                self._frame.metrics.bundle(self._swapper.generation)


def read_requests(records: Sequence[Any]) -> list[RefreshRequest]:
    """The requests of records; a record that is none is logged and passed over, since the topic is ours alone."""
    requests = []
    for record in records:
        try:
            requests.append(msgspec.json.decode(record.value or b"", type=RefreshRequest))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            log.error("%s/%d offset %d is no refresh request and is passed over: %r", record.topic, record.partition, record.offset, error)
    return requests
