"""What people and programs read of a user: newest first, complete, and JSON of the documented shape."""

import json

import msgspec

from features.codec import pack
from features.event_time import DAY_MS
from features.fold import Bucket
from features.outcomes import Candidate, CandidatesRow, ItemRow
from features.rows import Behaviour, CategoryRow, Pair, Search, Touched, UserRow
from features.store import Key, LogPosition, Stored
from features.store.memory import MemoryStore
from features.store.reader import FeatureReader

PAIRED = Behaviour(5, 1, "i", "c", 3, 0, Pair(False, 4, 2, "red shoe"))
BARE = Behaviour(6, 3, "j", "d", 0)


def reader(**rows: tuple[tuple[str, ...], msgspec.Struct]) -> FeatureReader:
    store = MemoryStore()
    store.write([(Key(view, entities), Stored(pack(row), LogPosition(), 0)) for view, (entities, row) in rows.items()])
    return FeatureReader(store)


def as_json(value: object) -> object:
    return json.loads(msgspec.json.encode(value))


def test_a_user_newest_first() -> None:
    searches = [Search(n, n, 0, f"q{n}") for n in range(70)]
    row = UserRow(1, [PAIRED, BARE], searches, [Touched(5, "c", 9), Touched(6, "d", 1)])
    assert as_json(reader(user=(("u",), row)).user("u")) == {
        "user": "u",
        "recent": [
            {"ts": 6, "item_id": "j", "category_id": "d", "kind": "click", "query": None},
            {"ts": 5, "item_id": "i", "category_id": "c", "kind": "order", "query": "red shoe"},
        ],
        "queries": [{"ts": n, "text": f"q{n}"} for n in range(69, 5, -1)],
        "categories": [{"category_id": "d", "count": 1, "last_ts": 6}, {"category_id": "c", "count": 9, "last_ts": 5}],
    }


def test_a_category_of_a_user() -> None:
    later = Behaviour(7, 9, "k", "c", 2)
    row = CategoryRow(1, [PAIRED, later], [Bucket(0, DAY_MS, 1, 0, 0, 0, 1), Bucket(DAY_MS, DAY_MS, 0, 1, 1, 1, DAY_MS + 1)])
    read = reader(user_category=(("u", "c"), row))
    sequence = [
        {"ts": 7, "item_id": "k", "category_id": "c", "kind": "favourite", "query": None},
        {"ts": 5, "item_id": "i", "category_id": "c", "kind": "order", "query": "red shoe"},
    ]
    folded = [
        {"start_ts": DAY_MS, "width_ms": DAY_MS, "count": 3, "clicks": 0, "carts": 1, "favourites": 1, "orders": 1, "last_ts": DAY_MS + 1},
        {"start_ts": 0, "width_ms": DAY_MS, "count": 1, "clicks": 1, "carts": 0, "favourites": 0, "orders": 0, "last_ts": 1},
    ]
    assert as_json(read.user_category("u", "c")) == {"user": "u", "category": "c", "count": 6, "sequence": sequence, "folded": folded}
    assert as_json(read.user("u", "c")) == {
        "user": "u", "recent": [], "queries": [], "categories": [], "category": "c", "sequence": sequence, "folded": folded,
    }  # fmt: skip


def test_what_is_not_there() -> None:
    read = reader()
    assert as_json(read.user("u")) == {"user": "u", "recent": [], "queries": [], "categories": []}
    assert as_json(read.user("u", "c"))["sequence"] == []
    assert read.user_category("u", "c").count == 0
    assert read.item(["i", "j"]) == [None, None]
    assert read.candidates("u") is None
    assert read.interests("u") is None


def test_items_and_candidates() -> None:
    candidates = CandidatesRow(1, [Candidate("i", 1.5, "c", "short")])
    read = reader(item=(("i",), ItemRow(title="Shoe")), user_candidates=(("u",), candidates))
    assert read.item(["x", "i"]) == [None, ItemRow(title="Shoe")]
    assert read.candidates("u") == candidates
