"""The catalogue pipeline: item records become rows and codes, or dead letters, and nothing else."""

from typing import NamedTuple

import numpy as np
import pytest

from features.codec import unpack
from features.events import Item, encode
from features.outcomes import ItemRow
from features.store import Key, StoreUnavailable, Version
from features.store.memory import MemoryStore
from models.recommender import Recommender
from stream.catalogue import Catalogue
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
            raise StoreUnavailable("it was cut off")
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
    return (unpack(ItemRow, found.packed), found.version) if found else None


def test_an_item_becomes_a_row_and_a_code_of_the_bundle(catalogue, store, recommender):
    outcome = catalogue.process([record(7, item(), headers=(("sent_ms", b"1699999999000"),))])
    row, version = row_of(store, "new")
    [(name, code)] = outcome.codes
    vector = recommender.item_vectors([item()])
    assert (row.category, row.title, row.price, row.ts, row.deleted) == ("c1", "red thing", 2.5, NOW - 5, False)
    assert row.generation == code.generation == recommender.generation
    assert row.vector == code.vector == vector.astype("<f4").tobytes()
    assert row.code == code.code == recommender.item_codes(vector).tobytes()
    assert version == Version(0, 8)
    assert (name, code.item_id, code.category_id, code.ts, code.sent_ms) == ("new", "new", "c1", NOW - 5, 1_699_999_999_000)
    assert (outcome.dead, outcome.counts) == ([], {"applied": 1, "dead": 0})


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
    assert (row.deleted, row.vector, row.code, version) == (True, b"", b"", Version(0, 5))


@pytest.mark.parametrize("key", [b"\xff", b"\xff" * 400_000, b"x" * 129])
def test_a_tombstone_whose_key_can_be_no_items_id_is_a_dead_letter(catalogue, key):
    outcome = catalogue.process([Record(0, key, None), record(1, item())])
    assert [(letter.offset, letter.reason, letter.value) for letter in outcome.dead] == [(0, "wrong_key", None)]
    assert [name for name, _ in outcome.codes] == ["new"]
    assert outcome.counts == {"applied": 1, "dead": 1}


def test_of_several_records_of_an_item_the_last_offset_counts(catalogue, store):
    batch = [
        record(0, item("a", title="first")),
        record(1, item("b")),
        record(2, item("a", title="second", ts=NOW - 9)),
        Record(3, b"b", None),
        Record(4, b"c", None),
        record(5, item("c", title="back")),
    ]
    outcome = catalogue.process(batch)
    assert outcome.counts == {"applied": 6, "dead": 0}
    assert {name: code is None for name, code in outcome.codes} == {"a": False, "b": True, "c": False}
    assert len(outcome.codes) == 3
    assert [row_of(store, name)[0].title for name in "abc"] == ["second", "", "back"]
    assert [row_of(store, name)[1].clicks for name in "abc"] == [3, 4, 6]


def test_a_record_older_than_the_row_is_refused_and_not_published(catalogue, store):
    catalogue.process([record(9, item("a", title="newer"))])
    outcome = catalogue.process([record(3, item("a", title="older")), record(4, item("b"))])
    assert [name for name, _ in outcome.codes] == ["b"]
    assert outcome.counts == {"applied": 2, "dead": 0}
    assert row_of(store, "a")[0].title == "newer"
    assert catalogue.process([record(9, item("a", title="newer"))]).codes[0][0] == "a"  # the same again is harmless


def test_topics_made_anew_start_again_under_the_next_epoch(store, recommender):
    Catalogue(store, lambda: recommender, lambda: NOW, epoch=1).process([record(90, item(title="before"))])
    Catalogue(store, lambda: recommender, lambda: NOW, epoch=2).process([record(0, item(title="after"))])
    assert row_of(store, "new")[0].title == "after"


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
    with pytest.raises(StoreUnavailable):
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
    assert before.generation != after.generation
    assert row_of(store, "new")[0].generation == after.generation == current[0].generation


@pytest.mark.parametrize(("header", "expected"), [(b"12", 12), (None, 0), (b"", 0), (b"-1", 0), (b"1.5", 0), (b"9" * 5000, 0)])
def test_a_header_of_the_sending_time_is_taken_only_when_it_is_one(catalogue, header, expected):
    outcome = catalogue.process([record(0, item(), headers=(("other", b"7"), ("sent_ms", header)))])
    assert outcome.codes[0][1].sent_ms == expected
