"""What the topic of codebooks says, met in any order, and what an index does: it never serves an unfinished generation."""

from functools import cache
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.codes.codebook import Codebook
from stream.codes.code_reader import Word, words
from stream.codes.codebook_registry import MOST_HELD, Book, codebook_of, key_of, next_step
from stream.kafka.messages import RECODE, CodesAnswer, CodesRequest, CurrentCodes, DriftReport, Generation, ItemCode
from stream.kafka.skips import Skips

BUNDLE = "b"


@cache
def codebook(number):
    return Codebook.from_centroids(np.random.default_rng(number).normal(size=(2, 4, 3)).astype(np.float32))


OWN = codebook(0).generation


def generation(number, ends=None, started_ms=None, bundle=BUNDLE):
    made = codebook(number)
    return Generation(
        generation=made.generation,
        bundle=bundle,
        own=OWN,
        parent=codebook(number - 1).generation,
        centroids=made.centroids.astype("<f4").tobytes(),
        shape=made.centroids.shape,
        how="cold",
        started_ms=10 * number if started_ms is None else started_ms,
        ends=ends,
    )


def current(number, previous, since_ms, why="refresh"):
    return CurrentCodes(
        bundle=BUNDLE, generation=codebook(number).generation, previous=codebook(previous).generation, since_ms=since_ms, why=why
    )


def told(*records):
    book = Book()
    for record in records:
        book.learn(key_of(record), msgspec.json.encode(record))
    return book


def test_every_kind_of_record_comes_back():
    records = [
        generation(1, ends={0: 3, 1: 0}),
        current(1, 0, 5),
        DriftReport(
            bundle=BUNDLE,
            own=OWN,
            generation=OWN,
            measured_ms=3,
            items=2,
            figures={"overlap": 0.5},
            action="warm",
            reason="x",
            automatic=True,
        ),
        CodesRequest(id="r", what="refresh", asked_ms=4),
        CodesAnswer(id="r", state="working", detail="x", at_ms=5),
    ]
    book = told(*records)
    assert [book.generations[records[0].generation], book.currents[BUNDLE], book.drifts[BUNDLE], book.request, book.answer] == records
    assert codebook_of(records[0]).generation == book.codebook(codebook(1).generation).generation == codebook(1).generation
    book.learn(key_of(records[0]), None)
    assert book.generations == {}
    with pytest.raises(KeyError):
        book.codebook(records[0].generation)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"other:x", b"{}"),
        (None, b"{}"),
        (b"generation:x", b"{"),
        (b"generation:x", b"{}"),
        (b"\xff", b"1"),
        (b"generation:x", msgspec.json.encode(msgspec.structs.replace(generation(1), centroids=generation(2).centroids))),
        (b"generation:x", msgspec.json.encode(msgspec.structs.replace(generation(1), centroids=b"abc"))),
    ],
)
def test_what_is_no_record_is_skipped(key, value):
    book = Book()
    assert book.learn(key, value) is not None
    assert not book.generations


def test_the_own_generation_is_in_use_until_another_one_is_complete_and_named():
    book = told(generation(1))
    assert book.current(BUNDLE, OWN) == OWN
    assert book.coming(BUNDLE, OWN).generation == codebook(1).generation
    book = told(generation(1), current(1, 0, 15))
    assert (book.current(BUNDLE, OWN), book.settled(BUNDLE, OWN)) == (OWN, False)
    book = told(generation(1, ends={}), current(1, 0, 15))
    assert (book.current(BUNDLE, OWN), book.previous(BUNDLE, OWN)) == (codebook(1).generation, OWN)
    assert book.coming(BUNDLE, OWN) is None
    assert book.used(BUNDLE, codebook(0)).generation == codebook(1).generation
    assert book.used("other", codebook(0)) is codebook(0)


def test_after_a_rollback_the_generation_that_was_left_is_not_awaited():
    book = told(generation(1, ends={}), current(0, 1, 99, "rollback"))
    assert book.current(BUNDLE, OWN) == OWN
    assert book.previous(BUNDLE, OWN) == codebook(1).generation
    assert book.coming(BUNDLE, OWN) is None


class Index:
    """What an index knows of generations; it complains of what must not be."""

    def __init__(self):
        self.held, self.serving = [OWN], OWN

    def step(self, book, passed=lambda record: True):
        step = next_step(book, BUNDLE, OWN, self.held, self.serving, passed)
        if step is None:
            return False
        if step.action == "hold":
            assert step.generation == OWN or book.complete(BUNDLE, step.generation) is not None
            self.held.append(step.generation)
            assert len(self.held) <= MOST_HELD
        elif step.action == "serve":
            assert step.generation in self.held
            assert step.generation == book.current(BUNDLE, OWN)
            self.serving = step.generation
        else:
            assert step.generation != self.serving
            self.held.remove(step.generation)
        return True

    def settle(self, book, passed=lambda record: True):
        for _ in range(10):
            if not self.step(book, passed):
                return
        raise AssertionError("it never comes to rest")


def test_a_generation_is_held_only_when_its_codes_were_read():
    index, book = Index(), told(generation(1, ends={0: 7}), current(1, 0, 15))
    index.settle(book, lambda record: False)
    assert (index.held, index.serving) == ([OWN], OWN)
    index.settle(book)
    assert (set(index.held), index.serving) == ({OWN, codebook(1).generation}, codebook(1).generation)


