"""What every worker needs around its pipeline: a Faust app, a producer, a store, and periodic jobs."""

import asyncio
import gc
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from threading import Event
from typing import Any

import msgspec
from kafka.errors import KafkaError

from features.errors import StoreUnavailableError
from features.retries import RetryPolicy
from features.store import OnlineStore
from stream.errors import PublishError
from stream.kafka.admin import count_partitions
from stream.kafka.app import make_app, run
from stream.kafka.connection import Connection
from stream.kafka.grants import GRANTS
from stream.kafka.producer import Outbound, Outgoing, Unsendable
from stream.kafka.topics import TopicSpec, prefixed
from stream.kafka.transport import Transport
from stream.pipelines.batch import Steps
from stream.workers.agents import Batch, batch_agent
from stream.workers.observer import WorkerObserver
from stream.workers.stopwatch import Stopwatch

log = logging.getLogger(__name__)

TICK_S = 0.5  # between two runs of a job
GC_THRESHOLDS = (50_000, 20, 100)  # rows hold no cycles, yet with the default thresholds the collector took a third of a worker's time
SWITCH_S = 0.0005  # how long a thread keeps Python's lock: a search may wait this long for the thread that changes the index

BatchHandler = Callable[[Batch, Steps], Awaitable[None]]
Job = Callable[[Steps], Awaitable[None]]


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker reads its topics. `group` is its consumer group, `retry_max_s` the longest wait between two tries of a batch."""

    group: str
    topic_prefix: str = ""
    session_timeout_s: float = 10.0
    heartbeat_s: float = 3.0
    commit_interval_s: float = 2.8
    stall_after_s: float = 60.0
    retry_max_s: float = 10.0
    stop_deadline_s: float = 20.0


class WorkerContext:
    """The surroundings of one worker of a role (stream.kafka.grants). Making one connects to nothing and starts nothing.

    `stopping` is set when the worker ends.
    """

    def __init__(self, role: str, connection: Connection, store: OnlineStore, observer: WorkerObserver, options: WorkerOptions) -> None:
        self.role, self.connection, self.store, self.options = role, connection, store, options
        self.stopping = Event()
        self.app = make_app(
            role,
            connection,
            group=options.group,
            stall_after_s=options.stall_after_s,
            broker_session_timeout=options.session_timeout_s,
            broker_heartbeat_interval=options.heartbeat_s,
            broker_commit_interval=options.commit_interval_s,
        )
        self._observer, self._producer = observer, Outbound(connection)
        self._too_large: set[str] = set()  # topics of which a dropped record was logged
        self._jobs: list[Job] = [self._report_progress]
        self._last: list[Callable[[], Awaitable[None]]] = []

    def topic(self, spec: TopicSpec) -> str:
        """The broker's name of a topic; the role must have a right to it (stream.kafka.grants)."""
        assert spec in GRANTS[self.role].topics, (self.role, spec)
        return prefixed(self.options.topic_prefix, spec)

    def era(self) -> int:
        """A number that changes whenever partitions of this worker are revoked or assigned."""
        transport: Transport = self.app.transport  # type: ignore[assignment]
        return transport.era

    def partitions(self, spec: TopicSpec) -> int:
        """The broker's present number of partitions of a topic."""
        return count_partitions(self.connection, self.topic(spec))

    def consume(self, topics: Sequence[TopicSpec], handle: BatchHandler, *, in_step: bool, together: int = 1) -> None:
        """Give every batch of these topics to `handle`, which acknowledges it; a failed batch is reported and retried in place.

        `in_step` and `together`: see `stream.workers.agents.batch_agent`.
        """
        stopwatch = Stopwatch()

        def on_retry(error: Exception, tries: int) -> None:
            step = stopwatch.step_of(error)
            self._observer.retry(step, error)
            self._observer.unavailable("store" if isinstance(error, StoreUnavailableError) else "broker", step)

        async def timed(batch: Batch) -> None:
            nonlocal stopwatch
            stopwatch = Stopwatch()
            await handle(batch, stopwatch)
            self._observer.batch(len(batch.records), stopwatch.elapsed_s, stopwatch.seconds)
            self._observer.recovered()

        names = [self.topic(spec) for spec in topics]
        policy = RetryPolicy(longest_s=self.options.retry_max_s)
        batch_agent(self.app, names, timed, in_step=in_step, on_retry=on_retry, policy=policy, together=together)

    def every_tick(self, job: Job) -> None:
        """Await `job` every TICK_S while the worker runs, also after an outage; any other failure crashes the worker."""
        self._jobs.append(job)

    def at_stop(self, task: Callable[[], Awaitable[None]]) -> None:
        """Await `task` when the worker stops: after the last batch, while it can still publish. The task handles outages itself."""
        self._last.append(task)

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Publish records and return when the broker acknowledged them. One that is too large for it is dropped, counted and logged.

        Raises:
            PublishError: an outage; publish all of them again.
        """
        for unsendable in await self._producer.deliver(records):
            self._drop(unsendable)

    def run(self) -> int:
        """Process batches and run the jobs, in the main thread, until a signal; the exit code."""
        self.app.on_partitions_assigned.connect(self._on_assigned, weak=False)
        self.app.on_before_shutdown.connect(self._on_shutdown, weak=False)
        for job in self._jobs:
            self._repeat(job)
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        sys.setswitchinterval(SWITCH_S)
        try:
            return run(self.app, self.options.stop_deadline_s)
        finally:
            self.stopping.set()

    def _drop(self, unsendable: Unsendable) -> None:
        topic = unsendable.record.topic
        self._observer.dropped(topic.removeprefix(self.options.topic_prefix))
        if topic not in self._too_large:
            self._too_large.add(topic)
            size = len(unsendable.record.value or b"")
            remedy = "raise max.message.bytes of the topic; more records of this topic are only counted"
            log.error("a record of %d bytes is too large for %s and is dropped (%s): %s", size, topic, unsendable.error, remedy)

    async def _on_assigned(self, *_: Any, **__: Any) -> None:
        self._observer.assigned()
        self._observer.recovered()

    async def _on_shutdown(self, *_: Any, **__: Any) -> None:
        for task in self._last:
            await task()
        await self._producer.stop()

    def _repeat(self, job: Job) -> None:
        """Run a job in an asyncio task of its own: one that takes minutes, as loading a bundle may, delays no other."""

        async def repeat() -> None:
            try:
                while not self.app.should_stop:
                    await self._attempt(job)
                    await self.app.sleep(TICK_S)
            except Exception as error:  # noqa: BLE001 - a bug in a job ends the worker
                await self.app.crash(error)
            except asyncio.CancelledError:  # after `_on_shutdown`, in the middle of a job that may have connected again
                await asyncio.shield(self._producer.stop())
                raise

        self.app.task(repeat)

    async def _attempt(self, job: Job) -> None:
        stopwatch = Stopwatch()
        try:
            await job(stopwatch)
        except (StoreUnavailableError, PublishError, KafkaError) as error:
            self._observer.retry(stopwatch.step_of(error), error)
            log.warning("a periodic job failed and will be retried: %s", error)

    async def _report_progress(self, _: Steps) -> None:
        progress = self.app.progress
        self._observer.progress(progress.lag(), progress.stalled(time.monotonic()))
