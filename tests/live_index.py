"""A refresh worker's index without a worker: what is said to it, and what of it must always hold."""

from functools import cache

import msgspec
import numpy as np

from features.events import Item
from models.codes.codebook import Codebook
from models.serving.recommender import Recommender
from stream.codes.codebook_registry import key_of
from stream.codes.readers import CodeRecord
from stream.kafka.connection import Connection
from stream.kafka.messages import CodebookRecord, CurrentCodes, ItemCode, Recode, digest
from stream.serving.live_index import IndexObserver
from tests.tiny_bundle import quickly_trained

NOBODY = Connection(bootstrap="127.0.0.1:1")
OFFSETS = {0: 0, 1: 0}


class Told(IndexObserver):
    """Notes the events of an index."""

    def __init__(self):
        self.news, self.others, self.made_here, self.work, self.used, self.faults = [], 0, 0, [], [], []

    def items(self, items, newest_ts, sent_ms):
        self.news.append((items, newest_ts, list(sent_ms)))

    def codebooks(self, serving, held):
        self.used.append((serving, tuple(held)))

    def left_out(self, codes):
        self.others += codes

    def encoded_here(self, codes):
        self.made_here += codes

    def skipped(self, topic, reason):
        self.faults.append(reason)

    def upkeep(self, what, seconds):
        self.work.append(what)


def say(live, *words, offsets=None):
    live.apply([CodeRecord(item, said) for item, said in words], offsets or OFFSETS)


@cache
def recommender_of(seed):
    return Recommender(quickly_trained(seed))


def code(name, category="c1", bundle=None, seed=1, ts=5, sent_ms=0, **more):
    recommender = recommender_of(seed)
    title = more.pop("title", "red thing")
    vectors = recommender.item_vectors([Item(item_id=name, category_id=category, title=title, ts=ts)])
    return ItemCode(
        item_id=name,
        category_id=category,
        vector=vectors.astype("<f4").tobytes(),
        code=recommender.item_codes(vectors).tobytes(),
        bundle=bundle or recommender.generation,
        ts=ts,
        sent_ms=sent_ms,
        **more,
    )


@cache
def codebook(number):
    """Another codebook for the vectors of bundle 1: its own, moved a little; 0 is its own."""
    own = quickly_trained(1).codebook
    return own if number == 0 else Codebook.from_centroids(own.centroids * np.float32(1 + number / 3))


def announced(number, parent=0, begins=None, ends=None):
    made, bundle = codebook(number), quickly_trained(1)
    return CodebookRecord(
        codebook=made.generation,
        bundle=bundle.generation,
        own=bundle.codebook.generation,
        parent=codebook(parent).generation,
        centroids=made.centroids.astype("<f4").tobytes(),
        shape=made.centroids.shape,
        how="cold",
        started_ms=10 * number,
        begins=begins or {},
        ends=ends,
    )


def named(number, previous, since_ms, why="refresh"):
    return CurrentCodes(
        bundle=quickly_trained(1).generation,
        codebook=codebook(number).generation,
        previous=codebook(previous).generation,
        since_ms=since_ms,
        why=why,
    )


def apply_record(registry, *records):
    for record in records:
        registry.apply_record(key_of(record), msgspec.json.encode(record))


def follow(live):
    for _ in range(10):
        if not live.follow():
            return
    raise AssertionError("it never comes to rest")


def check(live):
    """Every code is, byte for byte, that of its item's vector under the codebook that serves."""
    view = live.index.look()
    numbers = view.everything()
    np.testing.assert_array_equal(view.codes(numbers), view.codebook.encode(view.vectors(numbers)))
    assert view.generation == live.index.generation


def recodes(number, live, names):
    view = live.index.look()
    vectors = view.vectors(view.numbers(names))
    made = codebook(number).encode(vectors)
    return [
        (
            name,
            Recode(item_id=name, bundle=live.bundle, codebook=codebook(number).generation, code=row.tobytes(), of=digest(vector.tobytes())),
        )
        for name, row, vector in zip(names, made, vectors.astype("<f4"), strict=True)
    ]


def vectors_of(code):
    return np.frombuffer(code.vector, "<f4")[None]
