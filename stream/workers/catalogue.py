"""The catalogue worker: items become vectors, codes and item rows. Under a new bundle the whole catalogue is encoded again.

One catalogue worker of all, the leader, also manages the codes (stream.codes.code_manager).
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from features.event_time import TimeRules
from features.events import Item, encode, key_of
from models.bundle import load
from models.serving.recommender import Recommender
from stream.codes.code_manager_thread import CodeManagerThread, CodesObserver, Host, ManagerOptions
from stream.codes.codebook_publisher import Topics
from stream.codes.readers import CodebookReader
from stream.errors import LeadershipLostError
from stream.kafka.access import partitions_of
from stream.kafka.connection import Connection
from stream.kafka.messages import AGAIN_HEADER, DeadLetter, ItemCode, Skips
from stream.kafka.producer import Outgoing
from stream.kafka.topics import CODEBOOKS, ITEM_CODES, ITEMS
from stream.pipelines.batch import Steps, untimed
from stream.pipelines.catalogue import Catalogue, CatalogueOutcome
from stream.pipelines.dead_letters import outgoing
from stream.serving.bundle_swapper import BundleSwapper
from stream.workers.agents import Batch
from stream.workers.bundle_follower import BundleFollower, BundleObserver
from stream.workers.context import WorkerContext
from stream.workers.observer import WorkerObserver

log = logging.getLogger(__name__)

READ_AT_ONCE = 1000  # records of a batch of the whole catalogue


class CatalogueObserver(WorkerObserver, BundleObserver, CodesObserver, Protocol):
    """The events of a catalogue worker."""

    def catalogued(self, outcome: CatalogueOutcome) -> None:
        """A batch was written, and what follows from it is published."""

    def codes(self, codebook: str) -> None:
        """Items are encoded with this codebook."""


class CatalogueOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`partitions`: of the topic `items`. `manager`: how the leader manages codes."""

    bundle: Path
    bundle_poll_s: float
    device: str
    rules: TimeRules
    epoch: int
    partitions: int
    manager: ManagerOptions


class CatalogueWorker:
    """Processes batches of items. Making it connects to nothing; `run` does."""

    def __init__(self, context: WorkerContext, observer: CatalogueObserver, options: CatalogueOptions, clock_ms: Callable[[], int]) -> None:
        self._context, self._observer = context, observer
        swapper = BundleSwapper(options.bundle, lambda directory: Recommender(load(directory, options.device), options.device))
        self._bundles = BundleFollower(swapper, observer, options.bundle_poll_s)
        self._codebooks = CodebookReader(context.connection, context.topic(CODEBOOKS), Skips(observer.skipped))
        registry = self._codebooks.registry
        host = Host(self._is_leader, lambda: self._bundles.current.bundle, self._publish_blocking, clock_ms)
        topics = Topics(context.topic(CODEBOOKS), context.topic(ITEM_CODES))
        self._manager = CodeManagerThread(context.connection, topics, registry, host, observer, options.manager)
        self._pipeline = Catalogue(
            context.store,
            lambda: self._bundles.current,
            clock_ms,
            options.rules,
            options.epoch,
            codebook=registry.used,
            partitions=options.partitions,
        )
        self._one_at_a_time = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._encoded = ""  # the bundle under which the whole catalogue was encoded

    def run(self) -> int:
        """Process items until a signal; the exit code. Waits for a bundle first."""
        context = self._context
        self._codebooks.start(context.stopping)
        try:
            self._bundles.open()
            context.consume([ITEMS], self.process, in_step=False)
            context.every_tick(self._bundles.follow)
            context.every_tick(self.encode_all)
            context.every_tick(self._follow_codes)
            return context.run()
        finally:
            self._manager.stop()
            self._codebooks.stop()

    async def process(self, batch: Batch, steps: Steps = untimed) -> None:
        """Process one batch: 1 decode, 2 read the rows, 3 choose states and encode them, 4 write the rows, 5 publish, 6 acknowledge.

        Raises:
            StoreUnavailableError, PublishError: process the same batch again.
        """
        async with self._one_at_a_time:
            # Steps 1 to 4
            outcome = await asyncio.to_thread(self._pipeline.process, batch.records, steps)
            # Step 5
            with steps("publish"):
                await self._publish(outcome.codes, outcome.again, outcome.dead)
        self._observer.catalogued(outcome)
        # Step 6
        await batch.acknowledge()

    async def encode_all(self, steps: Steps) -> None:
        """A job: under a bundle that is new to this process, encode every item of the compacted topic again."""
        generation = self._bundles.generation
        if self._encoded == generation:
            return
        batches = read_items(self._context.connection, self._context.topic(ITEMS), self._context.stopping)
        while (records := await asyncio.to_thread(next, batches, None)) is not None:
            async with self._one_at_a_time:
                outcome = await asyncio.to_thread(self._pipeline.process, records, steps)
                with steps("publish"):
                    await self._publish([(item, code and replace(code, sent_ms=0)) for item, code in outcome.codes], outcome.again)
        self._encoded = generation
        log.info("the catalogue is encoded under bundle %s", generation)

    async def _follow_codes(self, _: Steps) -> None:
        """A job: show the codebook in use. The first time also start the code manager, which publishes in this loop."""
        if self._codebooks.failure is not None:
            raise self._codebooks.failure
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._manager.start()
        bundle = self._bundles.current.bundle
        self._observer.codes(self._codebooks.registry.used(bundle.generation, bundle.codebook).generation)

    async def _publish(self, codes: Sequence[tuple[str, ItemCode | None]], again: Sequence[Item], dead: Sequence[DeadLetter] = ()) -> None:
        topic, items = self._context.topic(ITEM_CODES), self._context.topic(ITEMS)
        records = [Outgoing(topic, item.encode(), None if code is None else msgspec.json.encode(code)) for item, code in codes]
        records += [Outgoing(items, key_of(item), encode(item), item.ts, [AGAIN_HEADER]) for item in again]
        await self._context.publish(records + [outgoing(letter, self._context.options.topic_prefix) for letter in dead])

    def _is_leader(self) -> bool:
        """Whether this worker has partition 0 of the topic `items`, as one of all catalogue workers does."""
        app = self._context.app
        return not app.should_stop and (self._context.topic(ITEMS), 0) in app.progress.partitions()

    def _publish_blocking(self, records: Sequence[Outgoing]) -> None:
        """Publish from the code manager's thread."""
        assert self._loop is not None
        try:
            asyncio.run_coroutine_threadsafe(self._context.publish(records), self._loop).result()
        except (CancelledError, RuntimeError) as error:  # the loop ends, and the worker with it
            raise LeadershipLostError from error


def read_items(connection: Connection, topic: str, stopping: Event) -> Iterator[list[Any]]:
    """All records of the topic `items` up to its present end, in lists of one partition. Blocks; ends early when `stopping` is set."""
    with closing(connection.consumer()) as consumer:
        partitions = partitions_of(connection, consumer, topic)
        ends = consumer.end_offsets(partitions) if partitions else {}
        for partition, end in ends.items():
            consumer.assign([partition])
            consumer.seek_to_beginning(partition)
            while consumer.position(partition) < end and not stopping.is_set():
                yield from consumer.poll(timeout_ms=200, max_records=READ_AT_ONCE).values()
