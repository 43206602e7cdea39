"""The workers around their pipelines: what is published again, what is counted, and what stops nothing."""

import asyncio
from typing import NamedTuple

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from features.codec import unpack
from features.events import MAX_EVENT_BYTES, Click, Order, OrderLine, encode
from features.rows import UserRow
from features.store import Key
from features.store.memory import MemoryStore
from infra.metrics import RefreshMetrics
from infra.monitors import IngestMonitor
from stream.errors import PublishError
from stream.kafka.messages import MOST_BYTES, DeadLetter, RefreshRequest, Skips, decode
from stream.pipelines.ingest import Ingest
from stream.pipelines.refresh import coalesce
from stream.workers.agents import Batch
from stream.workers.ingest import IngestWorker
from stream.workers.refresh import read_requests

NOW = 1_700_000_000_000
MESSAGE_BYTES = 1 << 20  # what a broker takes by default


class Record(NamedTuple):
    offset: int
    key: bytes | None
    value: bytes | None
    topic: str = "p.clicks"
    headers: tuple = (("sent_ms", b"1699999999990"),)
    partition: int = 0
    timestamp: int = NOW


class System:
    """A worker whose broker does not confirm the next `outages` publications."""

    def __init__(self):
        self.store, self.registry = MemoryStore(), CollectorRegistry()
        self.outages, self.published = 0, []
        ingest = Ingest(self.store, lambda: NOW)
        self.worker = IngestWorker(ingest, self.publish, IngestMonitor(self.registry), "p.", lambda: NOW)

    async def publish(self, records):
        if self.outages:
            self.outages -= 1
            raise PublishError("a test")
        self.published += records

    def handle(self, records):
        asyncio.run(self.worker.process(Batch(records)))

    def count(self, outcome):
        return self.registry.get_sample_value("everlong_events_total", {"topic": "clicks", "outcome": outcome}) or 0

    def kept(self):
        [row] = self.store.read([Key("user", ("u",))])
        return len(unpack(UserRow, row.packed).recent)


@pytest.fixture
def system():
    return System()


def records(first, last):
    events = [Click(event_id=f"e{n}", user_id="u", item_id="i", category_id="c", ts=NOW + n) for n in range(first, last)]
    return [Record(n, b"u", encode(event)) for n, event in enumerate(events, first)]


def test_a_list_whose_publication_failed_is_published_again_and_counted_once_as_applied(system):
    batch = [*records(0, 3), Record(3, b"u", b"{"), records(0, 1)[0]._replace(offset=4)]
    system.outages = 2
    for _ in range(2):
        with pytest.raises(PublishError):
            system.handle(batch)
        assert system.count("applied") == 0
    system.handle(batch)
    assert (system.count("applied"), system.count("duplicate"), system.count("redelivered")) == (3, 1, 0)
    assert system.registry.get_sample_value("everlong_dead_letters_total", {"reason": "bad_json"}) == 1
    assert system.registry.get_sample_value("everlong_event_to_feature_seconds_count") == 1
    request, letter = system.published
    assert (request.topic, request.key, letter.topic) == ("p.refresh", b"u", "p.events.dlq")
    assert msgspec.json.decode(request.value, type=RefreshRequest).log_position[1] == 5
    assert request.headers == [("sent_ms", b"1699999999990")]


def test_a_longer_list_that_begins_where_the_failed_one_did_is_applied(system):
    """After a rebalance the same records may come in another cut: what is new in it must not pass for applied."""
    system.outages = 1
    with pytest.raises(PublishError):
        system.handle(records(0, 3))
    system.handle(records(0, 8))
    assert system.kept() == 8
    assert (system.count("applied"), system.count("redelivered")) == (5, 3)


def test_a_shorter_list_that_begins_where_the_failed_one_did_loses_nothing(system):
    system.outages = 1
    with pytest.raises(PublishError):
        system.handle(records(0, 8))
    system.handle(records(0, 3))
    system.handle(records(3, 8))
    assert system.kept() == 8
    assert system.count("redelivered") == 8


