"""What workers serve with: swaps of bundles, and the index that follows item codes."""

import logging

import numpy as np
import pytest

from features.events import Item
from models.bundle import MANIFEST, WEIGHTS, load, save
from models.recommender import Recommender
from stream.connection import Connection
from stream.messages import ItemCode
from stream.serving import LiveServing, Swapper
from tests.tiny_bundle import quickly_trained

NOBODY = Connection(bootstrap="127.0.0.1:1")


@pytest.fixture
def directory(tmp_path):
    return save(quickly_trained(1), tmp_path / "bundle")


@pytest.fixture
def told():
    return []


@pytest.fixture
def live(directory, told):
    return LiveServing(directory, "cpu", NOBODY, "item-codes", lambda *news: told.append(news))


def code(name, category="c1", generation=None, seed=1, ts=5, sent_ms=0):
    recommender = Recommender(quickly_trained(seed))
    vectors = recommender.item_vectors([Item(item_id=name, category_id=category, title="red thing", ts=ts)])
    return ItemCode(
        item_id=name,
        category_id=category,
        vector=vectors.astype("<f4").tobytes(),
        code=recommender.item_codes(vectors).tobytes(),
        generation=generation or recommender.generation,
        ts=ts,
        sent_ms=sent_ms,
    )


def test_the_same_generation_is_not_loaded_again(directory):
    made = []
    swapper = Swapper(directory, lambda path: made.append(path) or load(path))
    save(quickly_trained(1), directory)
    assert [swapper.look(), swapper.look()] == [False, False]
    assert made == [directory]


def test_a_new_generation_replaces_the_old_one_once(directory):
    retired = []
    swapper = Swapper(directory, load, retired.append)
    old = swapper.current
    save(quickly_trained(2), directory)
    assert [swapper.look(), swapper.look()] == [True, False]
    assert swapper.current.generation == swapper.generation == quickly_trained(2).generation
    assert retired == [old]
    save(quickly_trained(1), directory)  # back again
    assert swapper.look()
    assert swapper.generation == quickly_trained(1).generation


def truncate(path):
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / MANIFEST).unlink(),
        lambda folder: (folder / MANIFEST).write_bytes(b"{"),
        lambda folder: truncate(folder / WEIGHTS),
        lambda folder: (folder / WEIGHTS).unlink(),
    ],
)
def test_a_broken_bundle_is_logged_and_the_old_one_stays(directory, spoil, caplog):
    swapper = Swapper(directory, load)
    old = swapper.current
    save(quickly_trained(2), directory)
    spoil(directory)
    with caplog.at_level(logging.ERROR):
        assert not swapper.look()
    assert "the old one serves on" in caplog.text
    assert swapper.current is old
    assert swapper.generation == old.generation
    save(quickly_trained(2), directory)
    assert swapper.look()


def test_whatever_goes_wrong_with_a_new_bundle_does_not_end_the_worker(directory):
    def make(path):
        if (bundle := load(path)).generation == quickly_trained(2).generation:
            raise RuntimeError("CUDA out of memory")
        return bundle

    swapper = Swapper(directory, make)
    save(quickly_trained(2), directory)
    assert not swapper.look()
    assert swapper.current.generation == quickly_trained(1).generation


def test_codes_come_into_the_index_and_go(live, told):
    known = live.serving.index
    assert len(known) == 72
    live.apply([("new", code("new", ts=9, sent_ms=3)), ("i0-1", None), ("never there", None), ("i0-2", code("i0-2", "c5", ts=7))])
    assert told == [(72, 9, [])]  # nothing is measured before the tail has caught up
    assert known.category_of("new") == "c1"
    assert known.category_of("i0-2") == "c5"
    assert "i0-1" not in known
    vector = np.frombuffer(code("new").vector, "<f4")
    assert known.search_pool(vector[None], 1)[0][0][0] in ("new", *(f"i1-{n}" for n in (0, 4, 8)))
    live.apply([("new", None)])
    assert "new" not in known
    assert told[-1] == (71, 0, [])


def test_histories_read_the_vectors_that_codes_brought(live):
    recommender = live.serving.recommender
    before = dict(recommender._places)
    live.apply([("new", code("new"))])
    place = recommender._places["new"]
    assert "new" not in before
    np.testing.assert_array_equal(recommender._vectors[place].numpy(), np.frombuffer(code("new").vector, "<f4"))


def test_codes_of_another_generation_are_counted_and_left_out(live, told):
    live.apply([("new", code("new", seed=2)), ("i0-1", code("i0-1", "c5", generation="another")), ("mine", code("mine"))])
    assert live.other_generation == 2
    assert "new" not in live.serving.index
    assert live.serving.index.category_of("i0-1") == "c0"
    assert "mine" in live.serving.index
    assert told[-1][0] == 73
