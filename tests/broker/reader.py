"""What the tests of the transport share: a worker inside the test that notes what it was given, and questions to the broker."""

import asyncio
import time
from collections import defaultdict
from contextlib import asynccontextmanager

from kafka.admin import KafkaAdminClient

from stream.kafka.app import make_app
from stream.kafka.producer import Outbound
from stream.workers.agents import POLICY, batch_agent


class Reader:
    """A running app and the lists that its handle was given: (topic, partition), offsets, time stamps, time."""

    def __init__(self, handle=None):
        self.app = None
        self.lists = []
        self.finished = defaultdict(list)  # offsets of the lists whose handle returned, by partition
        self.retries = []
        self._handle = handle

    async def handle(self, batch):
        records = batch.records
        lane = (records[0].topic, records[0].partition)
        offsets = [record.offset for record in records]
        assert all((record.topic, record.partition) == lane for record in records)
        self.lists.append((lane, offsets, [record.timestamp for record in records], time.time()))
        if self._handle is not None:
            await self._handle(records)
        await batch.acknowledge()
        self.finished[lane] += offsets

    def count(self):
        return sum(map(len, self.finished.values()))

    async def until(self, condition, timeout_s=60):
        async with asyncio.timeout(timeout_s):
            while not condition():
                assert not self.app.crashed, self.app.crash_reason
                await asyncio.sleep(0.01)


@asynccontextmanager
async def reading(connection, group, topics, handle=None, *, in_step=False, policy=POLICY, **settings):
    """A worker in this event loop, stopped at the end."""
    reader = Reader(handle)
    app = reader.app = make_app("test", connection, group=group, **{"broker_commit_interval": 0.3, **settings})
    batch_agent(app, topics, reader.handle, in_step=in_step, policy=policy, on_retry=lambda error, tries: reader.retries.append(tries))
    await app.start()
    try:
        yield reader
    finally:
        await app.stop()


def create(connection, topics, partitions=2):
    admin = KafkaAdminClient(**connection.for_kafka_python())
    admin.create_topics({topic: {"num_partitions": partitions, "replication_factor": 1} for topic in topics}, wait_for_metadata=True)
    admin.close()


def committed(connection, group):
    """{(topic, partition): offset} of a consumer group."""
    admin = KafkaAdminClient(**connection.for_kafka_python())
    found = admin.list_group_offsets([group])[group]
    admin.close()
    return {(tp.topic, tp.partition): offset.offset for tp, offset in found.items() if offset.offset >= 0}


async def publish(connection, records):
    """Publish (topic, key, ts) or (topic, key, ts, value)."""
    outbound = Outbound(connection)
    try:
        await outbound.publish([(topic, str(key).encode(), (value or [b"x"])[0], ts, None) for topic, key, ts, *value in records])
    finally:
        await outbound.stop()
