"""The promise, on real Kafka: every event takes effect on the features exactly once, whatever worker dies and when."""

import asyncio
import random
import threading
import time

import pytest

from features.store.opening import open_store
from infra.local.embedded import free_port
from infra.shop import Shop
from stream.kafka.admin import create_topics
from stream.kafka.producer import Outbound
from stream.pipelines.replay import record
from tests.broker.system import Worker, differing, ends, lag, ready, valkey, wait_for

KILLS = 10
RATE = 400  # events a second
LATER = 50  # each event comes again so many events later, as from a producer that sent it twice
DAY_MS = 86_400_000


class Publisher(threading.Thread):
    """Publishes events at a steady rate until it is told to stop; keeps what the broker confirmed."""

    def __init__(self, connection, prefix, events):
        super().__init__(daemon=True)
        self._connection, self._prefix, self._events = connection, prefix, events
        self.stopping = threading.Event()
        self.sent = []
        self.failure = None

    def run(self):
        try:
            asyncio.run(self._publish())
        except Exception as error:
            self.failure = error

    async def _publish(self):
        outbound = Outbound(self._connection)
        batch = RATE // 20
        try:
            for at in range(0, len(self._events), batch):
                if self.stopping.is_set():
                    return
                began = time.monotonic()
                part = self._events[at : at + batch]
                await outbound.publish([record(event, time.time_ns() // 1_000_000, self._prefix) for event in part])
                self.sent += part
                await asyncio.sleep(max(0.0, 0.05 - (time.monotonic() - began)))
        finally:
            await outbound.stop()


@pytest.mark.broker
@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_ten_kills_of_a_worker_under_a_live_stream_lose_nothing_and_count_nothing_twice(kafka, prefix, tmp_path, record_property):
    chance = random.Random(7)
    create_topics(kafka, prefix, partitions=4, replication=1)
    now = time.time_ns() // 1_000_000
    events = Shop(seed=5, users=900, items=500, categories=12).history(now - 30 * DAY_MS, now)
    group = f"{prefix}everlong-ingest"
    ports = [free_port(), free_port()]
    with valkey(tmp_path) as url:
        settings = {"kafka_bootstrap": kafka.bootstrap, "store_url": url, "topic_prefix": prefix}
        settings |= {"session_timeout_s": 6, "heartbeat_s": 1.5}
        workers = [Worker("ingest", tmp_path, f"worker-{n}", **settings, metrics_port=port).start() for n, port in enumerate(ports)]
        publisher = Publisher(kafka, prefix, [again for n, event in enumerate(events) for again in (event, events[max(0, n - LATER)])])
        try:
            wait_for(lambda: all(ready(port) for port in ports), 90, "both workers", workers[0].log)
            publisher.start()
            take_over_s = []
            for _ in range(KILLS):
                time.sleep(chance.uniform(0.5, 3.0))
                assert publisher.is_alive(), publisher.failure or "the stream ended before the last kill: raise its length"
                victim = chance.randrange(2)
                workers[victim].kill()
                upto = ends(kafka, prefix)
                take_over_s.append(wait_for(lambda upto=upto: lag(kafka, group, upto) == 0, 60, "the take-over", workers[1 - victim].log))
                workers[victim].start()
                wait_for(lambda port=ports[victim]: ready(port), 60, "the restarted worker", workers[victim].log)
            publisher.stopping.set()
            publisher.join(timeout=120)
            assert publisher.failure is None
            upto = ends(kafka, prefix)
            assert sum(upto.values()) == len(publisher.sent)
            wait_for(lambda: lag(kafka, group, upto) == 0, 90, "the end of the log", workers[0].log)
            assert [worker.stop() for worker in workers] == [0, 0]
        finally:
            publisher.stopping.set()
            for worker in workers:
                worker.end()
        rows, wrong = differing(open_store(url), publisher.sent)
        record_property("take_over_s", sorted(round(seconds, 1) for seconds in take_over_s))
        print(f"{KILLS} kills, {len(publisher.sent)} events, {rows} rows; take-over {sorted(round(s, 1) for s in take_over_s)} s")
        assert wrong == []
        assert rows > 1000