def test_a_rollback_needs_one_step_where_the_old_one_is_held():
    index = Index()
    index.settle(told(generation(1, ends={}), current(1, 0, 15)))
    book = told(generation(1, ends={}), current(0, 1, 20, "rollback"))
    assert index.step(book)
    assert index.serving == OWN
    assert not index.step(book)


@st.composite
def histories(draw):
    """Refreshes, some of them broken off, and rollbacks: the records in the order in which a keeper publishes them."""
    records, now, used, previous = [], 0, 0, None
    finished = {0}
    for number in range(1, draw(st.integers(1, 5)) + 1):
        now += 10
        records.append(generation(number, started_ms=now))
        if draw(st.booleans()):
            continue
        records.append(generation(number, ends={0: number}, started_ms=now))
        finished.add(number)
        now += 5
        records.append(current(number, used, now))
        used, previous = number, used
        if draw(st.booleans()):
            now += 1
            records.append(current(previous, used, now, "rollback"))
            used, previous = previous, used
    return records, used


@settings(max_examples=150, deadline=None)
@given(history=histories(), data=st.data())
def test_records_in_any_order_of_their_keys_end_in_serving_the_current_one(history, data):
    records, used = history
    lanes = {}
    for record in records:
        lanes.setdefault(key_of(record), []).append(record)
    book, index, waiting, complete = Book(), Index(), dict(lanes), {OWN}
    while waiting:
        key = data.draw(st.sampled_from(sorted(waiting)))
        record, *rest = waiting.pop(key)
        if rest:
            waiting[key] = rest
        book.learn(key, msgspec.json.encode(record))
        if isinstance(record, Generation) and record.ends is not None:
            complete.add(record.generation)
        lagging = data.draw(st.booleans())
        while index.step(book, lambda record: not lagging):  # noqa: B023
            assert index.serving in complete
        assert index.serving in complete
        assert set(index.held) <= complete
    index.settle(book)
    assert index.serving == codebook(used).generation == book.current(BUNDLE, OWN)
    assert len(index.held) <= MOST_HELD


def test_old_item_codes_still_decode():
    old = b'{"item_id":"i","category_id":"c","vector":"AAAAAA==","code":"AQ==","generation":"g","ts":5}'
    found = msgspec.json.decode(old, type=ItemCode)
    assert (found.codebook, found.price, found.available, found.parts, found.sent_ms) == ("", 0.0, True, b"", 0)


DEEP = b'{"x": ' + b"[" * 100_000


class Sent(NamedTuple):
    key: bytes | None
    value: bytes | None
    topic: str = "t"
    partition: int = 0
    offset: int = 0


@pytest.mark.fault(
    "Malformed records on `item-codes` and `codebooks`: deep nesting, wrong keys, numbers out of range, a codebook of other dimensions",
    "Each is skipped and counted, and the first of each kind is logged",
)
def test_a_malformed_record_is_skipped_and_the_others_are_taken():
    counted = []
    skips = Skips(lambda topic, reason: counted.append((topic, reason)))
    book = Book(skips)
    good = generation(1, ends={0: 1})
    wrong = [
        Sent(None, None), Sent(b"generation:x", DEEP), Sent(b"generation:other", msgspec.json.encode(good)), Sent(b"what:x", b"{}"),
        Sent(b"current:x", msgspec.json.encode(good)), Sent(key_of(good), msgspec.json.encode(good).replace(b'"shape":[', b'"shape":[0,')),
        Sent(key_of(good), msgspec.json.encode(good).replace(b'"started_ms":', b'"started_ms":1e400,"x":')), Sent(b"request:x", b"{}"),
    ]  # fmt: skip
    book.apply(wrong, {})
    assert not book.generations
    assert len(counted) == len(wrong)
    assert {topic for topic, _ in counted} == {"codebooks"}
    book.apply([Sent(key_of(good), msgspec.json.encode(good))], {})
    assert list(book.generations) == [good.generation]
    counted.clear()
    code = ItemCode(item_id="i", category_id="c", vector=b"1234", code=b"1", generation="g", ts=1)
    sent = [
        Sent(b"i", DEEP), Sent(b"other", msgspec.json.encode(code)), Sent(None, b"{}"), Sent(b"\xfe", b"{}"), Sent(b"i", b"\xff"),
        Sent(RECODE + b"i", msgspec.json.encode(code)), Sent(b"i", msgspec.json.encode(code).replace(b'"ts":1', b'"ts":1' + b"0" * 40)),
    ]  # fmt: skip
    assert words([*sent, Sent(b"i", msgspec.json.encode(code)), Sent(b"i", None)], skips) == [Word("i", code), Word("i", None)]
    assert len(counted) == len(sent)


def test_a_codebook_of_other_dimensions_than_the_bundle_is_never_in_use():
    book, good = Book(), generation(1, ends={0: 1})
    book.learn(key_of(good), msgspec.json.encode(good))
    said = CurrentCodes(bundle=good.bundle, generation=good.generation, previous=good.own, since_ms=1, why="refresh")
    book.learn(key_of(said), msgspec.json.encode(said))
    assert book.current(good.bundle, good.own) == good.generation
    book.expect(good.bundle, Codebook.from_centroids(np.zeros((3, 2, 5), np.float32)))
    assert (book.current(good.bundle, good.own), book.coming(good.bundle, good.own)) == (good.own, None)
