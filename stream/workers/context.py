"""What every worker has: an app, metrics and health served over HTTP, a store, a producer, and a task that keeps gauges true."""

import asyncio
import gc
import logging
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from threading import Event
from typing import Any, Generic, TypeVar

from kafka.errors import KafkaError

from features.errors import StoreUnavailableError
from infra.health import Health, away
from infra.metrics import WorkerMetrics
from infra.probes import serve_metrics
from infra.settings import Settings
from infra.wiring import connection, open_online_store
from stream.errors import PublishError
from stream.kafka.admin import count_partitions, create_topics, wait_for_broker
from stream.kafka.app import make_app, run
from stream.kafka.grants import GRANTS
from stream.kafka.producer import Outbound, Outgoing, Unsendable
from stream.kafka.topics import TopicSpec, prefixed
from stream.kafka.transport import Transport
from stream.pipelines.steps import Steps
from stream.workers.agents import Backoff, batch_agent
from stream.workers.stopwatch import Stopwatch

log = logging.getLogger(__name__)

T = TypeVar("T")

START_S = 120.0
TICK_S = 0.5
GC_THRESHOLDS = (50_000, 20, 100)  # rows hold no cycles, yet the collector's usual walks through them took a third of a worker's time
SWITCH_S = 0.0005  # when a thread hands over Python's lock: a search waits so long for the one that changes the index


M = TypeVar("M", bound=WorkerMetrics)
TimedHandle = Callable[[list[Any], Steps], Awaitable[None]]
Task = Callable[[Steps], Awaitable[None]]


