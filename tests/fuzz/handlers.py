"""The pipelines with hostile records and rows: they go on, and whoever did nothing wrong gets what is theirs."""

from functools import cache

from features.codec import unpack
from features.errors import OtherLayoutError
from features.events import Click, Topic, encode
from features.outcomes import InterestsRow
from features.rows import CategoryRow, UserRow
from features.store import Key, LogPosition, Stored
from features.store.memory import MemoryStore
from stream.pipelines.ingest import Ingest
from tests.refresh_world import NOW, Record, System, click, request

VIEWS = (Key("user", ("u",)), Key("user_category", ("u", "c1")), Key("user_interests", ("u",)))


def ingest_record(value: bytes) -> None:
    """A hostile value among the clicks of one who did nothing wrong."""
    store = MemoryStore()
    good = [Click(event_id=f"e{n}", user_id="good", item_id="i", category_id="c", ts=NOW) for n in range(2)]
    records = [Record(0, b"good", encode(good[0])), Record(1, b"u", value), Record(2, b"good", encode(good[1]))]
    for topic in (Topic.CLICKS, Topic.QUERIES, Topic.ORDERS):
        outcome = Ingest(store, lambda: NOW).process(topic, records)
        assert outcome.counts.total() == 3
    [row] = store.read([Key("user", ("good",))])
    assert row is not None
    assert len(unpack(UserRow, row.packed).recent) == 2


def ingest_row(packed: bytes) -> None:
    """Hostile bytes in the place of the rows of a user, beside another one."""
    store = MemoryStore()
    for key in VIEWS[:2]:
        store.write([(key, Stored(packed, LogPosition(0, 1), 0))])
    clicks = [click(1), click(2, user="good")]
    records = [Record(n, event.user_id.encode(), encode(event)) for n, event in enumerate(clicks, 1)]
    try:
        outcome = Ingest(store, lambda: NOW).process(Topic.CLICKS, records)
    except OtherLayoutError:
        return
    assert outcome.counts["applied"] == 2
    user, category, good = store.read([*VIEWS[:2], Key("user", ("good",))])
    assert user is not None
    assert category is not None
    assert good is not None
    assert any(event.item == clicks[0].item_id for event in unpack(CategoryRow, category.packed).events)
    assert unpack(UserRow, user.packed) != UserRow()
    assert len(unpack(UserRow, good.packed).recent) == 1


@cache
def _system() -> System:
    system = System()
    system.process(system.happens(click(1), click(2, user="good")))
    return system


def refresh_row(packed: bytes) -> None:
    """Hostile bytes in the place of the rows that a refresh reads, beside another user."""
    system = _system()
    for key in VIEWS:
        system.store._rows[key] = Stored(packed, LogPosition(0, 1), 0)
    for behind in (False, True):
        try:
            outcome = system.process([request("u", "c1"), request("good", "c1")], behind)
        except OtherLayoutError:
            return
        assert {found.user_id: bool(found.candidates) for found, _ in outcome.sets} == {"u": True, "good": True}
        assert outcome.failure is None
        [interests] = system.store.read([VIEWS[2]])
        assert interests is not None
        assert unpack(InterestsRow, interests.packed) is not None
