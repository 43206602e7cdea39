"""The catalogue worker: items into vectors, codes and item rows. A new bundle encodes the whole catalogue anew."""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, cast

import msgspec
from kafka import KafkaConsumer, TopicPartition
from msgspec.structs import replace

from infra.clock import wall_ms
from infra.settings import Settings
from infra.wiring import choose_device
from infra.workers.frame import Frame, Steps, count
from models.bundle import load
from models.recommender import Recommender
from stream.catalogue import Catalogue
from stream.dead_letters import outgoing
from stream.messages import DeadLetter, ItemCode
from stream.outbound import Outgoing
from stream.serving import Swapper
from stream.topics import ITEM_CODES, ITEMS

log = logging.getLogger(__name__)

ENCODE_AT_ONCE = 1000


def run(settings: Settings) -> int:
    """Run it until a signal; the exit code."""
    frame = Frame("catalogue", settings, "bundle")
    device = choose_device(settings)
    frame.await_bundle()
    swapper = Swapper(settings.bundle_path, lambda directory: Recommender(load(directory, device), device))
    frame.metrics.bundle(swapper.generation)
    frame.health.set_ready("bundle")
    catalogue = Catalogue(frame.store, lambda: cast(Recommender, swapper.current), wall_ms, settings.time_rules, settings.epoch)
    one_at_a_time = asyncio.Lock()
    looked_at, encoded = 0.0, ""

    async def publish(codes: Sequence[tuple[str, ItemCode | None]], dead: Sequence[DeadLetter] = ()) -> None:
        topic = frame.topic(ITEM_CODES)
        records = [Outgoing(topic, item.encode(), None if code is None else msgspec.json.encode(code)) for item, code in codes]
        await frame.publish(records + [outgoing(letter, settings.topic_prefix) for letter in dead])

    async def handle(records: list[Any]) -> None:
        steps = Steps()
        async with one_at_a_time:
            outcome = await asyncio.to_thread(catalogue.process, records)
            steps.done("encode")
            await publish(outcome.codes, outcome.dead)
        steps.done("publish")
        count(frame.metrics.events, lambda name: {"topic": "items", "outcome": name}, {"applied": outcome.counts["applied"]})
        count(frame.metrics.dead_letters, lambda name: {"reason": name}, Counter(letter.reason for letter in outcome.dead))
        frame.metrics.batch("catalogue", len(records), steps.seconds)

    async def follow_bundle() -> None:
        """Under a new generation every item is encoded again, from the compacted topic; so too when the worker starts."""
        nonlocal looked_at, encoded
        now = asyncio.get_running_loop().time()
        if now - looked_at >= settings.bundle_poll_s:
            looked_at = now
            if await asyncio.to_thread(swapper.look):
                frame.metrics.bundle(swapper.generation)
        if encoded != swapper.generation:
            generation = swapper.generation
            batches = _catalogue(frame)
            while (records := await asyncio.to_thread(next, batches, None)) is not None:
                async with one_at_a_time:
                    outcome = await asyncio.to_thread(catalogue.process, records)
                    await publish([(item, code and replace(code, sent_ms=0)) for item, code in outcome.codes])
            encoded = generation
            log.info("the catalogue is encoded under bundle %s", generation)

    frame.read([ITEMS], handle, in_step=False)
    frame.every_tick(follow_bundle)
    return frame.run()


def _catalogue(frame: Frame) -> Iterator[list[Any]]:
    """All records of topic `items` up to its end now, in lists of one partition."""
    options = {**frame.connection.for_kafka_python(), "enable_auto_commit": False, "auto_offset_reset": "earliest"}
    with closing(KafkaConsumer(**options)) as consumer:
        numbers = consumer.partitions_for_topic(frame.topic(ITEMS)) or set()
        partitions = [TopicPartition(frame.topic(ITEMS), number) for number in sorted(numbers)]
        ends = consumer.end_offsets(partitions) if partitions else {}
        for partition, end in ends.items():
            consumer.assign([partition])
            consumer.seek_to_beginning(partition)
            while consumer.position(partition) < end and not frame.stopping.is_set():
                yield from consumer.poll(timeout_ms=200, max_records=ENCODE_AT_ONCE).values()
