"""Records as other producers write them, compressed and in transactions, through every reader that we have."""

import asyncio
from contextlib import asynccontextmanager, contextmanager
from threading import Event
from time import monotonic

import pytest
from aiokafka import AIOKafkaProducer
from kafka.admin import KafkaAdminClient

from infra.http.server import RecentUsers
from stream.kafka.messages import DeadLetter
from stream.kafka.topic_reader import TopicReader, ranges
from stream.kafka.topics import CANDIDATES, CLICKS, DEAD_LETTERS, ITEM_CODES, ITEMS, prefixed
from stream.pipelines.dead_letters import outgoing, read
from stream.workers.catalogue import read_items
from tests.broker.reader import committed, reading

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]

CODECS = ("gzip", "snappy", "lz4", "zstd")
TOPICS = (CLICKS, ITEMS, ITEM_CODES, CANDIDATES, DEAD_LETTERS)


@asynccontextmanager
async def producer(kafka, **options):
    """A producer of somebody else."""
    client = AIOKafkaProducer(**kafka.for_aiokafka(), **options)
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


async def send(client, prefix, name):
    """One record to each topic that a reader of ours reads; `name` is its key, and the detail of the dead letter."""
    letter = DeadLetter(topic="clicks", partition=0, offset=0, reason="bad_json", detail=name, key=None, value=None, ts=1)
    for spec in TOPICS:
        value = outgoing(letter, prefix).value if spec == DEAD_LETTERS else b"x" * 2000
        await client.send_and_wait(prefixed(prefix, spec), value, name.encode())


def make(kafka, **prefixes):
    """The topics under each prefix, compressed by the broker as named."""
    admin = KafkaAdminClient(**kafka.for_kafka_python())
    wanted = {"num_partitions": 1, "replication_factor": 1}
    topics = {
        prefixed(prefix, spec): wanted | {"configs": {"compression.type": codec}} for prefix, codec in prefixes.items() for spec in TOPICS
    }
    admin.create_topics(topics, wait_for_metadata=True)
    admin.close()


@contextmanager
def tail(kafka, topic):
    """The keys that a tail of the topic has brought."""
    found, stopping = [], Event()
    reader = TopicReader(kafka, topic, lambda records, places: found.extend(record.key.decode() for record in records))
    reader.start()
    try:
        reader.catch_up(stopping, 60)
        yield found
    finally:
        reader.stop()


def by_kafka_python(kafka, prefix):
    """What a tail, the list of dead letters and the catalogue's encoding of everything find."""
    with tail(kafka, prefixed(prefix, ITEM_CODES)) as codes:
        return [
            codes,
            [found.letter.detail for found in read(kafka, prefixed(prefix, DEAD_LETTERS))],
            [r.key.decode() for records in read_items(kafka, prefixed(prefix, ITEMS), Event()) for r in records],
        ]


async def newest(kafka, prefix, name):
    """Send until the list of recent users shows what was sent; gives the list."""
    users = RecentUsers(kafka, prefixed(prefix, CANDIDATES))
    users.start()
    try:
        async with asyncio.timeout(60), producer(kafka) as client:
            while name not in users.newest():
                await client.send_and_wait(prefixed(prefix, CANDIDATES), b"{}", name.encode())
        return users.newest()
    finally:
        await asyncio.to_thread(users.stop)


@pytest.mark.fault(
    "Records compressed with gzip, snappy, lz4 or zstd, by the producer or by the topic's `compression.type`", "Every reader decodes them"
)
def test_every_reader_reads_every_codec(kafka, prefix, group):
    by_producer, by_broker = f"{prefix}producer.", {f"{prefix}{codec}.": codec for codec in CODECS}
    make(kafka, **{by_producer: "producer"}, **by_broker)
    keys = []

    async def note(records):
        keys.extend(record.key.decode() for record in records)

    async def main():
        for codec in CODECS:
            async with producer(kafka, compression_type=codec) as client:
                await send(client, by_producer, codec)
        async with producer(kafka) as client:
            for compressed in by_broker:
                await send(client, compressed, "plain")
        async with reading(kafka, group, [prefixed(each, CLICKS) for each in (by_producer, *by_broker)], note) as reader:
            await reader.until(lambda: len(keys) == 2 * len(CODECS))
        assert await asyncio.gather(*(newest(kafka, each, "plain") for each in by_broker)) == [["plain"]] * len(CODECS)
        return await asyncio.gather(*(asyncio.to_thread(by_kafka_python, kafka, each) for each in (by_producer, *by_broker)))

    assert asyncio.run(main()) == [[list(CODECS)] * 3, *[[["plain"]] * 3] * len(CODECS)]
    assert sorted(keys) == sorted((*CODECS, *["plain"] * len(CODECS)))


@pytest.mark.fault("Events of an aborted transaction", "They never take effect and leave no lag")
def test_aborted_transactions_are_read_by_nobody_and_leave_no_lag(kafka, prefix, group):
    make(kafka, **{prefix: "producer"})
    topic, keys = prefixed(prefix, CLICKS), []

    async def note(records):
        keys.extend(record.key.decode() for record in records)

    async def main():
        async with producer(kafka, transactional_id=group) as client:

            async def transact(name, commits):
                await client.begin_transaction()
                await send(client, prefix, name)
                await (client.commit_transaction() if commits else client.abort_transaction())

            await transact("aborted", False)
            async with reading(kafka, group, [topic], note, check_every_s=0.1) as reader:

                async def idle():
                    """The watchdog knows the end of the log and finds nothing to do, however long it waits."""
                    end = ranges(kafka, topic)[0][1]
                    await reader.until(lambda: reader.app.progress._places[topic, 0].end == end)
                    await reader.until(lambda: reader.app.progress.lag() == {(topic, 0): 0})
                    assert reader.app.progress.stalled(monotonic() + 1000) == []

                await reader.until(lambda: (topic, 0) in reader.app.progress.partitions())
                await idle()  # nothing but an aborted transaction
                await transact("committed", True)
                await transact("aborted", False)
                await reader.until(lambda: keys == ["committed"])
                await idle()  # one at the end of the partition
                await client.begin_transaction()
                await send(client, prefix, "open")
                await idle()  # one that is still open
                assert await asyncio.to_thread(by_kafka_python, kafka, prefix) == [["committed"]] * 3
                await client.commit_transaction()
                await reader.until(lambda: keys == ["committed", "open"])
                await idle()
        assert committed(kafka, group) == {(topic, 0): 7}  # behind the last record; a marker follows

    asyncio.run(main())
