"""The ingest pipeline over random logs, interleavings, splits, redeliveries and crashes: the rows are those of the events."""

import json
from collections import Counter
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.codec import pack, unpack
from features.errors import StoreUnavailableError
from features.events import Click, Order, OrderLine, Query, Topic, encode
from features.history import offline_rows
from features.rows import CategoryRow, UserRow
from features.store import Key, LogPosition, Stored
from features.store.memory import MemoryStore
from stream.errors import SupersededError
from stream.pipelines.ingest import Ingest

NOW = 1_700_000_000_000


class Record(NamedTuple):
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple = ()


TIMES = st.integers(NOW - 3_600_000, NOW)
USERS = st.sampled_from(["u1", "u2"])
CATEGORIES = st.sampled_from(["c1", "c2", "c3"])
CLICKS = st.builds(
    Click, event_id=st.uuids().map(str), user_id=USERS, item_id=st.sampled_from(["i1", "i2"]), category_id=CATEGORIES, ts=TIMES,
    query_id=st.sampled_from([None, "q1"]),
)  # fmt: skip
QUERIES = st.builds(
    Query,
    event_id=st.uuids().map(str),
    user_id=USERS,
    query_id=st.sampled_from(["q1", "q2"]),
    text=st.sampled_from(["shoe", "hat", " ", "?!"]),
    ts=TIMES,
)
ORDERS = st.builds(
    Order, event_id=st.uuids().map(str), order_id=st.just("o"), user_id=USERS, ts=TIMES,
    lines=st.lists(st.builds(OrderLine, item_id=st.just("i1"), category_id=CATEGORIES), min_size=1, max_size=3),
)  # fmt: skip
LOGS = st.fixed_dictionaries(
    {Topic.CLICKS: st.lists(CLICKS, max_size=14), Topic.QUERIES: st.lists(QUERIES, max_size=6), Topic.ORDERS: st.lists(ORDERS, max_size=6)}
)


def records(topic, events, start=0):
    return [Record(topic, 0, start + n, event.ts, event.user_id.encode(), encode(event)) for n, event in enumerate(events)]


class Crashing(MemoryStore):
    """Writes a part of a batch and then fails as a lost connection does: what was written stays."""

    def __init__(self, parts):
        super().__init__()
        self.parts = parts

    def write(self, rows):
        if self.parts and (part := self.parts.pop()) is not None:
            super().write(rows[: part % (len(rows) + 1)])
            raise StoreUnavailableError("it was cut off")
        return super().write(rows)


def stored(store, users, rows):
    """The packed rows that the store holds, keyed as `offline_rows` keys them."""
    keys = [Key("user", (user,)) for user in users] + [Key("user_category", pair) for pair in rows]
    found = dict(zip(keys, store.read(keys), strict=True))
    return {key: row.packed for key, row in found.items() if row is not None}


def expected(events):
    users, categories = offline_rows(events)
    return {Key("user", (u,)): pack(row) for u, row in users.items()} | {
        Key("user_category", k): pack(row) for k, row in categories.items()
    }


PAIRS = [(user, category) for user in ("u1", "u2") for category in ("c1", "c2", "c3")]


@given(LOGS, st.data())
@settings(max_examples=200, deadline=None)
def test_crashes_redelivery_and_any_interleaving_leave_the_rows_of_the_events(logs, data):
    parts = data.draw(st.lists(st.none() | st.integers(0, 20), max_size=6))
    store = Crashing(parts)
    ingest = Ingest(store, lambda: NOW)
    committed = Counter()
    rows, untold = {}, set()
    while any(committed[topic] < len(events) for topic, events in logs.items()):
        topic = data.draw(st.sampled_from([t for t, events in logs.items() if committed[t] < len(events)]))
        size = data.draw(st.integers(1, 6))
        batch = records(topic, logs[topic])[committed[topic] : committed[topic] + size]
        try:
            outcome = ingest.process(topic, batch)
        except StoreUnavailableError:
            outcome = None
        before, rows = rows, stored(store, [], PAIRS)
        untold |= {key.entities for key, packed in rows.items() if packed != before.get(key)}
        if outcome is None:
            if data.draw(st.booleans()):
                ingest = Ingest(store, lambda: NOW)  # killed and restarted; else it tries again
            continue
        untold -= {(request.user_id, category) for request in outcome.refreshes for category in request.categories}
        assert outcome.counts.total() == len(batch)
        assert {request.user_id for request in outcome.refreshes} == {json.loads(record.value)["user_id"] for record in batch}
        if data.draw(st.integers(0, 3)):  # 0: the commit is lost, and the records come again
            committed[topic] += len(batch)
        elif data.draw(st.booleans()):
            ingest = Ingest(store, lambda: NOW)
    assert stored(store, ["u1", "u2"], PAIRS) == expected([event for events in logs.values() for event in events])
    assert untold == set()


