"""Detects a consumer that died without an exception, by asking the broker, over its own connection, what there is to read."""

import asyncio
import logging
from time import monotonic

import faust
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from stream.errors import StalledError
from stream.kafka.connection import Connection
from stream.kafka.progress import Progress
from stream.kafka.transport import Consumer

log = logging.getLogger(__name__)


async def watch(app: faust.App, progress: Progress, connection: Connection, check_every_s: float) -> None:
    """Update `progress` with the ends of the log until the app stops; crash the app when partitions are stalled.

    A log ends where its oldest open transaction begins. An outage of the broker is not counted as a stall of the consumer.
    """
    probe: AIOKafkaConsumer | None = None
    try:
        while not app.should_stop:
            await app.sleep(check_every_s)
            try:
                probe = probe or await _connect(connection)
                await _observe(app, progress, probe)
            except (KafkaError, TimeoutError, OSError) as error:
                log.warning("the watchdog could not ask the broker: %r", error)
                progress.alive(monotonic())
            if not app.should_stop and (stalled := progress.stalled(monotonic())):
                await app.crash(StalledError(f"{topic}/{number}" for topic, number in stalled))
                return
    finally:
        if probe is not None:
            await probe.stop()


async def _connect(connection: Connection) -> AIOKafkaConsumer:
    probe = connection.async_consumer(request_timeout_ms=5_000)
    try:
        await probe.start()
    except BaseException:
        await probe.stop()
        raise
    return probe


async def _observe(app: faust.App, progress: Progress, probe: AIOKafkaConsumer) -> None:
    if not (partitions := progress.partitions()):
        return
    # The client's offsets are read first, so that records written in between do not count before the next look.
    consumer: Consumer = app.consumer  # type: ignore[assignment]
    fetched = {partition: consumer.fetched(partition) for partition in partitions}
    ends = await asyncio.wait_for(probe.end_offsets([TopicPartition(*partition) for partition in partitions]), timeout=10)
    starts = await asyncio.wait_for(probe.beginning_offsets([TopicPartition(*partition) for partition in partitions]), timeout=10)
    now = monotonic()
    for tp, end in ends.items():
        partition = (tp.topic, tp.partition)
        committed = max(consumer.committed(partition) or 0, starts[tp])
        progress.observed(partition, end=end, fetched=fetched[partition], committed=committed, now=now)
