"""The records of the topic of codebooks, read in any order, and what an index does: it never serves an unfinished codebook."""

from functools import cache
from typing import NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.codes.codebook import Codebook
from stream.codes.codebook_registry import MOST_HELD, CodebookRegistry, codebook_of, key_of, next_step
from stream.codes.readers import CodeRecord, decode_codes
from stream.kafka.messages import RECODE, CodebookRecord, CodesAnswer, CodesRequest, CurrentCodes, DriftReport, ItemCode, Skips

BUNDLE = "b"


@cache
def codebook(number):
    return Codebook.from_centroids(np.random.default_rng(number).normal(size=(2, 4, 3)).astype(np.float32))


OWN = codebook(0).generation


def generation(number, ends=None, started_ms=None, bundle=BUNDLE):
    made = codebook(number)
    return CodebookRecord(
        codebook=made.generation,
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
        bundle=BUNDLE, codebook=codebook(number).generation, previous=codebook(previous).generation, since_ms=since_ms, why=why
    )


def told(*records):
    registry = CodebookRegistry()
    for record in records:
        registry.apply_record(key_of(record), msgspec.json.encode(record))
    return registry


def test_every_kind_of_record_comes_back():
    records = [
        generation(1, ends={0: 3, 1: 0}),
        current(1, 0, 5),
        DriftReport(
            bundle=BUNDLE,
            own=OWN,
            codebook=OWN,
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
    registry = told(*records)
    assert [
        registry.announced[records[0].codebook].record,
        registry.currents[BUNDLE],
        registry.drifts[BUNDLE],
        registry.request,
        registry.answer,
    ] == records
    assert codebook_of(records[0]).generation == registry.announced[codebook(1).generation].codebook.generation == codebook(1).generation
    registry.apply_record(key_of(records[0]), None)
    assert registry.announced == {}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"other:x", b"{}"),
        (None, b"{}"),
        (b"codebook:x", b"{"),
        (b"codebook:x", b"{}"),
        (b"\xff", b"1"),
        (b"codebook:x", msgspec.json.encode(msgspec.structs.replace(generation(1), centroids=generation(2).centroids))),
        (b"codebook:x", msgspec.json.encode(msgspec.structs.replace(generation(1), centroids=b"abc"))),
    ],
)
def test_what_is_no_record_is_skipped(key, value):
    registry = CodebookRegistry()
    assert registry.apply_record(key, value) is not None
    assert not registry.announced


def test_the_own_generation_is_in_use_until_another_one_is_complete_and_named():
    registry = told(generation(1))
    assert registry.current(BUNDLE, OWN) == OWN
    assert registry.pending(BUNDLE, OWN).record.codebook == codebook(1).generation
    registry = told(generation(1), current(1, 0, 15))
    assert (registry.current(BUNDLE, OWN), registry.settled(BUNDLE, OWN)) == (OWN, False)
    registry = told(generation(1, ends={}), current(1, 0, 15))
    assert (registry.current(BUNDLE, OWN), registry.previous(BUNDLE, OWN)) == (codebook(1).generation, OWN)
    assert registry.pending(BUNDLE, OWN) is None
    assert registry.used(BUNDLE, codebook(0)).generation == codebook(1).generation
    assert registry.used("other", codebook(0)) is codebook(0)


class Watched(CodebookRegistry):
    """Asks, after every single change of its state, what a reader in another thread may ask at that moment."""

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        if hasattr(self, "_skips"):
            self.used(BUNDLE, codebook(0))
            if (found := self.pending(BUNDLE, OWN)) is not None:
                assert found.codebook.generation == found.record.codebook


def test_a_reader_in_another_thread_finds_a_codebook_and_its_record_or_neither():
    registry = Watched()
    for record in (generation(1), generation(1, ends={}), current(1, 0, 15), generation(2)):
        assert registry.apply_record(key_of(record), msgspec.json.encode(record)) is None
    assert registry.used(BUNDLE, codebook(0)).generation == codebook(1).generation
    for record in (generation(1), generation(2)):
        registry.apply_record(key_of(record), None)
    assert registry.used(BUNDLE, codebook(0)) is codebook(0)


def test_after_a_rollback_the_generation_that_was_left_is_not_awaited():
    registry = told(generation(1, ends={}), current(0, 1, 99, "rollback"))
    assert registry.current(BUNDLE, OWN) == OWN
    assert registry.previous(BUNDLE, OWN) == codebook(1).generation
    assert registry.pending(BUNDLE, OWN) is None


