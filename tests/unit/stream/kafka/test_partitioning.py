"""Where a key belongs: as Kafka's own producers choose, and what becomes of a record that lies elsewhere."""

from typing import NamedTuple

import pytest
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner import murmur2

from features.codec import pack
from features.events import Click, Item, Topic, encode
from features.history import offline_rows
from features.store import Key
from features.store.memory import MemoryStore
from models.serving.recommender import Recommender
from stream.kafka.topics import partition_of
from stream.pipelines import ingest as pipeline
from stream.pipelines.catalogue import Catalogue
from stream.pipelines.ingest import Ingest
from tests.tiny_bundle import quickly_trained

NOW = 1_700_000_000_000
PARTITIONS = 4
RIGHT = partition_of(b"u", PARTITIONS)
WRONG = (RIGHT + 1) % PARTITIONS


class Record(NamedTuple):
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple = ()
    timestamp: int = NOW


def click(n, user="u"):
    return Click(event_id=f"e{n}", user_id=user, item_id=f"i{n}", category_id="c", ts=NOW - 100 + n)


def records(partition, start, *events):
    return [Record("clicks", partition, start + n, event.user_id.encode(), encode(event)) for n, event in enumerate(events)]


@given(st.binary(min_size=1, max_size=300), st.integers(1, 200))
def test_a_key_belongs_where_the_default_partitioners_send_it(key, partitions):
    everywhere = list(range(partitions))
    assert partition_of(key, partitions) == DefaultPartitioner()(key, everywhere, everywhere) == (murmur2(key) & 0x7FFFFFFF) % partitions


@pytest.mark.parametrize(
    ("key", "hashed"),
    [(b"21", -973932308), (b"foobar", -790332482), (b"abc", 479470107), (b"a-little-bit-long-string", -985981536)],
)
def test_the_hash_is_that_of_kafkas_java_client(key, hashed):
    assert partition_of(key, 1 << 31) == hashed & 0x7FFFFFFF


def test_an_event_in_another_partition_is_a_dead_letter_and_not_lost_as_redelivered():
    store = MemoryStore()
    first, second = (Ingest(store, lambda: NOW, partitions=PARTITIONS) for _ in range(2))
    assert first.process(Topic.CLICKS, records(RIGHT, 1000, click(1))).counts == {"applied": 1, "dead": 0}
    outcome = second.process(Topic.CLICKS, records(WRONG, 5, click(2), click(3)))
    assert (outcome.counts, outcome.refreshes) == ({"dead": 2}, [])
    assert [(letter.partition, letter.offset, letter.reason) for letter in outcome.dead] == [
        (WRONG, 5, "wrong_partition"),
        (WRONG, 6, "wrong_partition"),
    ]
    assert f"belongs to partition {RIGHT} of {PARTITIONS}" in outcome.dead[0].detail
    assert "murmur2_random" in outcome.dead[0].detail
    again = [Record("clicks", RIGHT, 1001 + n, letter.key, letter.value) for n, letter in enumerate(outcome.dead)]
    assert first.process(Topic.CLICKS, again).counts == {"applied": 2, "dead": 0}
    users, _ = offline_rows([click(1), click(2), click(3)])
    assert store.read([Key("user", ("u",))])[0].packed == pack(users["u"])


def test_a_user_is_looked_at_once_while_cached_and_others_of_the_list_are_applied(monkeypatch):
    looked_at = []

    def counting(key, partition, partitions):
        looked_at.append(key)
        return misplaced(key, partition, partitions)

    misplaced = pipeline.misplaced
    monkeypatch.setattr(pipeline, "misplaced", counting)
    here = next(name for name in map("v{}".format, range(99)) if partition_of(name.encode(), PARTITIONS) == WRONG)
    worker = Ingest(MemoryStore(), lambda: NOW, partitions=PARTITIONS)
    for start in (0, 6):
        batch = [click(start + n, user) for n, user in enumerate((here, "u", here, here, "u", here))]
        outcome = worker.process(Topic.CLICKS, records(WRONG, start, *batch))
        assert outcome.counts == {"applied": 4, "dead": 2}
        assert [letter.offset for letter in outcome.dead] == [start + 1, start + 4]
    assert looked_at == [here.encode(), b"u", b"u"]


def test_an_item_or_a_deletion_in_another_partition_is_a_dead_letter():
    store = MemoryStore()
    recommender = Recommender(quickly_trained(1))
    catalogue = Catalogue(store, lambda: recommender, lambda: NOW, partitions=PARTITIONS)
    value = encode(Item(item_id="u", category_id="c1", title="red thing", ts=NOW - 5))
    [(name, code)] = catalogue.process([Record("items", RIGHT, 9, b"u", value)]).codes
    assert (name, code is None) == ("u", False)
    outcome = catalogue.process([Record("items", WRONG, 10, b"u", value), Record("items", WRONG, 11, b"u", None)])
    assert [(letter.offset, letter.reason) for letter in outcome.dead] == [(10, "wrong_partition"), (11, "wrong_partition")]
    assert (outcome.codes, outcome.counts) == ([], {"dead": 2, "applied": 0})
