"""The catalogue worker: items into vectors, codes and item rows. A new bundle encodes the whole catalogue anew. One keeps the codes."""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, cast

import msgspec
from msgspec.structs import replace

from features.events import Item, encode, key_of
from infra.clock import wall_ms
from infra.metrics import CatalogueMetrics
from infra.settings import Settings
from infra.wiring import choose_device
from models.bundle import load
from models.serving.recommender import Recommender
from stream.codes.codebook_reader import Codebooks
from stream.kafka.access import partitions_of
from stream.kafka.headers import AGAIN_HEADER
from stream.kafka.messages import DeadLetter, ItemCode
from stream.kafka.producer import Outgoing
from stream.kafka.skips import Skips
from stream.kafka.topics import CODEBOOKS, ITEM_CODES, ITEMS
from stream.pipelines.catalogue import Catalogue
from stream.pipelines.dead_letters import outgoing
from stream.pipelines.steps import Steps
from stream.serving.swapper import Swapper
from stream.workers.code_management import CodesKeeper
from stream.workers.context import Frame, count

log = logging.getLogger(__name__)

ENCODE_AT_ONCE = 1000


def run(settings: Settings) -> int:
    """Run it until a signal; the exit code."""
    return CatalogueWorker(Frame(CatalogueMetrics(), settings, "bundle")).run()


class CatalogueWorker:
    """Applies lists of items, and all of them again under a new bundle."""

    def __init__(self, frame: Frame[CatalogueMetrics]) -> None:
        self._frame, self._settings = frame, frame.settings
        device = choose_device(frame.settings)
        path = frame.settings.bundle_path
        self._swapper = frame.open_bundle(lambda: Swapper(path, lambda directory: Recommender(load(directory, device), device)))
        frame.metrics.bundle(self._swapper.generation)
        frame.health.set_ready("bundle")
        self._codebooks = Codebooks(frame.connection, frame.topic(CODEBOOKS), Skips(frame.metrics.skipped))
        self._codebooks.start(frame.stopping)
        book = self._codebooks.book
        self._keeper = CodesKeeper(frame, book, lambda: self._recommender().bundle)
        self._catalogue = Catalogue(
            frame.store,
            self._recommender,
            wall_ms,
            frame.settings.time_rules,
            frame.settings.epoch,
            codebook=book.used,
            partitions=frame.partitions(ITEMS),
        )
        self._one_at_a_time = asyncio.Lock()
        self._looked_at, self._encoded = 0.0, ""

    def run(self) -> int:
        """Run it until a signal; the exit code."""
        self._frame.read([ITEMS], self._handle, in_step=False)
        self._frame.every_tick(self._follow_bundle)
        self._frame.every_tick(self._keeper.follow)
        try:
            return self._frame.run()
        finally:
            self._keeper.stop()
            self._codebooks.stop()

    def _recommender(self) -> Recommender:
        return cast(Recommender, self._swapper.current)

    async def _publish(self, codes: Sequence[tuple[str, ItemCode | None]], again: Sequence[Item], dead: Sequence[DeadLetter] = ()) -> None:
        topic, items = self._frame.topic(ITEM_CODES), self._frame.topic(ITEMS)
        records = [Outgoing(topic, item.encode(), None if code is None else msgspec.json.encode(code)) for item, code in codes]
        records += [Outgoing(items, key_of(item), encode(item), item.ts, [AGAIN_HEADER]) for item in again]
        await self._frame.publish(records + [outgoing(letter, self._settings.topic_prefix) for letter in dead])

    async def _handle(self, records: list[Any], steps: Steps) -> None:
        metrics = self._frame.metrics
        async with self._one_at_a_time:
            outcome = await asyncio.to_thread(self._catalogue.process, records, steps)
            with steps("publish"):
                await self._publish(outcome.codes, outcome.again, outcome.dead)
        count(metrics.events, lambda name: {"topic": "items", "outcome": name}, {"applied": outcome.counts["applied"]})
        metrics.items_outdated.inc(outcome.outdated)
        count(metrics.embeddings_ignored, lambda name: {"modality": name}, outcome.ignored)
        count(metrics.dead_letters, lambda name: {"reason": name}, Counter(letter.reason for letter in outcome.dead))

    async def _follow_bundle(self, steps: Steps) -> None:
        """Under a new generation every item is encoded again, from the compacted topic; so too when the worker starts."""
        if self._codebooks.failure is not None:
            raise self._codebooks.failure
        now = asyncio.get_running_loop().time()
        if now - self._looked_at >= self._settings.bundle_poll_s:
            self._looked_at = now
            if await asyncio.to_thread(self._swapper.look):
                self._frame.metrics.bundle(self._swapper.generation)
            self._frame.health.warn("bundle", self._swapper.problem)
        if self._encoded != self._swapper.generation:
            generation = self._swapper.generation
            batches = self._all()
            while (records := await asyncio.to_thread(next, batches, None)) is not None:
                async with self._one_at_a_time:
                    outcome = await asyncio.to_thread(self._catalogue.process, records, steps)
                    with steps("publish"):
                        await self._publish([(item, code and replace(code, sent_ms=0)) for item, code in outcome.codes], outcome.again)
            self._encoded = generation
            log.info("the catalogue is encoded under bundle %s", generation)

    def _all(self) -> Iterator[list[Any]]:
        """All records of topic `items` up to its end now, in lists of one partition."""
        frame = self._frame
        with closing(frame.connection.consumer()) as consumer:
            partitions = partitions_of(frame.connection, consumer, frame.topic(ITEMS))
            ends = consumer.end_offsets(partitions) if partitions else {}
            for partition, end in ends.items():
                consumer.assign([partition])
                consumer.seek_to_beginning(partition)
                while consumer.position(partition) < end and not frame.stopping.is_set():
                    yield from consumer.poll(timeout_ms=200, max_records=ENCODE_AT_ONCE).values()
