"""The ceiling: an aiokafka consumer that reads the records, and redis-py pipelines that HSET the bytes our worker writes.

The rows of every batch were computed before (`prepare`), with our merge and the batches that our worker makes of a backlog.
So it decodes nothing, merges nothing, compares no version and publishes nothing: reading and storing alone.
"""

import argparse
import asyncio
import time
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from pathlib import Path

import msgspec
import redis
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from bench.parts import Way, report
from features.events import Topic
from features.store import Key, Stored
from features.store.layout import HASH_FIELDS, bytes_value, entity_key, position_value, timestamp
from features.store.memory import MemoryStore
from infra.clock import wall_ms
from stream.kafka.timestamp_merge import TimestampMerge
from stream.kafka.topics import BEHAVIOUR
from stream.pipelines.ingest import Ingest

COMMIT_S = 2.8
NAMES = [spec.name for spec in BEHAVIOUR]


class Batch(msgspec.Struct, array_like=True):
    """A list of records by its last offset, and the hashes that it makes: key, then (field, value) three times."""

    topic: str
    partition: int
    last_offset: int
    records: int
    hashes: list[tuple[bytes, list[bytes]]]


class _Recorder(MemoryStore):
    """Keeps the batch that was written last."""

    def write(self, rows: Sequence[tuple[Key, Stored]]) -> list[bool]:
        self.written = list(rows)
        return super().write(rows)


async def prepare(bootstrap: str, partitions: int) -> list[Batch]:
    """Read the whole log and compute what each batch writes."""
    places = [TopicPartition(name, n) for name in NAMES for n in range(partitions)]
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    lanes: dict[tuple[str, int], list[ConsumerRecord]] = defaultdict(list)
    try:
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        while sum(map(len, lanes.values())) < sum(ends.values()):
            for place, records in (await consumer.getmany(timeout_ms=1000)).items():
                lanes[place.topic, place.partition] += records
    finally:
        await consumer.stop()
    store = _Recorder()
    ingest, batches = Ingest(store, wall_ms, partitions=partitions), []
    for (topic, partition), records in _pieces(lanes):
        ingest.process(Topic(topic), records)
        hashes = [(entity_key(key.view, key.entities) + b"everlong", _mapping(key, row)) for key, row in store.written]
        batches.append(Batch(topic, partition, records[-1].offset, len(records), hashes))
    return batches


def _pieces(lanes: dict[tuple[str, int], list[ConsumerRecord]]) -> list[tuple[tuple[str, int], list[ConsumerRecord]]]:
    """The lists that the worker makes of a whole backlog."""
    step = TimestampMerge(NAMES, lambda lane: True)
    for lane, records in lanes.items():
        step.add(lane, records)
    pieces = []
    while (piece := step.take(0.0)) is not None:
        pieces.append(piece)
    return pieces


def _mapping(key: Key, row: Stored) -> list[bytes]:
    fields = HASH_FIELDS[key.view]
    return [fields.applied, position_value(row.log_position), fields.packed, bytes_value(row.packed), fields.ts, timestamp(row.ts_ms)]


async def run(options: argparse.Namespace) -> Way:
    """Read and store all batches."""
    batches = msgspec.msgpack.decode(options.batches.read_bytes(), type=list[Batch])
    waiting: dict[tuple[str, int], deque[Batch]] = defaultdict(deque)
    for batch in batches:
        waiting[batch.topic, batch.partition].append(batch)
    client = redis.Redis.from_url(options.store)
    client.ping()
    consumer = AIOKafkaConsumer(
        *NAMES,
        bootstrap_servers=options.bootstrap,
        group_id=options.group,
        auto_offset_reset="earliest",
        auto_commit_interval_ms=int(COMMIT_S * 1000),
    )
    await consumer.start()
    done: Counter[str] = Counter()
    began, cpu_began, first = 0.0, 0.0, 0
    try:
        while done["batches"] < len(batches):
            for place, records in (await consumer.getmany(timeout_ms=1000)).items():
                queue = waiting[place.topic, place.partition]
                while queue and queue[0].last_offset <= records[-1].offset:
                    batch = queue.popleft()
                    await asyncio.to_thread(_store, client, batch)
                    done.update(batches=1, rows=len(batch.hashes), events=batch.records)
                    if not began:
                        began, cpu_began, first = time.monotonic(), time.process_time(), batch.records
        seconds, cpu_s = time.monotonic() - began, time.process_time() - cpu_began
        return Way(events=done["events"] - first, seconds=seconds, cpu_s=cpu_s, rows=done["rows"])
    finally:
        await consumer.stop()
        client.close()


def _store(client: redis.Redis, batch: Batch) -> None:
    pipe = client.pipeline(transaction=False)
    for key, mapping in batch.hashes:
        pipe.execute_command("HSET", key, *mapping)
    pipe.execute()


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("bootstrap", "store", "group"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--batches", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    report(options.out, asyncio.run(run(options)))


if __name__ == "__main__":
    main()