@pytest.mark.parametrize("killed", [True, False])
@pytest.mark.parametrize("written", [0, 1, 2, 3])
def test_a_late_query_whose_write_was_cut_off_names_the_categories_it_changed_when_it_comes_again(written, killed):
    store = Crashing([written, None])
    ingest = Ingest(store, lambda: NOW)
    ingest.process(Topic.CLICKS, records(Topic.CLICKS, [click(1, ts=NOW - 5, category="c1"), click(2, ts=NOW - 4, category="c2")]))
    query = Query(event_id="q", user_id="u1", query_id="q", text="shoe", ts=NOW - 9)
    with pytest.raises(StoreUnavailableError):
        ingest.process(Topic.QUERIES, records(Topic.QUERIES, [query]))
    ingest = Ingest(store, lambda: NOW) if killed else ingest
    [request] = ingest.process(Topic.QUERIES, records(Topic.QUERIES, [query])).refreshes
    assert request.categories == ["c1", "c2"]


def click(n, user="u1", category="c1", ts=NOW):
    return Click(event_id=f"e{n}", user_id=user, item_id=f"i{n}", category_id=category, ts=ts)


def test_counts_say_applied_duplicate_redelivered_and_dead():
    ingest = Ingest(MemoryStore(), lambda: NOW)
    batch = records(Topic.CLICKS, [click(1), click(2), click(1)])
    batch += [Record(Topic.CLICKS, 0, 3, NOW, b"u1", b"{"), Record(Topic.CLICKS, 0, 4, NOW, b"other", encode(click(5)))]
    outcome = ingest.process(Topic.CLICKS, batch)
    assert outcome.counts == {"applied": 2, "duplicate": 1, "dead": 2}
    assert [(letter.offset, letter.reason) for letter in outcome.dead] == [(3, "bad_json"), (4, "wrong_key")]
    assert outcome.dead[0].value == b"{"
    assert ingest.process(Topic.CLICKS, batch).counts == {"redelivered": 3, "dead": 2}


def test_a_search_that_says_nothing_counts_as_applied_and_is_kept_nowhere():
    store = MemoryStore()
    ingest = Ingest(store, lambda: NOW)
    silent = records(Topic.QUERIES, [Query(event_id=f"e{n}", user_id="u1", query_id="q", text="\u200b!", ts=NOW) for n in (1, 2)])
    assert ingest.process(Topic.QUERIES, silent).counts == {"dead": 0, "applied": 2}
    assert ingest.process(Topic.QUERIES, silent).counts == {"dead": 0, "redelivered": 2}
    [row] = store.read([Key("user", ("u1",))])
    assert unpack(UserRow, row.packed) == UserRow()


def test_a_query_is_kept_in_the_row_of_its_user_and_nowhere_else():
    query = Query(event_id="q", user_id="u1", query_id="q", text="red shoe", ts=NOW)
    outcome = Ingest(MemoryStore(), lambda: NOW).process(Topic.QUERIES, records(Topic.QUERIES, [query]))
    assert outcome.rows_written == {"user": 1}


def test_a_worker_that_lost_its_partition_cannot_turn_a_row_back_and_catches_up():
    store = MemoryStore()
    events = [click(n, ts=NOW - 100 + n) for n in range(9)]
    zombie, owner = Ingest(store, lambda: NOW), Ingest(store, lambda: NOW)
    zombie.process(Topic.CLICKS, records(Topic.CLICKS, events[:3]))
    owner.process(Topic.CLICKS, records(Topic.CLICKS, events[3:8], 3))
    outcome = zombie.process(Topic.CLICKS, records(Topic.CLICKS, events[3:5], 3))
    assert outcome.rows_refused.total() > 0
    assert outcome.counts["redelivered"] == 2
    assert len(unpack(UserRow, store.read([Key("user", ("u1",))])[0].packed).recent) == 8


