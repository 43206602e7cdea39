"""Unreadable rows: the others of the batch go on, the row is rebuilt from the log, and its bytes are kept apart."""

import random

import pytest

from features.codec import pack, unpack
from features.errors import OtherLayoutError, StoreUnavailableError
from features.events import Click, Order, OrderLine, Query, Topic, encode
from features.history import offline_rows
from features.rows import CategoryRow, UserRow
from features.store import Key, LogPosition, Stored
from features.store.memory import MemoryStore
from stream.pipelines.ingest import Ingest
from stream.pipelines.mending import History
from tests.unit.stream.pipelines.test_ingest import Record

NOW = 1_700_000_000_000
SECOND = 1000
GOOD = pack(UserRow())
UNREADABLE = [
    b"",
    b"\xff" * 200,
    b"\xc1",
    b"\x95\x01",
    b"\x95\x41" + GOOD[2:],
    GOOD[:-1],
    GOOD + b"\0",
    b"\x91" * 5000,
    b'{"a": 1}',
    b"\xd9\x02\xff\xfe",
]
VERSIONS = [LogPosition(0, 10, 2, 1), LogPosition()]


class Log:
    """A log whose first `lost` records of each topic are gone by now."""

    def __init__(self, lost=0):
        self.records, self.lost, self.reads = {topic: [] for topic in (Topic.CLICKS, Topic.QUERIES, Topic.ORDERS)}, lost, 0

    def add(self, topic, *events):
        added = [
            Record(topic, 0, n, event.ts, event.user_id.encode(), encode(event)) for n, event in enumerate(events, len(self.records[topic]))
        ]
        self.records[topic] += added
        return added

    def read(self, partition, keys, upto):
        self.reads += 1
        ends = {topic: min(len(found), upto.get(topic, len(found))) for topic, found in self.records.items()}
        records = {topic: [r for r in found[self.lost : ends[topic]] if r.key in keys] for topic, found in self.records.items()}
        return History(records, dict.fromkeys(self.records, self.lost), ends)


class World:
    def __init__(self, lost=0, store=None):
        self.store, self.log = store or MemoryStore(), Log(lost)
        self.ingest = Ingest(self.store, lambda: NOW, past=self.log)
        self.events = []

    def happens(self, *events):
        topic = {Click: Topic.CLICKS, Query: Topic.QUERIES, Order: Topic.ORDERS}[type(events[0])]
        self.events += events
        return self.ingest.process(topic, self.log.add(topic, *events))

    def lives(self):
        """Ten minutes of two users, in the order of time."""
        events = [Query(event_id=f"q{n}", user_id="u", query_id=f"q{n}", text=f"shoe {n}", ts=NOW - 500 * SECOND + n) for n in (0, 40)]
        for n in range(20):
            user = "uv"[n % 2]
            click = Click(event_id=f"e{n}", user_id=user, item_id=f"i{n}", category_id=f"c{n % 4 // 2}", ts=NOW - 500 * SECOND + 10 * n)
            events.append(click)
        events.append(Order(event_id="o", order_id="o", user_id="u", ts=NOW - 9, lines=[OrderLine(item_id="i1", category_id="c0")]))
        for event in sorted(events, key=lambda event: event.ts):
            self.happens(event)

    def damage(self, key, packed, version):
        self.store._rows[key] = Stored(packed, version, 5)
        self.ingest = Ingest(self.store, lambda: NOW, past=self.log)

    def differing(self):
        users, categories = offline_rows(self.events)
        expected = {Key("user", (user,)): row for user, row in users.items()} | {
            Key("user_category", k): row for k, row in categories.items()
        }
        found = dict(zip(expected, self.store.read(list(expected)), strict=True))
        return [key for key, row in expected.items() if found[key].packed != pack(row)]


def click(n, user="u", category="c0"):
    return Click(event_id=f"n{n}", user_id=user, item_id=f"i{n}", category_id=category, ts=NOW - 100 + n)


