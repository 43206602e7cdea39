"""The batch transport on a real Kafka: order, offsets, commits, gaps, rebalances, failures, in step."""

import asyncio
import time
from itertools import pairwise

import pytest
from aiokafka import AIOKafkaProducer

from features.errors import StoreUnavailableError
from features.retries import RetryPolicy
from stream.errors import PublishError, StalledError
from stream.kafka.messages import sent_header, sent_ms
from stream.kafka.producer import Outbound
from stream.kafka.timestamp_merge import MergeLimits
from tests.broker.reader import committed, create, publish, reading

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]

NOW = int(time.time() * 1000)
NEVER_S = 600.0  # longer than any test waits: what waits for this fails


def topics_of(prefix):
    return [prefix + name for name in ("clicks", "queries", "orders")]


def test_each_record_once_in_order_and_resume_where_it_ended(kafka, prefix, group):
    topics = topics_of(prefix)
    create(kafka, topics)

    async def main():
        await publish(kafka, [(topic, key, NOW + key) for key in range(5000) for topic in topics])
        async with reading(kafka, group, topics, in_step=True) as first:
            await first.until(lambda: first.count() == 15_000)
        assert len(first.finished) == 6
        for offsets in first.finished.values():
            assert offsets == list(range(len(offsets)))
        assert len(first.lists) < 100  # lists, not records
        ends = {lane: len(offsets) for lane, offsets in first.finished.items()}
        assert committed(kafka, group) == ends

        await publish(kafka, [(topic, key, NOW + key) for key in range(10) for topic in topics])
        async with reading(kafka, group, topics, in_step=True) as second:
            await second.until(lambda: second.count() == 30)
            await asyncio.sleep(0.3)
        for lane, offsets in second.finished.items():
            assert offsets == list(range(ends[lane], ends[lane] + len(offsets)))
        assert second.count() == 30

    asyncio.run(main())


def test_gaps_of_transactions_are_passed_and_leave_no_lag(kafka, prefix, group):
    topic = prefix + "gaps"
    create(kafka, [topic], partitions=1)

    async def main():
        producer = AIOKafkaProducer(**kafka.for_aiokafka(), transactional_id=group)
        await producer.start()
        for number in range(5):
            async with producer.transaction():
                await asyncio.gather(*[await producer.send(topic, b"x") for _ in range(3 + number)])
        await producer.stop()
        async with reading(kafka, group, [topic], check_every_s=0.2) as reader:
            await reader.until(lambda: reader.count() == 25)
            given = reader.finished[topic, 0]
            assert any(later - earlier > 1 for earlier, later in pairwise(given))
            await reader.until(lambda: reader.app.progress.lag() == {(topic, 0): 0})
        assert committed(kafka, group) == {(topic, 0): given[-1] + 1}

    asyncio.run(main())


