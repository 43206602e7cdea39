"""Answering requests: lists of them into published candidate sets, the short way in a backlog, and in full once it is gone."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Any

import msgspec
from kafka.errors import KafkaError

from features.table import USER_INTERESTS
from infra.clock import wall_ms
from infra.health import Health
from infra.metrics import RefreshMetrics
from infra.settings import Settings
from stream.errors import PublishError
from stream.kafka.messages import RefreshRequest, Skipped, decode, split
from stream.kafka.producer import Outgoing
from stream.kafka.progress import Progress
from stream.kafka.skips import Skips
from stream.kafka.topics import CANDIDATES, REFRESH, prefixed
from stream.pipelines.pending_full import Owed
from stream.pipelines.refresh import RefreshOutcome, coalesce
from stream.pipelines.steps import Steps, untimed
from stream.workers.context import count

log = logging.getLogger(__name__)


class Answering:
    """Answers lists of requests, each user once a list. Users that a backlog got a short answer are owed a full one.

    What is owed lives in memory. It is answered here once the backlog is gone; a partition that goes to another worker takes it
    along, and so does the end of this one: then the requests are published again, behind those that wait.
    """

    def __init__(
        self,
        process: Callable[[Sequence[RefreshRequest], bool, Steps], RefreshOutcome],
        publish: Callable[[Sequence[Outgoing]], Awaitable[None]],
        progress: Progress,
        metrics: RefreshMetrics,
        health: Health,
        settings: Settings,
        clock_s: Callable[[], float] = monotonic,
    ) -> None:
        self._process, self._publish, self._progress, self._clock_s = process, publish, progress, clock_s
        self._metrics, self._health = metrics, health
        self._candidates, self._refresh = prefixed(settings.topic_prefix, CANDIDATES), prefixed(settings.topic_prefix, REFRESH)
        self._size, self._budget = settings.refresh_batch, settings.refresh_lag_budget
        self._owed, self._skips = Owed(), Skips(metrics.skipped)
        self._one_at_a_time = asyncio.Lock()
        self._closed = False

    async def handle(self, records: Sequence[Any], steps: Steps = untimed) -> None:
        """Take lists of records of any partitions, as one.

        Raises:
            StoreUnavailableError, PublishError: hand it in again.
        """
        with steps("decode"):
            asked = read_requests(records, self._skips)
            partitions = {request.user_id: partition for partition, request in asked}
            requests = coalesce(request for _, request in asked)
        for at in range(0, len(requests), self._size):
            batch, behind = requests[at : at + self._size], self._behind(in_hand=len(requests) - at)
            outcome = await self._answer(batch, behind, steps)
            self._progress.alive(self._clock_s())
            now = wall_ms()
            for _, sent_ms in outcome.sets:
                if sent_ms:
                    self._metrics.event_to_candidate.observe(max(0, now - sent_ms) / 1000)
            for request in batch if behind else ():
                self._owed.add(partitions[request.user_id], request)
        self._metrics.users_coalesced.inc(len(asked) - len(requests))

    async def settle(self, steps: Steps = untimed) -> None:
        """Hand back what is another worker's to give; give the rest, a batch at a time, once the backlog is gone.

        Raises:
            StoreUnavailableError, PublishError: call it again.
        """
        while not (self._closed or self._progress.rebalancing):
            mine = {number for _, number in self._progress.partitions()}
            if lost := self._owed.of_others(mine, self._size):
                await self._hand_back(lost, steps)
            elif not self._behind() and (requests := self._owed.of(mine, self._size)):
                await self._answer(requests, behind=False, steps=steps)
                self._owed.settled(requests)
            else:
                return

    async def close(self) -> None:
        """Hand back all that is owed. Users whose request the broker does not take keep their short sets until their next event."""
        self._closed = True
        async with self._one_at_a_time:
            try:
                while requests := self._owed.of_others((), self._size):
                    await self._hand_back(requests, untimed)
            except (PublishError, KafkaError) as error:
                log.warning("%d users keep a short answer until their next event: %s", len(self._owed), error)

    def _behind(self, in_hand: int = 0) -> bool:
        """Whether more requests wait than the budget; those in hand do too, also where the ends of the log are not known yet."""
        return max(in_hand, sum(self._progress.lag().values())) > self._budget

    async def _hand_back(self, requests: Sequence[RefreshRequest], steps: Steps) -> None:
        again = [msgspec.structs.replace(request, sent_ms=0) for request in requests]
        parts = [part for request in again for part in split(request)]
        with steps("publish"):
            await self._publish([Outgoing(self._refresh, part.user_id.encode(), msgspec.json.encode(part)) for part in parts])
        self._owed.settled(requests)

    async def _answer(self, requests: Sequence[RefreshRequest], behind: bool, steps: Steps) -> RefreshOutcome:
        async with self._one_at_a_time:  # to the end: an older set must not be published after a newer one
            outcome = await asyncio.to_thread(self._process, requests, behind, steps)
            with steps("publish"):
                await self._publish(
                    [Outgoing(self._candidates, found.user_id.encode(), msgspec.json.encode(found)) for found, _ in outcome.sets]
                )
        unreadable = {view: number for view, number in outcome.unreadable.items() if view != USER_INTERESTS.name}
        count(self._metrics.rows_unreadable, lambda view: {"view": view}, unreadable)
        self._metrics.rows_quarantined.labels(USER_INTERESTS.name).inc(outcome.unreadable.get(USER_INTERESTS.name, 0))
        count(self._metrics.refreshes, lambda level: {"level": level}, outcome.levels)
        if outcome.failure:
            self._health.set_failed("model", outcome.failure)
        else:
            self._health.set_ready("model")
        return outcome


def read_requests(records: Sequence[Any], skips: Skips) -> list[tuple[int, RefreshRequest]]:
    """The requests of records, each after its partition; a record that holds none goes to `skips`."""
    requests = []
    for record in records:
        request = decode(RefreshRequest, record.value)
        if isinstance(request, Skipped):
            skips.add(record, REFRESH, request)
        else:
            requests.append((record.partition, request))
    return requests
