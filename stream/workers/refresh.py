"""The refresh worker: requests become interests and candidate sets, degraded in a backlog and in full once it is gone."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from itertools import islice
from time import monotonic
from typing import Any, Protocol

import msgspec
from kafka.errors import KafkaError

from stream.errors import PublishError
from stream.kafka.messages import RefreshRequest, Skipped, Skips, decode, split
from stream.kafka.producer import Outgoing
from stream.kafka.progress import Progress
from stream.kafka.topics import CANDIDATES, REFRESH, prefixed
from stream.pipelines.batch import Steps, untimed
from stream.pipelines.refresh import RefreshOutcome, coalesce
from stream.workers.agents import Batch
from stream.workers.context import WorkerContext
from stream.workers.observer import WorkerObserver

log = logging.getLogger(__name__)

TOGETHER = 16  # lists of requests, of all partitions, that are processed as one batch


class RefreshObserver(WorkerObserver, Protocol):
    """The events of a refresh worker."""

    def refreshed(self, outcome: RefreshOutcome) -> None:
        """Candidate sets were published."""

    def latency(self, sent_ms: Sequence[int]) -> None:
        """Events sent at these times (wall clock, ms) now have the candidate sets that follow from them."""

    def coalesced(self, requests: int) -> None:
        """This many requests were answered together with another one of their user."""

    def skipped(self, topic: str, reason: str) -> None:
        """A record of an internal topic (without the prefix) cannot be used."""


class RefreshOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`batch` users are refreshed at a time. With more than `lag_budget` requests waiting, they get a degraded (`short`) candidate set."""

    topic_prefix: str = ""
    batch: int = 256
    lag_budget: int = 5000