class Index:
    """What an index knows of generations; it complains of what must not be."""

    def __init__(self):
        self.held, self.serving = [OWN], OWN

    def step(self, registry, passed=lambda record: True):
        step = next_step(registry, BUNDLE, OWN, self.held, self.serving, passed)
        if step is None:
            return False
        if step.action == "hold":
            assert step.codebook == OWN or registry.complete(BUNDLE, step.codebook) is not None
            self.held.append(step.codebook)
            assert len(self.held) <= MOST_HELD
        elif step.action == "serve":
            assert step.codebook in self.held
            assert step.codebook == registry.current(BUNDLE, OWN)
            self.serving = step.codebook
        else:
            assert step.codebook != self.serving
            self.held.remove(step.codebook)
        return True

    def settle(self, registry, passed=lambda record: True):
        for _ in range(10):
            if not self.step(registry, passed):
                return
        raise AssertionError("it never comes to rest")


def test_a_generation_is_held_only_when_its_codes_were_read():
    index, registry = Index(), told(generation(1, ends={0: 7}), current(1, 0, 15))
    index.settle(registry, lambda record: False)
    assert (index.held, index.serving) == ([OWN], OWN)
    index.settle(registry)
    assert (set(index.held), index.serving) == ({OWN, codebook(1).generation}, codebook(1).generation)


def test_a_rollback_needs_one_step_where_the_old_one_is_held():
    index = Index()
    index.settle(told(generation(1, ends={}), current(1, 0, 15)))
    registry = told(generation(1, ends={}), current(0, 1, 20, "rollback"))
    assert index.step(registry)
    assert index.serving == OWN
    assert not index.step(registry)


@st.composite
def histories(draw):
    """Refreshes, some of them broken off, and rollbacks: the records in the order in which a manager publishes them."""
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
    registry, index, waiting, complete = CodebookRegistry(), Index(), dict(lanes), {OWN}
    while waiting:
        key = data.draw(st.sampled_from(sorted(waiting)))
        record, *rest = waiting.pop(key)
        if rest:
            waiting[key] = rest
        registry.apply_record(key, msgspec.json.encode(record))
        if isinstance(record, CodebookRecord) and record.ends is not None:
            complete.add(record.codebook)
        lagging = data.draw(st.booleans())
        while index.step(registry, lambda record: not lagging):  # noqa: B023
            assert index.serving in complete
        assert index.serving in complete
        assert set(index.held) <= complete
    index.settle(registry)
    assert index.serving == codebook(used).generation == registry.current(BUNDLE, OWN)
    assert len(index.held) <= MOST_HELD


def test_old_item_codes_still_decode():
    old = b'{"item_id":"i","category_id":"c","vector":"AAAAAA==","code":"AQ==","bundle":"g","ts":5}'
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
    registry = CodebookRegistry(skips)
    good = generation(1, ends={0: 1})
    wrong = [
        Sent(None, None), Sent(b"codebook:x", DEEP), Sent(b"codebook:other", msgspec.json.encode(good)), Sent(b"what:x", b"{}"),
        Sent(b"current:x", msgspec.json.encode(good)), Sent(key_of(good), msgspec.json.encode(good).replace(b'"shape":[', b'"shape":[0,')),
        Sent(key_of(good), msgspec.json.encode(good).replace(b'"started_ms":', b'"started_ms":1e400,"x":')), Sent(b"request:x", b"{}"),
    ]  # fmt: skip
    registry.apply(wrong, {})
    assert not registry.announced
    assert len(counted) == len(wrong)
    assert {topic for topic, _ in counted} == {"codebooks"}
    registry.apply([Sent(key_of(good), msgspec.json.encode(good))], {})
    assert list(registry.announced) == [good.codebook]
    counted.clear()
    code = ItemCode(item_id="i", category_id="c", vector=b"1234", code=b"1", bundle="g", ts=1)
    sent = [
        Sent(b"i", DEEP), Sent(b"other", msgspec.json.encode(code)), Sent(None, b"{}"), Sent(b"\xfe", b"{}"), Sent(b"i", b"\xff"),
        Sent(RECODE + b"i", msgspec.json.encode(code)), Sent(b"i", msgspec.json.encode(code).replace(b'"ts":1', b'"ts":1' + b"0" * 40)),
    ]  # fmt: skip
    found = decode_codes([*sent, Sent(b"i", msgspec.json.encode(code)), Sent(b"i", None)], skips)
    assert found == [CodeRecord("i", code), CodeRecord("i", None)]
    assert len(counted) == len(sent)


def test_a_codebook_of_other_dimensions_than_the_bundle_is_never_in_use():
    registry, good = CodebookRegistry(), generation(1, ends={0: 1})
    registry.apply_record(key_of(good), msgspec.json.encode(good))
    said = CurrentCodes(bundle=good.bundle, codebook=good.codebook, previous=good.own, since_ms=1, why="refresh")
    registry.apply_record(key_of(said), msgspec.json.encode(said))
    assert registry.current(good.bundle, good.own) == good.codebook
    registry.expect(good.bundle, Codebook.from_centroids(np.zeros((3, 2, 5), np.float32)))
    assert (registry.current(good.bundle, good.own), registry.pending(good.bundle, good.own)) == (good.own, None)
