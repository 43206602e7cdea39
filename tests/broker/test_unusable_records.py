"""Records that cannot be used, on real Kafka: the worker goes on, and what can be sent again is not lost."""

import asyncio
from contextlib import closing

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic

from features.events import Click, Order, OrderLine, encode
from features.store import Key
from features.store.layout import HASH_FIELDS
from infra.clock import wall_ms
from stream.kafka.messages import MOST_CATEGORIES, RefreshRequest, decode
from stream.kafka.producer import Outbound, Outgoing
from stream.kafka.topics import CLICKS, DEAD_LETTERS, ORDERS, REFRESH, partition_of, prefixed
from stream.pipelines.dead_letters import LetterFilter, read, replay
from stream.pipelines.replay import record
from tests.broker.system import differing, running, wait_for

PARTITIONS = 4

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]


def test_large_records_null_headers_and_wrong_partitions_end_no_worker(kafka, prefix, tmp_path):
    now = wall_ms()
    events = [Click(event_id=f"e{n}", user_id=f"u{n % 10}", item_id=f"i{n}", category_id="c", ts=now - 1000 + n) for n in range(200)]
    sent = [record(event, now, prefix) for event in events]
    sent[:50] = [one._replace(headers=[("sent_ms", None)]) for one in sent[:50]]
    sent[100:] = [one._replace(partition=(partition_of(one.key, PARTITIONS) + 1) % PARTITIONS) for one in sent[100:]]
    clicks, letters = prefixed(prefix, CLICKS), prefixed(prefix, DEAD_LETTERS)
    sent += [Outgoing(clicks, b"u1", b"x" * 1_000_000), Outgoing(clicks, b"k" * 500_000, b"x" * 500_000)]

    def dead(reason):
        return [found.letter for found in read(kafka, letters, LetterFilter(reason=reason))]

    def applied(count):
        return lambda: system.samples().total("everlong_events_total", topic="clicks", outcome="applied") >= count

    with running(kafka, prefix, tmp_path, "ingest") as system:
        system.send_by(lambda publish: publish(sent))
        wait_for(lambda: len(dead("oversized")) == 2 and len(dead("wrong_partition")) == 100, 60, "the dead letters", system.logs)
        assert all(letter.cut_bytes for letter in dead("oversized"))
        wait_for(applied(100), 60, "the events that can be used", system.logs)
        assert replay(kafka, dead("wrong_partition"), wall_ms()) == 100
        wait_for(applied(200), 60, "the events that were sent again", system.logs)
        assert differing(system.store, events) == (20, [])
        assert len(dead("wrong_partition")) == 100


def received(kafka, topic):
    """The values that a topic holds now, in the order of each partition."""
    values = []
    with closing(kafka.consumer()) as consumer:
        places = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic))]
        ends = consumer.end_offsets(places)
        consumer.assign(places)
        consumer.seek_to_beginning(*places)
        while any(consumer.position(place) < ends[place] for place in places):
            values += [record.value for found in consumer.poll(timeout_ms=200).values() for record in found]
    return values


@pytest.mark.fault(
    "A gzip batch of 40 orders with 500 lines each from one user",
    "Refresh requests are split into messages of bounded size, and other users are not blocked",
)
@pytest.mark.fault(
    "A row in Valkey overwritten with 200 random bytes",
    "Workers keep running, and the user's next event restores the row to the value computed offline",
)
def test_a_large_batch_of_one_user_and_a_damaged_row_stop_nobody(kafka, prefix, tmp_path):
    now = wall_ms()
    lines = [[OrderLine(item_id="i", category_id=f"category-{n * 500 + m:060d}") for m in range(500)] for n in range(40)]
    orders = [Order(event_id=f"o{n}", order_id="o", user_id="u1", ts=now - 9000 + n, lines=found) for n, found in enumerate(lines)]
    users = [user for user in (f"v{n}" for n in range(100)) if partition_of(user.encode(), PARTITIONS) == partition_of(b"u1", PARTITIONS)]
    behind = [Order(event_id=user, order_id="o", user_id=user, ts=now, lines=lines[0][:1]) for user in users]
    clicks = [Click(event_id=f"c{n}-{user}", user_id=user, item_id="i", category_id="c", ts=now) for n in range(2) for user in users]
    with running(kafka, prefix, tmp_path, "ingest", cached_events=1) as system:

        def applied(topic, count):
            return lambda: system.samples().total("everlong_events_total", topic=topic, outcome="applied") >= count

        with closing(KafkaProducer(**kafka.for_kafka_python(), compression_type="gzip", batch_size=1 << 22, linger_ms=2000)) as producer:
            for order in orders + behind:
                producer.send(prefixed(prefix, ORDERS), encode(order), key=order.user_id.encode(), timestamp_ms=order.ts)
        wait_for(applied("orders", len(orders + behind)), 90, "the orders", system.logs)
        requests = [decode(RefreshRequest, value) for value in received(kafka, prefixed(prefix, REFRESH))]
        assert {request.user_id for request in requests} == {"u1", *users}
        assert max(len(request.categories) for request in requests) == MOST_CATEGORIES
        assert len({category for request in requests for category in request.categories}) == 20_000
        damaged = [(Key("user", (user,)), "packed") for user in users[:2]]  # of two: the cache may hold one of them, which is then not read
        damaged.append((Key("user_category", ("u1", lines[7][7].category_id)), "applied"))
        for row, part in damaged:
            system.store._client.hset(system.store._hash(row), getattr(HASH_FIELDS[row.view], part), b"\xff" * 200)
        again = [Click(event_id="again", user_id="u1", item_id="i", category_id=lines[7][7].category_id, ts=now)]
        system.send(clicks + again)
        wait_for(applied("clicks", len(clicks + again)), 60, "the clicks", system.logs)
        assert differing(system.store, [*orders, *behind, *clicks, *again])[1] == []
        apart = system.store.quarantined()
        assert {(row.view, row.rebuilt) for row in apart} == {("user", "complete"), ("user_category", "complete")}
        assert system.samples().total("everlong_rows_quarantined_total") == len(apart)


@pytest.mark.fault(
    "A record that the broker rejects as too large",
    "Only this record is dropped, counted and logged; the other records of the batch are delivered",
)
def test_only_what_is_too_large_for_the_broker_is_left_out(kafka, prefix):
    topic = prefix + "small"
    with closing(KafkaAdminClient(**kafka.for_kafka_python())) as admin:
        admin.create_topics([NewTopic(topic, 1, 1, topic_configs={"max.message.bytes": "2000"})])
    small = [Outgoing(topic, b"k", b"%03d" % n + b"x" * 100) for n in range(60)]
    large = [Outgoing(topic, b"k", b"y" * 5000), Outgoing(topic, b"k", b"z" * (2 << 20))]

    async def main():
        outbound = Outbound(kafka)
        try:
            left_out = await outbound.deliver([*small[:30], large[0], *small[30:], large[1]])
            await outbound.publish([Outgoing(topic, b"k", b"last")])
            return left_out
        finally:
            await outbound.stop()

    left_out = asyncio.run(main())
    assert {unsendable.record for unsendable in left_out} == set(large)
    values = received(kafka, topic)
    assert set(values) == {record.value for record in small} | {b"last"}
    assert values[-1] == b"last"