class RefreshWorker:
    """Processes batches of requests, each user once per batch. Users served in degraded mode are queued for a full refresh.

    The queue lives in memory. It is served once the backlog is gone. When a partition goes to another worker, and when this one stops, its
    requests are published again, behind those that wait.
    """

    def __init__(
        self,
        pipeline: Callable[[Sequence[RefreshRequest], bool, Steps], RefreshOutcome],
        publish: Callable[[Sequence[Outgoing]], Awaitable[None]],
        progress: Progress,
        observer: RefreshObserver,
        options: RefreshOptions,
        clock_s: Callable[[], float] = monotonic,
    ) -> None:
        self._pipeline, self._publish, self._progress = pipeline, publish, progress
        self._observer, self._options, self._clock_s = observer, options, clock_s
        self._candidates, self._refresh = prefixed(options.topic_prefix, CANDIDATES), prefixed(options.topic_prefix, REFRESH)
        self._pending, self._skips = PendingFullRefreshes(), Skips(observer.skipped)
        self._one_at_a_time = asyncio.Lock()
        self._closed = False

    def run(self, context: WorkerContext) -> int:
        """Process requests until a signal; the exit code."""
        context.consume([REFRESH], self.process, in_step=False, together=TOGETHER)
        context.every_tick(self.serve_pending)
        context.at_stop(self.close)
        return context.run()

    async def process(self, batch: Batch, steps: Steps = untimed) -> None:
        """Process one batch: 1 decode and coalesce, 2 read rows, 3 retrieve, 4 write, 5 publish candidate sets, 6 acknowledge.

        Raises:
            StoreUnavailableError, PublishError: process the same batch again.
        """
        # Step 1
        with steps("decode"):
            received = read_requests(batch.records, self._skips)
            partitions = {request.user_id: partition for partition, request in received}
            requests = coalesce(request for _, request in received)
        for at in range(0, len(requests), self._options.batch):
            users, behind = requests[at : at + self._options.batch], self._behind(in_flight=len(requests) - at)
            # Steps 2 to 5
            outcome = await self._serve(users, behind, steps)
            self._progress.alive(self._clock_s())
            self._observer.latency([sent_ms for _, sent_ms in outcome.sets if sent_ms])
            for request in users if behind else ():
                self._pending.add(partitions[request.user_id], request)
        self._observer.coalesced(len(received) - len(requests))
        # Step 6
        await batch.acknowledge()

    async def serve_pending(self, steps: Steps = untimed) -> None:
        """Requeue the requests of other workers' partitions; serve the rest in full, a batch at a time, once the backlog is gone.

        Raises:
            StoreUnavailableError, PublishError: call it again.
        """
        while not (self._closed or self._progress.rebalancing):
            mine = {number for _, number in self._progress.partitions()}
            if lost := self._pending.outside(mine, self._options.batch):
                await self._requeue(lost, steps)
            elif not self._behind() and (requests := self._pending.inside(mine, self._options.batch)):
                await self._serve(requests, behind=False, steps=steps)
                self._pending.remove(requests)
            else:
                return

    async def close(self) -> None:
        """Requeue all pending requests. Users whose request the broker does not take keep their degraded set until their next event."""
        self._closed = True
        async with self._one_at_a_time:
            try:
                while requests := self._pending.outside((), self._options.batch):
                    await self._requeue(requests, untimed)
            except (PublishError, KafkaError) as error:
                log.warning("%d users keep a degraded candidate set until their next event: %s", len(self._pending), error)

    def _behind(self, in_flight: int = 0) -> bool:
        """Whether more requests wait than the budget. Those in flight count too, also where the ends of the log are not known yet."""
        return max(in_flight, sum(self._progress.lag().values())) > self._options.lag_budget

    async def _requeue(self, requests: Sequence[RefreshRequest], steps: Steps) -> None:
        again = [msgspec.structs.replace(request, sent_ms=0) for request in requests]
        parts = [part for request in again for part in split(request)]
        with steps("publish"):
            await self._publish([Outgoing(self._refresh, part.user_id.encode(), msgspec.json.encode(part)) for part in parts])
        self._pending.remove(requests)

    async def _serve(self, requests: Sequence[RefreshRequest], behind: bool, steps: Steps) -> RefreshOutcome:
        """Refresh these users and publish their candidate sets."""
        async with self._one_at_a_time:  # until published: an older set must not follow a newer one
            outcome = await asyncio.to_thread(self._pipeline, requests, behind, steps)
            with steps("publish"):
                await self._publish(
                    [Outgoing(self._candidates, found.user_id.encode(), msgspec.json.encode(found)) for found, _ in outcome.sets]
                )
        self._observer.refreshed(outcome)
        return outcome


class PendingFullRefreshes:
    """The requests of users who got a degraded candidate set, one per user, each with its partition of the topic `refresh`."""

    def __init__(self) -> None:
        self._requests: dict[str, tuple[int, RefreshRequest]] = {}

    def __len__(self) -> int:
        return len(self._requests)

    def add(self, partition: int, request: RefreshRequest) -> None:
        """Add a request; it is coalesced with a pending one of the same user."""
        _, old = self._requests.get(request.user_id, (partition, request))
        self._requests[request.user_id] = partition, coalesce([old, request])[0]

    def inside(self, partitions: Collection[int], most: int) -> list[RefreshRequest]:
        """The first `most` requests of these partitions."""
        return list(islice((request for partition, request in self._requests.values() if partition in partitions), most))

    def outside(self, partitions: Collection[int], most: int) -> list[RefreshRequest]:
        """The first `most` requests of all other partitions."""
        return list(islice((request for partition, request in self._requests.values() if partition not in partitions), most))

    def remove(self, requests: Sequence[RefreshRequest]) -> None:
        """These requests were served or requeued. One that was coalesced with another since then stays."""
        for request in requests:
            if self._requests.get(request.user_id, (0, None))[1] is request:
                del self._requests[request.user_id]


def read_requests(records: Sequence[Any], skips: Skips) -> list[tuple[int, RefreshRequest]]:
    """The requests of records, each with its partition. Invalid records go to `skips`."""
    requests = []
    for record in records:
        request = decode(RefreshRequest, record.value)
        if isinstance(request, Skipped):
            skips.add(record, REFRESH, request)
        else:
            requests.append((record.partition, request))
    return requests