@pytest.mark.fault(
    "An unreadable row in the store: random, truncated or missing bytes, an unreadable log position",
    "The row is quarantined and rebuilt from the log, and the other users of the batch do not wait",
)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("packed", UNREADABLE)
@pytest.mark.parametrize("key", [Key("user", ("u",)), Key("user_category", ("u", "c0"))])
def test_an_unreadable_row_is_rebuilt_from_the_log(key, packed, version):
    world = World()
    world.lives()
    world.damage(key, packed, version)
    outcome = world.happens(click(1), click(2, "v"), click(3, category="c1"))
    assert outcome.counts == {"applied": 3, "dead": 0}
    assert world.differing() == []
    assert {request.user_id for request in outcome.refreshes} == {"u", "v"}
    [apart] = world.store.quarantined()
    assert outcome.apart == [apart]
    assert (apart.view, apart.entities, apart.packed, apart.rebuilt, apart.at_ms) == (*key, packed, "complete", NOW)
    world.happens(click(4))
    assert (world.differing(), world.log.reads) == ([], 1)


@pytest.mark.parametrize("seed", range(6))
def test_all_rows_of_several_users_at_once_by_any_event(seed):
    chosen = random.Random(seed)
    world = World()
    world.lives()
    for key in [Key("user", ("u",)), Key("user", ("v",)), *(Key("user_category", (u, c)) for u in "uv" for c in ("c0", "c1"))]:
        if chosen.random() < 0.7:
            world.damage(key, chosen.choice(UNREADABLE), chosen.choice(VERSIONS))
    later = {
        0: [click(1), click(2, "v")],
        1: [Query(event_id="late", user_id="u", query_id="late", text="hat", ts=NOW - 500 * SECOND)],
        2: [
            Order(
                event_id="o2",
                order_id="o2",
                user_id="v",
                ts=NOW,
                lines=[OrderLine(item_id="i", category_id=c) for c in ("c0", "c1", "new")],
            )
        ],
    }
    world.happens(*later[seed % 3])
    for user in "uv":
        for category in ("c0", "c1"):
            world.happens(click(7 + ord(user), user, category))
    assert world.differing() == []


def test_a_row_that_counts_what_it_no_longer_keeps_is_rebuilt_with_its_counts():
    world = World()
    world.happens(*[click(n) for n in range(700)])
    world.damage(Key("user_category", ("u", "c0")), b"?", LogPosition(0, 700))
    world.happens(click(701))
    assert world.differing() == []


@pytest.mark.fault(
    "An unreadable row whose events are no longer in the log", "The row is rebuilt from the rest of the log and marked `partial` or `none`"
)
@pytest.mark.parametrize(("lost", "rebuilt"), [(4, "partial"), (100, "none")])
def test_what_the_log_has_lost_is_said(lost, rebuilt):
    world = World(lost)
    world.lives()
    before = unpack(CategoryRow, world.store.read([Key("user_category", ("u", "c1"))])[0].packed)
    world.damage(Key("user_category", ("u", "c0")), b"?", VERSIONS[0])
    assert world.happens(click(1)).counts["applied"] == 1
    [apart] = world.store.quarantined()
    assert apart.rebuilt == rebuilt
    assert unpack(CategoryRow, world.store.read([Key("user_category", ("u", "c0"))])[0].packed).count >= 1
    assert unpack(CategoryRow, world.store.read([Key("user_category", ("u", "c1"))])[0].packed) == before


def test_a_failure_while_rebuilding_loses_nothing():
    class Failing(MemoryStore):
        failures = 0

        def quarantine(self, rows):
            self.failures -= 1
            if self.failures >= 0:
                raise StoreUnavailableError("a test")
            super().quarantine(rows)

    world = World(store=Failing())
    world.lives()
    world.damage(Key("user", ("u",)), b"?", VERSIONS[0])
    world.store.failures = 1
    with pytest.raises(StoreUnavailableError):
        world.happens(click(1), click(2, "v"))
    again = world.ingest.process(Topic.CLICKS, world.log.records[Topic.CLICKS][-2:])
    assert {request.user_id for request in again.refreshes} == {"u", "v"}
    assert world.differing() == []


def test_a_damaged_row_whose_version_is_beyond_the_log_stops_nobody():
    world = World()
    world.lives()
    world.damage(Key("user", ("u",)), b"?", LogPosition(0, 10**6, 0, 0))
    outcome = world.happens(click(1), click(2, "v"))
    assert (outcome.counts["applied"], [letter.reason for letter in outcome.dead]) == (1, ["unreadable_row"])


def test_a_row_of_another_layout_stops_the_worker_with_the_remedy():
    world = World()
    world.lives()
    world.damage(Key("user", ("u",)), b"\x95\x02" + GOOD[2:], VERSIONS[0])
    with pytest.raises(OtherLayoutError, match="upgrade"):
        world.happens(click(1))
    assert world.store.quarantined() == []
