"""Replay of files to a broker: order, counts, time stamps, pace. The broker is a list."""

import asyncio
import time
from pathlib import Path

import pytest

from features import sources
from features.events import Click, Event, Item, Order, OrderLine, Query, Topic, encode
from stream.pipelines.replay import Record, replay


def _events() -> list[Event]:
    return [
        Item(item_id="i1", category_id="c1", title="red shoe", ts=1_000),
        Query(event_id="q", user_id="u", query_id="q", text="shoe", ts=1_000),
        Click(event_id="a", user_id="u", item_id="i1", category_id="c1", ts=1_100, query_id="q"),
        Click(event_id="b", user_id="u", item_id="i2", category_id="c1", ts=1_200, kind="cart"),
        Order(event_id="o", order_id="o", user_id="u", ts=1_300, lines=[OrderLine(item_id="i3", category_id="c2")]),
    ]


class _Broker:
    def __init__(self) -> None:
        self.records: list[Record] = []
        self.published_s: list[float] = []  # monotonic, of each record

    async def publish(self, records: list[Record]) -> None:
        self.records += records
        self.published_s += [time.monotonic()] * len(records)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    sources.write(tmp_path / "events.jsonl", reversed(_events()))
    return tmp_path / "events.jsonl"


def test_every_event_goes_to_its_topic_in_order_of_time_items_first(file: Path) -> None:
    broker = _Broker()
    sent = asyncio.run(replay(sources.Reading(file), broker.publish, prefix="test."))
    assert sent == {Topic.ITEMS: 3, Topic.QUERIES: 1, Topic.CLICKS: 2, Topic.ORDERS: 1}
    assert [record.value for record in broker.records[2:]] == [encode(event) for event in _events()]
    assert {topic for topic, *_ in broker.records} == {"test.items", "test.clicks", "test.queries", "test.orders"}
    assert [(topic, key) for topic, key, *_ in broker.records[:2]] == [("test.items", b"i2"), ("test.items", b"i3")]
    assert [record.timestamp_ms for record in broker.records[2:]] == [event.ts for event in _events()]


def test_records_say_when_they_were_sent_and_progress_ends_at_the_total(file: Path) -> None:
    broker, seen, before = _Broker(), [], time.time() * 1000 - 1
    asyncio.run(replay(sources.Reading(file), broker.publish, progress=lambda done, total: seen.append((done, total))))
    assert seen[-1] == (7, 7)
    for record in broker.records:
        assert before <= int(dict(record.headers)["sent_ms"]) <= time.time() * 1000


def test_a_speed_keeps_the_distances_in_time(file: Path) -> None:
    broker, started = _Broker(), time.monotonic()
    asyncio.run(replay(sources.Reading(file), broker.publish, speed=2.0))
    events = [event for event in _events() if not isinstance(event, Item)]
    assert [record.value for record in broker.records[3:]] == [encode(event) for event in events]
    for event, published in zip(events, broker.published_s[3:], strict=True):
        assert published - started >= (event.ts - events[0].ts) / 1000 / 2.0


def test_a_failing_broker_and_a_wrong_speed_are_not_hidden(file: Path) -> None:
    async def fail(records: list[Record]) -> None:
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        asyncio.run(replay(sources.Reading(file), fail))
    with pytest.raises(ValueError, match="above 0"):
        asyncio.run(replay(sources.Reading(file), fail, speed=0))