def test_topics_of_a_partition_come_in_step_after_a_backlog(kafka, prefix, group):
    topics = topics_of(prefix)[:2]
    create(kafka, topics, partitions=1)

    async def main():
        day = 86_400_000
        start = NOW - 3 * day
        await publish(kafka, [(topics[0], key, start + key * 2 * day // 40_000, b"x" * 300) for key in range(40_000)])
        await publish(kafka, [(topics[1], key, start + key * 2 * day // 2_000, b"x" * 300) for key in range(2_000)])
        async with reading(kafka, group, topics, in_step=True) as reader:
            await reader.until(lambda: reader.count() == 42_000)
        at, worst = dict.fromkeys(topics, start), 0
        for (topic, _), _, stamps, _ in reader.lists:
            at[topic] = stamps[-1]
            worst = max(worst, abs(at[topics[0]] - at[topics[1]]))
        assert worst < 0.3 * day  # 250 queries are 0.25 days

    asyncio.run(main())


def test_live_records_are_not_held_back(kafka, prefix, group):
    topics = topics_of(prefix)
    create(kafka, topics)

    async def main():
        outbound = Outbound(kafka)
        async with reading(kafka, group, topics, in_step=True, limits=MergeLimits(grace_s=NEVER_S)) as reader:
            await outbound.publish([(topic, b"warm", b"x", None, None) for topic in topics])
            await reader.until(lambda: reader.count() == 3)
            for number in range(40):
                await outbound.publish([(topics[number % 3], str(number).encode(), b"x", None, [sent_header()])])
                await reader.until(lambda number=number: reader.count() == 4 + number)
        await outbound.stop()

    asyncio.run(main())


def test_a_rebalance_waits_for_the_list_in_hand(kafka, prefix, group):
    topics = topics_of(prefix)
    create(kafka, topics, partitions=4)

    async def slowly(records):
        await asyncio.sleep(0.5)

    async def main():
        await publish(kafka, [(topic, key, NOW) for key in range(400) for topic in topics])
        async with reading(kafka, group, topics, slowly, in_step=True) as first:
            await first.until(lambda: len(first.lists) == 2)
            async with reading(kafka, group, topics, slowly, in_step=True) as second:
                await second.until(lambda: first.count() + second.count() >= 1200)
                mine, theirs = ({(tp.topic, tp.partition) for tp in each.app.consumer.assignment()} for each in (first, second))
        assert len(mine) == len(theirs) == 6
        assert {partition for _, partition in mine}.isdisjoint(partition for _, partition in theirs)  # co-partitioned
        ends = committed(kafka, group)
        done = {lane: sorted(first.finished[lane] + second.finished[lane]) for lane in ends}
        assert done == {lane: list(range(end)) for lane, end in ends.items()}  # nothing lost, nothing twice
        assert sum(ends.values()) == 1200

    asyncio.run(main())


def test_an_ack_that_comes_after_the_rebalance_commits_nothing(kafka, prefix, group):
    topic = prefix + "late"
    create(kafka, [topic], partitions=2)
    gate = asyncio.Event()

    async def hold(records):
        await gate.wait()

    async def main():
        await publish(kafka, [(topic, key, NOW) for key in range(100)])
        async with reading(kafka, group, [topic], hold) as first:
            first.app.consumer.drain_timeout_s = 0.5
            await first.until(lambda: len(first.lists) == 1)
            async with reading(kafka, group, [topic], hold) as second:
                await second.until(lambda: len(second.lists) == 1 and len(first.app.consumer.assignment()) == 1)
                (held, *_), (theirs, *_) = first.lists[0], second.lists[0]
                second_app, second_hold = second.app, second
                assert committed(kafka, group) == {}
                gate.set()
                await second.until(lambda: first.count() + second.count() >= 100 + len(first.finished[held]) * (held == theirs))
                await second.until(lambda: sum(committed(kafka, group).values()) == 100)
        assert second_app is not None
        for lane, end in committed(kafka, group).items():
            assert set(first.finished[lane] + second_hold.finished[lane]) == set(range(end))

    asyncio.run(main())


def test_an_outage_is_waited_for_in_place_without_a_commit(kafka, prefix, group):
    topic = prefix + "outage"
    create(kafka, [topic], partitions=1)
    failures = [StoreUnavailableError("a test"), PublishError("a test", 0.0), StoreUnavailableError("a test")]
    seen = []

    async def fail_at_first(records):
        seen.append((records[0].offset, committed(kafka, group)))
        if failures:
            raise failures.pop()

    async def main():
        await publish(kafka, [(topic, key, NOW) for key in range(100)])
        async with reading(kafka, group, [topic], fail_at_first, policy=RetryPolicy(first_s=0.4)) as reader:
            await reader.until(lambda: reader.count() == 100)
        assert reader.retries == [1, 2, 3]
        assert [offset for offset, _ in seen[:4]] == [0] * 4
        assert all(not found for _, found in seen[:4])
        assert reader.finished[topic, 0] == list(range(100))
        assert committed(kafka, group) == {(topic, 0): 100}

    asyncio.run(main())


def test_a_rebalance_during_an_outage_does_not_wait(kafka, prefix, group):
    topic = prefix + "outage"
    create(kafka, [topic], partitions=2)
    down = [True]

    async def fail(records):
        if down[0]:
            raise StoreUnavailableError("a test")

    async def main():
        await publish(kafka, [(topic, key, NOW) for key in range(100)])
        async with reading(kafka, group, [topic], fail) as first:
            await first.until(lambda: len(first.retries) > 2)
            first.app.consumer.drain_timeout_s = NEVER_S
            async with reading(kafka, group, [topic], fail) as second:
                await second.until(lambda: second.retries)
                down[0] = False
                await second.until(lambda: first.count() + second.count() == 100)
        assert sum(committed(kafka, group).values()) == 100

    asyncio.run(main())


def test_a_consumer_that_dies_silently_is_noticed(kafka, prefix, group):
    topic = prefix + "silent"
    create(kafka, [topic], partitions=1)

    async def main():
        await publish(kafka, [(topic, 1, NOW)])
        async with reading(kafka, group, [topic], stall_after_s=1.5, check_every_s=0.2) as reader:
            await reader.until(lambda: reader.count() == 1)
            await asyncio.sleep(2)
            assert reader.app.progress.stalled(time.monotonic()) == []
            thread = reader.app.consumer._thread
            thread.thread_loop.call_soon_threadsafe(thread._consumer._fetcher._fetch_task.cancel)
            for number in (2, 3, 4):  # a fetch under way may still bring the first of them
                await publish(kafka, [(topic, number, NOW)])
            async with asyncio.timeout(60):
                while not reader.app.crashed:
                    await asyncio.sleep(0.05)
            assert isinstance(reader.app.crash_reason, StalledError)
            assert reader.count() < 4

    asyncio.run(main())


def test_records_keep_time_stamp_and_headers(kafka, prefix, group):
    topic = prefix + "headers"
    create(kafka, [topic], partitions=1)
    found = []

    async def keep(records):
        found.extend(records)

    async def main():
        outbound = Outbound(kafka)
        await outbound.publish([(topic, b"k", b"v", 1234 + NOW, [sent_header(777)]), (topic, b"k", None, None, None)])
        await outbound.stop()
        async with reading(kafka, group, [topic], keep) as reader:
            await reader.until(lambda: reader.count() == 2)

    asyncio.run(main())
    assert (found[0].key, found[0].value, found[0].timestamp) == (b"k", b"v", 1234 + NOW)
    assert sent_ms(found[0].headers, 5) == 777
    assert (found[1].value, sent_ms(found[1].headers, 5)) == (None, 5)


def test_a_producer_whose_sender_fails_leaves_no_error_in_the_loop(kafka, prefix):
    async def main():
        outbound = Outbound(kafka)
        await outbound.start()
        sender = outbound._producer._sender
        sender._sender_task.cancel()
        failed = asyncio.get_running_loop().create_future()
        failed.set_exception(KeyError("a batch that failed while it was sent"))
        sender._fail_all(failed)
        await outbound.stop()

    asyncio.run(main())