def test_the_failed_list_is_forgotten_once_another_was_handled(system):
    system.outages = 1
    with pytest.raises(PublishError):
        system.handle(records(0, 3))
    system.handle(records(20, 22))
    system.handle(records(0, 3))
    assert system.count("redelivered") == 3
    assert len(system.published) == 2


@pytest.mark.parametrize("sent_ms", [None, b"", b"x", b"-1", b"9" * 30, b"9" * 6000])
def test_a_header_that_is_no_sending_time_stops_nothing(system, sent_ms):
    system.handle([record._replace(headers=(("sent_ms", sent_ms),)) for record in records(0, 2)])
    assert msgspec.json.decode(system.published[0].value, type=RefreshRequest).sent_ms == NOW


@pytest.mark.parametrize("key", [b"u", b"u" * 1_000_000, None])
def test_the_dead_letter_of_a_large_record_fits_into_a_message_and_says_what_it_left_out(system, key):
    value = b"\xff" * 1_000_000
    system.handle([Record(0, key, value)])
    [sent] = system.published
    assert len(sent.value) < MESSAGE_BYTES / 2
    letter = msgspec.json.decode(sent.value, type=DeadLetter)
    assert (letter.reason, letter.value) == ("oversized", value[:MAX_EVENT_BYTES])
    assert len(letter.value) + len(letter.key or b"") + letter.cut_bytes == len(value) + len(key or b"")


def test_the_dead_letter_of_a_record_as_long_as_an_event_may_be_is_whole(system):
    value = b"{" * MAX_EVENT_BYTES
    system.handle([Record(0, b"u", value)])
    letter = msgspec.json.decode(system.published[0].value, type=DeadLetter)
    assert (letter.value, letter.key, letter.cut_bytes) == (value, b"u", 0)


@pytest.mark.fault(
    "An invalid record on `refresh`: bad UTF-8, wrong fields, numbers out of range, deep nesting",
    "It is skipped and counted in `everlong_internal_records_skipped_total`, and the first of each kind is logged",
)
def test_a_record_that_is_no_refresh_request_is_skipped(caplog):
    good = RefreshRequest(user_id="u", categories=["c"], log_position=(0, 1, 0, 0), event_ts=1, sent_ms=2)
    fields = msgspec.to_builtins(good)
    bad = {
        "empty": [None, b""],
        "not_utf8": [b'{"user_id":"\xff"}'],
        "bad_json": [b"{", b"\xff", b'{"more":' + b"[" * 100_000],
        "wrong_shape": [
            b"[]",
            b'{"user_id": 1}',
            *(
                msgspec.json.encode(fields | {name: value})
                for name, value in {"log_position": [-1, 0, 0, 0], "event_ts": 2**63, "sent_ms": -1, "user_id": ""}.items()
            ),
            msgspec.json.encode(fields).replace(b'"event_ts":1', b'"event_ts":1' + b"0" * 30),
        ],
    }
    metrics = RefreshMetrics()
    values = [msgspec.json.encode(good), *(value for found in bad.values() for value in found)]
    found = read_requests([Record(n, b"u", value, "p.refresh") for n, value in enumerate(values)], Skips(metrics.skipped))
    assert found == [(0, good)]
    for reason, values in bad.items():
        labels = {"topic": "refresh", "reason": reason}
        assert metrics.registry.get_sample_value("everlong_internal_records_skipped_total", labels) == len(values)
        assert caplog.text.count(f"({reason}:") == 1


def test_an_order_of_many_categories_is_told_in_messages_of_bounded_size(system):
    longest = "\U0001f45f" * 119
    lines = [[OrderLine(item_id="i", category_id=f"{longest}{n}-{m}") for m in range(30)] for n in range(50)]
    orders = [Order(event_id=f"e{n}", order_id="o", user_id="u", ts=NOW, lines=found) for n, found in enumerate(lines)]
    system.handle([Record(n, b"u", encode(event), "p.orders") for n, event in enumerate(orders)])
    assert all(len(sent.value) < MOST_BYTES for sent in system.published)
    requests = [decode(RefreshRequest, sent.value) for sent in system.published]
    assert len(requests) == 3
    [whole] = coalesce(requests)
    assert whole.categories == sorted(line.category_id for found in lines for line in found)
