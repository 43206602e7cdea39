"""What every adapter of the online store promises (features.store.OnlineStore)."""

import random
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.store import Key, LogPosition, OnlineStore, Stored

SHARED_STORE = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
offsets = st.one_of(st.integers(0, 3), st.sampled_from([9, 10, 99, 100, 2**53, 2**53 + 1, 2**63 - 1]))
versions = st.builds(LogPosition, st.integers(0, 2), offsets, offsets, offsets)
OLDEST = LogPosition()
ODD_IDS = ["u", "two words", "a:b:c", "{tag}x", "😀", "ß́ü", "'\";--", "\n", "0", "x" * 128, "v:1:2:3:4", "\0"]


def user(name: str) -> Key:
    return Key("user", (name,))


def row(packed: bytes = b"row", position: LogPosition = OLDEST, ts_ms: int = 1_700_000_000_123) -> Stored:
    return Stored(packed, position, ts_ms)


def test_what_was_written_is_read(store: OnlineStore) -> None:
    rows = [
        (user("u"), row(b"1", LogPosition(1, 2, 3, 4))),
        (Key("user_category", ("u", "c")), row(b"2", LogPosition(0, 0, 0, 1), 5)),
        (Key("item", ("u",)), row(b"3", ts_ms=0)),
        (Key("user_interests", ("u",)), row(b"\0" * 300)),
        (Key("user_candidates", ("u",)), row(b"")),
    ]
    assert store.write(rows) == [True] * 5
    assert store.read([key for key, _ in rows]) == [stored for _, stored in rows]


def test_rows_come_in_the_order_of_their_keys_and_none_where_there_is_none(store: OnlineStore) -> None:
    store.write([(user(str(n)), row(str(n).encode())) for n in range(250)])
    wanted = [*range(240, 260), 3, 3]
    random.Random(1).shuffle(wanted)
    found = store.read([user(str(n)) for n in wanted])
    assert [stored and stored.packed for stored in found] == [str(n).encode() if n < 250 else None for n in wanted]
    assert store.read([Key("user_interests", ("3",)), Key("user_category", ("3", "c"))]) == [None, None]


def test_nothing_asked_nothing_answered(store: OnlineStore) -> None:
    assert store.read([]) == []
    assert store.write([]) == []


def test_entities_keep_their_order(store: OnlineStore) -> None:
    store.write([(Key("user_category", ("a", "b")), row(b"ab")), (Key("user_category", ("b", "a")), row(b"ba"))])
    found = store.read([Key("user_category", ("b", "a")), Key("user_category", ("a", "b"))])
    assert [stored.packed for stored in found if stored] == [b"ba", b"ab"]


@pytest.mark.parametrize("entity", ODD_IDS, ids=repr)
def test_any_id_is_an_id(store: OnlineStore, entity: str) -> None:
    keys = [user(entity), Key("user_category", (entity, entity)), Key("user_category", (entity, entity + "x"))]
    assert store.write([(key, row(bytes([at]))) for at, key in enumerate(keys)]) == [True] * 3
    assert [stored.packed for stored in store.read(keys) if stored] == [b"\0", b"\1", b"\2"]


def test_big_rows(store: OnlineStore) -> None:
    rows = [(user(str(n)), row(random.Random(n).randbytes(100_000))) for n in range(50)]
    assert all(store.write(rows))
    assert store.read([key for key, _ in rows]) == [stored for _, stored in rows]


def test_many_rows(store: OnlineStore) -> None:
    rows = [(Key("user_category", (str(n), "c")), row(b"%d" % n)) for n in range(1234)]
    assert all(store.write(rows))
    assert store.read([key for key, _ in rows]) == [stored for _, stored in rows]


def test_an_equal_version_overwrites(store: OnlineStore) -> None:
    store.write([(user("u"), row(b"first", LogPosition(0, 5, 5, 5)))])
    assert store.write([(user("u"), row(b"again", LogPosition(0, 5, 5, 5), 7))]) == [True]
    assert store.read([user("u")]) == [row(b"again", LogPosition(0, 5, 5, 5), 7)]


