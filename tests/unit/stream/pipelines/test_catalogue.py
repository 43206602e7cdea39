"""The catalogue pipeline: item records become rows and codes, or dead letters, and nothing else."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.codec import unpack
from features.errors import StoreUnavailableError
from features.events import Item, encode
from features.item_states import bare, newest, state_of
from features.outcomes import ItemRow
from features.store import Key, LogPosition
from features.store.memory import MemoryStore
from models.serving.recommender import Recommender
from stream.kafka.messages import AGAIN_HEADER
from stream.pipelines.catalogue import Catalogue
from tests.tiny_bundle import quickly_trained

NOW = 1_700_000_000_000


class Record(NamedTuple):
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple = ()
    topic: str = "items"
    partition: int = 0
    timestamp: int = NOW


class Cut(MemoryStore):
    """Fails once, after a part of the rows was written."""

    failed = False

    def write(self, rows):
        if not self.failed:
            self.failed = True
            super().write(rows[:1])
            raise StoreUnavailableError("it was cut off")
        return super().write(rows)


@pytest.fixture(scope="module")
def recommender():
    return Recommender(quickly_trained(1))


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def catalogue(store, recommender):
    return Catalogue(store, lambda: recommender, lambda: NOW)


def item(name="new", **changed):
    return Item(**{"item_id": name, "category_id": "c1", "title": "red thing", "ts": NOW - 5, "price": 2.5} | changed)


def record(offset, event, **changed):
    return Record(offset, event.item_id.encode(), encode(event))._replace(**changed)


def row_of(store, name):
    [found] = store.read([Key("item", (name,))])
    return (unpack(ItemRow, found.packed), found.log_position) if found else None


def test_an_item_becomes_a_row_and_a_code_of_the_bundle(catalogue, store, recommender):
    outcome = catalogue.process([record(7, item(), headers=(("sent_ms", b"1699999999000"),))])
    row, version = row_of(store, "new")
    [(name, code)] = outcome.codes
    vector = recommender.item_vectors([item()])
    assert (row.category, row.title, row.price, row.ts, row.deleted) == ("c1", "red thing", 2.5, NOW - 5, False)
    assert row.generation == code.bundle == recommender.generation
    assert row.vector == code.vector == vector.astype("<f4").tobytes()
    assert row.code == code.code == recommender.item_codes(vector).tobytes()
    assert version == LogPosition(0, 8)
    assert (name, code.item_id, code.category_id, code.ts, code.sent_ms) == ("new", "new", "c1", NOW - 5, 1_699_999_999_000)
    assert (outcome.dead, outcome.again, outcome.counts) == ([], [], {"applied": 1, "dead": 0})


def test_what_is_no_item_becomes_a_dead_letter_and_the_counts_add_up(catalogue, store):
    batch = [
        record(0, item("good")),
        record(1, item("a"), key=b"b"),
        Record(2, b"c", b"{"),
        Record(3, b"d", b'{"item_id": "d"}'),
        Record(4, None, None),
        Record(5, b"", None),
        Record(6, b"e", b"\xff\xfe"),
        Record(7, b"f", b""),
        record(8, item("late"), key=None),
        record(9, item("future", ts=NOW + 10**9)),
    ]
    outcome = catalogue.process(batch)
    assert [(letter.offset, letter.reason) for letter in outcome.dead] == [
        (1, "wrong_key"), (2, "bad_json"), (3, "wrong_shape"), (4, "empty"), (5, "empty"),
        (6, "not_utf8"), (7, "empty"), (8, "wrong_key"), (9, "future"),
    ]  # fmt: skip
    assert [(letter.key, letter.value) for letter in outcome.dead] == [(found.key, found.value) for found in batch[1:]]
    assert [name for name, _ in outcome.codes] == ["good"]
    assert outcome.counts.total() == len(batch)
    assert row_of(store, "a") is row_of(store, "late") is row_of(store, "future") is None


@pytest.mark.parametrize("gone", [Record(4, b"new", None), record(4, item(deleted=True))])
def test_a_tombstone_and_a_deletion_take_the_item_away(catalogue, store, gone):
    catalogue.process([record(3, item())])
    outcome = catalogue.process([gone])
    assert outcome.codes == [("new", None)]
    assert outcome.counts == {"applied": 1, "dead": 0}
    row, version = row_of(store, "new")
    assert (row.deleted, row.vector, row.code, version) == (True, b"", b"", LogPosition(0, 5))


@pytest.mark.parametrize("key", [b"\xff", b"\xff" * 400_000, b"x" * 129])
def test_a_tombstone_whose_key_can_be_no_items_id_is_a_dead_letter(catalogue, key):
    outcome = catalogue.process([Record(0, key, None), record(1, item())])
    assert [(letter.offset, letter.reason, letter.value) for letter in outcome.dead] == [(0, "wrong_key", None)]
    assert [name for name, _ in outcome.codes] == ["new"]
    assert outcome.counts == {"applied": 1, "dead": 1}


def test_of_several_records_of_an_item_the_newest_by_ts_counts_and_is_published_again_where_it_is_not_the_last(catalogue, store):
    batch = [
        record(0, item("a", title="newest")),
        record(1, item("b")),
        record(2, item("a", title="older", ts=NOW - 9)),
        Record(3, b"b", None),
        Record(4, b"c", None, timestamp=NOW - 7),
        record(5, item("c", title="back")),
        Record(6, b"d", None),
        record(7, item("d", title="older")),
    ]
    outcome = catalogue.process(batch)
    assert (outcome.counts, outcome.outdated) == ({"applied": 8, "dead": 0}, 4)
    assert {name: code is None for name, code in outcome.codes} == {"a": False, "b": True, "c": False, "d": True}
    assert [row_of(store, name)[0].title for name in "abcd"] == ["newest", "", "back", ""]
    assert [row_of(store, name)[1].clicks for name in "abcd"] == [3, 4, 6, 8]
    assert [(again.item_id, again.title, again.deleted, again.ts) for again in outcome.again] == [
        ("a", "newest", False, NOW - 5), ("d", "", True, NOW),
    ]  # fmt: skip


FULL = {"attributes": {"brand": "fleet", "in_stock": "false"}, "price": 59.9, "text_embedding": [0.1, 0.2]}


@pytest.mark.fault(
    "An older state of an item that arrives after a newer one, or after the item's deletion",
    "The newer state remains in rows, index and topic",
)
@pytest.mark.parametrize("now", [item(title="new title", **FULL), item(deleted=True)])
@pytest.mark.parametrize("late", [item(title="last week", ts=NOW - 10**8), item(title="", ts=NOW, inferred=True)])
def test_an_outdated_state_changes_nothing_and_the_one_that_counts_is_published_again(catalogue, store, now, late):
    [(_, before)] = catalogue.process([record(0, now)]).codes
    row, _ = row_of(store, "new")
    outcome = catalogue.process([record(1, late)])
    assert row_of(store, "new") == (row, LogPosition(0, 2))
    assert outcome.codes == [("new", before)]
    assert (outcome.counts, outcome.outdated) == ({"applied": 1, "dead": 0}, 1)
    [again] = outcome.again
    assert (again.deleted, again.ts, state_of(again)) == (now.deleted, now.ts, state_of(now))
    repeated = catalogue.process([record(2, again, headers=(AGAIN_HEADER,))])
    assert (repeated.again, repeated.counts, repeated.outdated) == ([], {"applied": 0, "dead": 0, "again": 1}, 0)
    assert row_of(store, "new") == (row, LogPosition(0, 3))
    if not now.deleted:
        assert (again, before.available) == (now, False)


def test_a_deletion_without_a_value_takes_place_at_its_record_s_time(catalogue, store):
    catalogue.process([record(0, item(ts=NOW - 5))])
    assert catalogue.process([Record(1, b"new", None, timestamp=NOW - 6)]).again == [item(ts=NOW - 5)]
    assert not row_of(store, "new")[0].deleted
    [letter] = catalogue.process([Record(2, b"new", None, timestamp=NOW + 10**9)]).dead
    assert (letter.reason, letter.value) == ("future", None)
    assert catalogue.process([Record(3, b"new", None, timestamp=-1)]).dead[0].reason == "beyond_retention"
    assert not row_of(store, "new")[0].deleted
    catalogue.process([Record(4, b"new", None, timestamp=NOW)])
    assert row_of(store, "new")[0].deleted


STATES = st.builds(
    item,
    st.sampled_from("ab"),
    title=st.sampled_from(["red thing", "blue thing"]),
    ts=st.integers(NOW - 3, NOW),
    price=st.sampled_from([1.0, 2.0]),
    deleted=st.booleans(),
    inferred=st.booleans(),
)


@pytest.mark.fault(
    "Item events in any order and any batches, repeated and redelivered", "Rows, codes and the compacted topic are the same in the end"
)
@settings(max_examples=20, deadline=None)
@given(st.lists(STATES, min_size=1, max_size=6), st.data())
def test_rows_codes_and_the_compacted_topic_are_functions_of_the_set_of_states(recommender, states, data):
    expected = newest(states)
    store = MemoryStore()
    log = list(data.draw(st.permutations(states * 2)))
    epoch, at, codes = 0, 0, {}
    while at < len(log):
        if data.draw(st.integers(0, 5)) == 0:  # a worker of another epoch reads topics made anew, which hold what is left
            epoch, log, at = epoch + 1, log[at:], 0
        catalogue = Catalogue(store, lambda: recommender, lambda: NOW, epoch=epoch)
        first = max(0, at - data.draw(st.integers(0, 2)))  # some are delivered again
        size = data.draw(st.integers(1, 4))
        outcome = catalogue.process([record(offset, log[offset]) for offset in range(first, min(len(log), at + size))])
        codes.update(outcome.codes)
        log.extend(outcome.again)
        at = min(len(log), at + size)
        assert len(log) <= 12 * len(states)  # publishing again comes to an end
    compacted = {state.item_id: state for state in log}
    for name, state in expected.items():
        assert bare(row_of(store, name)[0]) == state_of(state)
        assert (codes[name] is None) == state.deleted
        if not state.deleted:
            assert codes[name].vector == row_of(store, name)[0].vector
            vector = np.frombuffer(codes[name].vector, "<f4")
            np.testing.assert_allclose(vector, recommender.item_vectors([state])[0], atol=1e-6)  # sizes of batches differ
            assert (codes[name].price, codes[name].ts) == (state.price, state.ts)
    assert {name: state_of(state) for name, state in compacted.items()}.items() <= {n: state_of(s) for n, s in expected.items()}.items()


def test_a_new_bundle_encodes_the_states_that_count_and_older_records_bring_none_back(store, recommender):
    current = [recommender]
    catalogue = Catalogue(store, lambda: current[0], lambda: NOW)
    log = [record(0, item(title="old", ts=NOW - 9)), record(1, item(title="new")), record(2, item("gone")), Record(3, b"gone", None)]
    catalogue.process(log)
    current[0] = Recommender(quickly_trained(2))
    for again in log:  # each record a batch of its own
        outcome = catalogue.process([again])
        assert outcome.again == []
    row, version = row_of(store, "new")
    assert (row.title, row.generation, version) == ("new", current[0].generation, LogPosition(0, 2))
    assert row_of(store, "gone")[0].deleted


@pytest.mark.parametrize("wrong", [[1.0], [1.0] * 5, [], [0.0] * 4, [1e308] * 4, [0.5] * 4096])
def test_a_given_embedding_that_cannot_be_used_counts_as_missing(catalogue, store, recommender, wrong):
    outcome = catalogue.process([record(0, item(image_embedding=wrong, text_embedding=[1.0, 0.0]))])
    assert outcome.dead == []
    vector = np.frombuffer(row_of(store, "new")[0].vector, "<f4")
    assert np.linalg.norm(vector) == pytest.approx(1)
    if len(wrong) != 4 or not any(wrong):
        np.testing.assert_allclose(vector, recommender.item_vectors([item()])[0], atol=1e-6)


def test_an_embedding_that_is_too_long_or_no_numbers_is_a_dead_letter(catalogue):
    long, words = record(0, item(image_embedding=[0.5] * 4097)), encode(item()).replace(b"2.5", b'2.5,"text_embedding":["x"]')
    outcome = catalogue.process([long, Record(1, b"new", words), Record(2, b"new", encode(item()).replace(b"2.5", b"1e999"))])
    assert [letter.reason for letter in outcome.dead][:2] == ["wrong_shape", "wrong_shape"]
    assert len(outcome.dead) == 3


def test_the_same_records_may_be_processed_again_after_the_store_failed(recommender):
    store = Cut()
    catalogue = Catalogue(store, lambda: recommender, lambda: NOW)
    batch = [record(0, item("a")), record(1, item("b"))]
    with pytest.raises(StoreUnavailableError):
        catalogue.process(batch)
    assert [name for name, _ in catalogue.process(batch).codes] == ["a", "b"]
    assert row_of(store, "a") is not None
    assert row_of(store, "b") is not None


def test_the_bundle_of_the_moment_encodes(store, recommender):
    current = [recommender]
    catalogue = Catalogue(store, lambda: current[0], lambda: NOW)
    [(_, before)] = catalogue.process([record(0, item())]).codes
    current[0] = Recommender(quickly_trained(2))
    [(_, after)] = catalogue.process([record(0, item())]).codes
    assert before.bundle != after.bundle
    assert row_of(store, "new")[0].generation == after.bundle == current[0].generation


@pytest.mark.parametrize(("header", "expected"), [(b"12", 12), (None, 0), (b"", 0), (b"-1", 0), (b"1.5", 0), (b"9" * 5000, 0)])
def test_a_header_of_the_sending_time_is_taken_only_when_it_is_one(catalogue, header, expected):
    outcome = catalogue.process([record(0, item(), headers=(("other", b"7"), ("sent_ms", header)))])
    assert outcome.codes[0][1].sent_ms == expected


@pytest.mark.fault("A damaged item row in the store", "It is quarantined and rebuilt from the topic")
def test_a_damaged_item_row_is_kept_apart_and_is_made_again(catalogue, store):
    catalogue.process([record(0, item())])
    [whole] = store.read([Key("item", ("new",))])
    store.write([(Key("item", ("new",)), whole._replace(packed=b"\xff" * 50))])
    assert [name for name, _ in catalogue.process([record(1, item())]).codes] == ["new"]
    assert row_of(store, "new")[0].title == "red thing"
    assert [(kept.view, kept.entities) for kept in store.quarantined()] == [("item", ("new",))]


@pytest.mark.fault(
    "An item whose embedding has another width than the bundle",
    "The item is encoded without the embedding, which is counted and logged once",
)
def test_an_embedding_that_the_bundle_cannot_use_is_counted_and_the_first_is_logged(catalogue, recommender, caplog):
    fits = [1.0, 0.0, 0.0, 0.0]
    given = [fits, fits[:3], fits * 2, [0.0] * 4, None]
    batch = [record(n, item(f"i{n}", image_embedding=vector)) for n, vector in enumerate(given)]
    outcome = catalogue.process(batch)
    assert (outcome.dead, outcome.ignored["image"]) == ([], 3)
    assert caplog.text.count("image embedding") == 1
    codes = dict(outcome.codes)
    plain = recommender.item_vectors([item("i1")])[0]
    np.testing.assert_allclose(np.frombuffer(codes["i1"].vector, "<f4"), plain, atol=1e-6)
    assert codes["i0"].vector != codes["i1"].vector