def test_a_partition_that_another_worker_had_in_between_is_read_again():
    store = MemoryStore()
    eras = [1]
    first, second = Ingest(store, lambda: NOW, era=lambda: eras[-1]), Ingest(store, lambda: NOW)
    events = [click(n, ts=NOW - 100 + n) for n in range(9)]
    first.process(Topic.CLICKS, records(Topic.CLICKS, events[:3]))
    second.process(Topic.CLICKS, records(Topic.CLICKS, events[3:6], 3))
    eras.append(2)
    first.process(Topic.CLICKS, records(Topic.CLICKS, events[6:], 6))
    assert len(unpack(CategoryRow, store.read([Key("user_category", ("u1", "c1"))])[0].packed).events) == 9


def test_a_gap_in_the_offsets_reads_no_row_again():
    reads = []

    class Counting(MemoryStore):
        def read(self, keys):
            reads.append(list(keys))
            return super().read(keys)

    ingest = Ingest(Counting(), lambda: NOW)
    for start in (0, 4, 9):  # the markers of transactions lie in between
        ingest.process(Topic.CLICKS, records(Topic.CLICKS, [click(start), click(start + 1)], start))
    assert len(reads) == 1


def test_a_newer_epoch_in_the_store_stops_the_worker_and_an_older_one_starts_offsets_anew():
    store = MemoryStore()
    Ingest(store, lambda: NOW, epoch=1).process(Topic.CLICKS, records(Topic.CLICKS, [click(1)], 70))
    Ingest(store, lambda: NOW, epoch=2).process(Topic.CLICKS, records(Topic.CLICKS, [click(2)], 0))
    [row] = store.read([Key("user_category", ("u1", "c1"))])
    assert row.log_position == LogPosition(2, 1)
    assert len(unpack(CategoryRow, row.packed).events) == 2
    with pytest.raises(SupersededError, match="EVERLONG_EPOCH=2"):
        Ingest(store, lambda: NOW, epoch=1).process(Topic.CLICKS, records(Topic.CLICKS, [click(3)], 80))


@pytest.mark.fault(
    "All events, sent again under a raised `EVERLONG_EPOCH` and `EVERLONG_ROWS_FROM_EPOCH`", "Each event counts once, including folded ones"
)
def test_events_sent_again_under_a_raised_epoch_count_once_and_rows_go_on_where_only_the_topics_are_new():
    store, epoch = MemoryStore(), 0
    events = [click(n, ts=NOW - 1000 + n) for n in range(600)]  # more than a row keeps: the rest is folded

    def send(found, rows_from_epoch):
        ingest = Ingest(store, lambda: NOW, epoch=epoch, rows_from_epoch=rows_from_epoch)
        for at in range(0, len(found), 50):
            ingest.process(Topic.CLICKS, records(Topic.CLICKS, found[at : at + 50], at))
        return stored(store, ["u1"], [("u1", "c1")])

    first = send(events, 0)
    epoch = 1
    assert send(events, 1) == first == expected(events)
    epoch = 2
    more = [click(n, ts=NOW - 1000 + n) for n in range(600, 700)]
    assert send(more, 1) == expected(events + more)


def test_rows_that_are_always_refused_stop_the_worker():
    class Refusing(MemoryStore):
        def write(self, rows):
            return [False] * len(rows)

    with pytest.raises(SupersededError):
        Ingest(Refusing(), lambda: NOW).process(Topic.CLICKS, records(Topic.CLICKS, [click(1)]))


def test_a_small_cache_changes_nothing():
    events = [click(n, user=f"u{n % 7}", category=f"c{n % 3}", ts=NOW - 1000 + n) for n in range(100)]
    store = MemoryStore()
    ingest = Ingest(store, lambda: NOW, cached_events=5)
    for at in range(0, 100, 9):
        ingest.process(Topic.CLICKS, records(Topic.CLICKS, events[at : at + 9], at))
    assert isinstance(store.read([Key("user", ("u1",))])[0], Stored)
    pairs = [(f"u{n % 7}", f"c{n % 3}") for n in range(21)]
    assert stored(store, [f"u{n}" for n in range(7)], pairs) == expected(events)