def test_any_lower_offset_is_refused_and_a_higher_epoch_wins(store: OnlineStore) -> None:
    held = row(b"held", LogPosition(1, 10, 10, 10))
    store.write([(user("u"), held)])
    for older in (LogPosition(1, 9, 99, 99), LogPosition(1, 99, 9, 99), LogPosition(1, 99, 99, 9), LogPosition(0, 99, 99, 99)):
        assert store.write([(user("u"), row(b"older", older))]) == [False]
        assert store.read([user("u")]) == [held]
    assert store.write([(user("u"), row(b"new epoch", LogPosition(2, 0, 0, 0)))]) == [True]
    assert store.read([user("u")]) == [row(b"new epoch", LogPosition(2, 0, 0, 0))]


def test_only_the_older_rows_of_a_batch_are_refused(store: OnlineStore) -> None:
    store.write([(user(str(n)), row(b"old", LogPosition(0, n % 2, 0, 0))) for n in range(300)])
    written = store.write([(user(str(n)), row(b"new")) for n in range(300)])
    assert written == [n % 2 == 0 for n in range(300)]
    found = store.read([user(str(n)) for n in range(300)])
    assert [stored.packed for stored in found if stored] == [b"old" if n % 2 else b"new" for n in range(300)]


@SHARED_STORE
@given(history=st.lists(versions, min_size=1, max_size=6), at_once=st.booleans())
def test_refusals_are_those_of_older_than(store: OnlineStore, history: list[LogPosition], at_once: bool) -> None:
    """One row at a time, or the same key many times in one batch: the same answers and the same row in the end."""
    key = user(uuid4().hex)
    rows = [(key, row(b"%d" % at, version)) for at, version in enumerate(history)]
    expected, held = [], None
    for _, new in rows:
        expected.append(held is None or not new.log_position.older_than(held.log_position))
        held = new if expected[-1] else held
    assert (store.write(rows) if at_once else [store.write([one])[0] for one in rows]) == expected
    assert store.read([key]) == [held]


@SHARED_STORE
@given(names=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), unique=True, max_size=20), packed=st.binary())
def test_ids_do_not_collide(store: OnlineStore, names: list[str], packed: bytes) -> None:
    rows = [(user(name), row(packed + name.encode())) for name in names]
    store.write(rows)
    assert store.read([key for key, _ in rows]) == [stored for _, stored in rows]


def test_the_newest_of_concurrent_writers_stays(store: OnlineStore) -> None:
    numbers = list(range(400))
    random.Random(2).shuffle(numbers)

    def write(mine: list[int]) -> None:
        for at in range(0, len(mine), 5):
            batch = [(user(f"u{n % 3}"), row(b"%d" % n, LogPosition(0, n, n, n))) for n in mine[at : at + 5]]
            store.write(batch)

    with ThreadPoolExecutor(4) as writers:
        list(writers.map(write, (numbers[start::4] for start in range(4))))
    found = store.read([user(f"u{n % 3}") for n in (397, 398, 399)])
    assert found == [row(b"%d" % n, LogPosition(0, n, n, n)) for n in (397, 398, 399)]


@pytest.mark.parametrize("key", [Key("user", ()), Key("user", ("a", "b")), Key("user_category", ("a",))])
def test_a_key_with_the_wrong_number_of_entities_is_refused(store: OnlineStore, key: Key) -> None:
    with pytest.raises(ValueError, match="entities"):
        store.write([(key, row())])


def test_a_negative_offset_is_no_log_position(store: OnlineStore) -> None:
    with pytest.raises(ValueError, match="negative"):
        store.write([(user("u"), row(position=LogPosition(0, -1, 0, 0)))])
    assert store.read([user("u")]) == [None]