class Frame(Generic[M]):
    """One worker process of the role of its metrics. Waits for broker and store, makes those of its topics that are missing."""

    def __init__(self, metrics: M, settings: Settings, *conditions: str) -> None:
        signal.signal(signal.SIGTERM, _leave)  # until the app runs: as process 1 of a container nothing else would end it
        self.role, self.settings, self.metrics = metrics.role, settings, metrics
        self.health = Health("broker", "store", "partitions", *conditions)
        self.metrics.follow(self.health)
        self.server = serve_metrics(self.metrics, self.health, settings.http_host, settings.metrics_port)
        log.info("metrics and health of %s at http://%s:%d", self.role, self.server.host, self.server.port)
        self.stopping = Event()
        self.connection = connection(settings)
        wait_for_broker(self.connection, START_S)
        create_topics(self.connection, settings.topic_prefix, settings.partitions, settings.replication, GRANTS[self.role].topics)
        self.health.set_ready("broker")
        self.store = open_online_store(settings, START_S)
        self.health.set_ready("store")
        self.outbound = Outbound(self.connection)
        self.app = make_app(
            self.role,
            self.connection,
            group=f"{settings.topic_prefix}{settings.group}-{self.role}",
            stall_after_s=settings.stall_after_s,
            broker_session_timeout=settings.session_timeout_s,
            broker_heartbeat_interval=settings.heartbeat_s,
            broker_commit_interval=settings.commit_interval_s,
        )
        self._too_large: set[str] = set()  # topics of which a dropped record was logged
        self._tasks: list[Task] = []
        self._last: list[Callable[[], Awaitable[None]]] = []

    def await_bundle(self) -> None:
        """Return once there is a bundle to serve with; readiness says how to make one."""
        from models.bundle import MANIFEST  # with torch, which the ingest worker does without

        place = self.settings.bundle_path
        if not (place / MANIFEST).exists():
            remedy = f"there is no bundle at {place}: make one with `everlong train --out {place}`"
            self.health.set_failed("bundle", remedy)
            log.warning("%s; waiting for it", remedy)
        while not (place / MANIFEST).exists():
            time.sleep(TICK_S)

    def open_bundle(self, make: Callable[[], T]) -> T:
        """What `make` makes of the bundle, once there is one that this program can use; readiness says what is wrong with it until then."""
        from models.errors import BundleError

        logged = ""
        while True:
            self.await_bundle()
            try:
                return make()
            except BundleError as error:
                self.health.set_failed("bundle", str(error))
                if str(error) != logged:
                    logged = str(error)
                    log.error("waiting for a bundle that can be used: %s", error)
                time.sleep(TICK_S)

    def topic(self, spec: TopicSpec) -> str:
        """The broker's name of a topic; the role must have a right to it (stream.kafka.grants)."""
        assert spec in GRANTS[self.role].topics, (self.role, spec)
        return prefixed(self.settings.topic_prefix, spec)

    def era(self) -> int:
        """A number that changes whenever partitions of this worker are revoked or assigned."""
        transport: Transport = self.app.transport  # type: ignore[assignment]
        return transport.era

    def partitions(self, spec: TopicSpec) -> int:
        """How many partitions a topic has, as the broker says now."""
        return count_partitions(self.connection, self.topic(spec))

    def read(self, topics: Sequence[TopicSpec], handle: TimedHandle, in_step: bool, together: int = 1) -> None:
        """Give every batch of these topics to `handle`, measured by step; a failed batch is counted and retried in place."""
        stopwatch = Stopwatch()

        def on_retry(error: Exception, tries: int) -> None:
            step = stopwatch.step_of(error)
            self.metrics.retry(step, error)
            part = "store" if isinstance(error, StoreUnavailableError) else "broker"
            self.health.set_failed(part, f"{step}: {away(part)}")

        async def timed(records: list[Any]) -> None:
            nonlocal stopwatch
            stopwatch = Stopwatch()
            await handle(records, stopwatch)
            self.metrics.batch(len(records), stopwatch.elapsed_s, stopwatch.seconds)
            self._answered()

        backoff = Backoff(longest_s=self.settings.retry_max_s)
        batch_agent(
            self.app, [self.topic(spec) for spec in topics], timed, in_step=in_step, on_retry=on_retry, backoff=backoff, together=together
        )

    def every_tick(self, task: Task) -> None:
        """Await `task` every TICK_S while the worker runs, also after an outage; another failure crashes the worker."""
        self._tasks.append(task)

    def at_stop(self, task: Callable[[], Awaitable[None]]) -> None:
        """Await `task` when the worker stops: after the list in hand, while it can still publish. It bears outages by itself."""
        self._last.append(task)

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Publish and await the broker's word on each record. One that is too large for it is dropped, counted and logged."""
        for unsendable in await self.outbound.deliver(records):
            self._drop(unsendable)

    def _drop(self, unsendable: Unsendable) -> None:
        topic = unsendable.record.topic
        self.metrics.messages_dropped.labels(topic.removeprefix(self.settings.topic_prefix), "too_large").inc()
        if topic not in self._too_large:
            self._too_large.add(topic)
            size = len(unsendable.record.value or b"")
            remedy = "raise max.message.bytes of the topic; more records of this topic are only counted"
            log.error("a record of %d bytes is too large for %s and is dropped (%s): %s", size, topic, unsendable.error, remedy)

    def run(self) -> int:
        """Run until a signal; the exit code."""
        self.app.on_partitions_assigned.connect(self._on_assigned, weak=False)
        self.app.on_before_shutdown.connect(self._end, weak=False)
        for task in (self._show, *self._tasks):
            self._repeat(task)
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        sys.setswitchinterval(SWITCH_S)
        try:
            return run(self.app, self.settings.stop_deadline_s)
        finally:
            self.stopping.set()
            self.server.close()
            self.store.close()

    async def _on_assigned(self, *_: Any, **__: Any) -> None:
        self.health.set_ready("partitions")
        self._answered()  # a list that was given up on with its partition is another worker's to complain of

    def _answered(self) -> None:
        self.health.set_ready("store")
        self.health.set_ready("broker")

    def _repeat(self, task: Task) -> None:
        """Run a periodic task beside the others: one that takes long, as a new bundle does, delays no gauge."""

        async def repeat() -> None:
            try:
                while not self.app.should_stop:
                    await self._attempt(task)
                    await self.app.sleep(TICK_S)
            except Exception as error:
                await self.app.crash(error)
            except asyncio.CancelledError:  # after `_end`, in the middle of a task that may have connected again
                await asyncio.shield(self.outbound.stop())
                raise

        self.app.task(repeat)

    async def _show(self, _: Steps) -> None:
        """Keep the lag gauges and the condition `progress` true."""
        self.metrics.lags(self.app.progress.lag())
        if stalled := self.app.progress.stalled(time.monotonic()):
            named = ", ".join(f"{topic}/{number}" for topic, number in stalled)
            self.health.set_failed("progress", f"no progress on {named}")
        else:
            self.health.set_ready("progress")

    async def _end(self, *_: Any, **__: Any) -> None:
        for task in self._last:
            await task()
        await self.outbound.stop()

    async def _attempt(self, task: Task) -> None:
        stopwatch = Stopwatch()
        try:
            await task(stopwatch)
        except (StoreUnavailableError, PublishError, KafkaError) as error:
            self.metrics.retry(stopwatch.step_of(error), error)
            log.warning("a periodic task failed and will be retried: %s", error)


def _leave(*_: object) -> None:
    sys.exit(0)


def count(counter: Any, label: Callable[[str], Mapping[str, str]], numbers: Mapping[Any, int]) -> None:
    """Add each number to the counter with its labels."""
    for name, number in numbers.items():
        if number:
            counter.labels(**label(name)).inc(number)
