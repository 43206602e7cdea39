"""What workers serve with: swaps of bundles, and the index that follows item codes."""

import logging

import msgspec
import numpy as np
import pytest

from models.bundle import MANIFEST, WEIGHTS, load, save
from models.index import Where
from stream.serving.bundle_swapper import BundleSwapper
from tests.live_index import check, code, say
from tests.tiny_bundle import quickly_trained


def opened(directory, make, *retire):
    swapper = BundleSwapper(directory, make, *retire)
    assert swapper.open()
    return swapper


def test_the_first_bundle_is_awaited_and_the_problem_says_how_to_make_one(directory, caplog):
    save(quickly_trained(1), directory)
    manifest = (directory / MANIFEST).read_bytes()
    (directory / MANIFEST).unlink()
    swapper = BundleSwapper(directory, load)
    assert [swapper.open(), swapper.open()] == [False, False]
    assert f"everlong train --out {directory}" in swapper.problem
    (directory / MANIFEST).write_bytes(b"{")
    assert not swapper.open()
    assert "everlong train --out" not in swapper.problem
    (directory / MANIFEST).write_bytes(manifest)
    assert swapper.open()
    assert swapper.problem is None
    assert swapper.current.generation == swapper.generation == quickly_trained(1).generation
    assert caplog.text.count("there is no bundle at") == 1


def test_the_same_generation_is_not_loaded_again(directory):
    made = []
    swapper = opened(directory, lambda path: made.append(path) or load(path))
    save(quickly_trained(1), directory)
    assert [swapper.look(), swapper.look()] == [False, False]
    assert made == [directory]


def test_a_new_generation_replaces_the_old_one_once(directory):
    retired = []
    swapper = opened(directory, load, retired.append)
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
    swapper = opened(directory, load)
    old = swapper.current
    save(quickly_trained(2), directory)
    spoil(directory)
    with caplog.at_level(logging.ERROR):
        assert not swapper.look()
        assert not swapper.look()
    assert caplog.text.count("is still served") == 1
    assert swapper.problem is not None
    assert "is still served" in caplog.text
    assert swapper.current is old
    assert swapper.generation == old.generation
    save(quickly_trained(2), directory)
    assert swapper.look()
    assert swapper.problem is None


def test_whatever_goes_wrong_with_a_new_bundle_does_not_end_the_worker(directory):
    def make(path):
        if (bundle := load(path)).generation == quickly_trained(2).generation:
            raise RuntimeError("CUDA out of memory")
        return bundle

    swapper = opened(directory, make)
    save(quickly_trained(2), directory)
    assert not swapper.look()
    assert swapper.current.generation == quickly_trained(1).generation


def test_codes_come_into_the_index_and_go(live, told):
    known = live.index
    assert len(known) == 72
    say(live, ("new", code("new", ts=9, sent_ms=3)), ("i0-1", None), ("never there", None), ("i0-2", code("i0-2", "c5", ts=7)))
    assert told.news == [(72, 9, [])]  # nothing is measured before the reader has caught up
    assert known.category_of("new") == "c1"
    assert known.category_of("i0-2") == "c5"
    assert "i0-1" not in known
    vector = np.frombuffer(code("new").vector, "<f4")
    view = known.look()
    assert view.hits(view.search_pool(vector[None], 1))[0][0][0] in ("new", *(f"i1-{n}" for n in (0, 4, 8)))
    say(live, ("new", None))
    assert "new" not in known
    assert told.news[-1] == (71, 0, [])
    check(live)


def test_of_an_item_that_comes_and_goes_in_one_batch_the_last_word_counts(live):
    say(live, ("a", code("a")), ("a", None), ("b", None), ("b", code("b")))
    assert ("a" in live.index, "b" in live.index) == (False, True)


def test_vectors_of_items_that_are_gone_do_not_pile_up(live):
    recommender = live.serving.recommender
    size = len(recommender._vectors)
    for n in range(3 * size):
        say(live, (f"new{n}", code(f"new{n}")))
        say(live, (f"new{n}", None))
    assert len(recommender._vectors) <= 2 * size
    say(live, ("kept", code("kept")))
    say(live, *((f"again{n}", code(f"again{n}")) for n in range(5)))
    assert len({recommender._places[item] for item in ("kept", *(f"again{n}" for n in range(5)))}) == 6


def test_histories_read_the_vectors_that_codes_brought(live):
    recommender = live.serving.recommender
    before = dict(recommender._places)
    say(live, ("new", code("new")))
    place = recommender._places["new"]
    assert "new" not in before
    np.testing.assert_array_equal(recommender._vectors[place].numpy(), np.frombuffer(code("new").vector, "<f4"))


def test_codes_of_another_bundle_are_counted_and_left_out(live, told):
    say(live, ("new", code("new", seed=2)), ("i0-1", code("i0-1", "c5", bundle="another")), ("mine", code("mine")))
    assert told.others == 2
    assert "new" not in live.index
    assert live.index.category_of("i0-1") == "c0"
    assert "mine" in live.index
    assert told.news[-1][0] == 73


def test_a_code_of_a_codebook_that_is_not_held_is_made_here(live, told):
    say(live, ("new", code("new", codebook="unheard of")), ("other", code("other")))
    assert (told.made_here, told.others) == (1, 0)
    check(live)


def test_prices_and_availability_reach_the_index(live):
    say(live, ("dear", code("dear", price=99.0)), ("cheap", code("cheap", price=2.0)), ("gone", code("gone", price=99.5, available=False)))
    view, vector = live.index.look(), np.frombuffer(code("dear").vector, "<f4")[None]
    assert [name for name, _ in view.hits(view.search_pool(vector, 3, where=Where(least_price=50, available=True)))[0]] == ["dear"]


INFINITE, NOT_A_NUMBER = b"\x00\x00\x80\x7f", b"\x00\x00\xc0\x7f"
WRONG_CODES = [
    ({"vector": b"123"}, "wrong_width"),
    ({"vector": b"1234"}, "wrong_width"),
    ({"vector": b""}, "wrong_width"),
    ({"code": b"1"}, "wrong_width"),
    ({"code": b""}, "wrong_width"),
    ({"code": b"\xff" * 4}, "wrong_code"),
    ({"parts": b"\x00\x00\x00\x00" * 16}, "wrong_width"),
    ({"parts": b"12345"}, "wrong_width"),
    ({"price": float("inf")}, "not_finite"),
    ({"price": float("nan")}, "not_finite"),
    ({"price": 3.5e38}, "not_finite"),
    ({"price": 1e308}, "not_finite"),
    ({"vector": INFINITE * 16}, "not_finite"),
    ({"vector": NOT_A_NUMBER * 16}, "not_finite"),
]


@pytest.mark.fault("An item code with a price beyond float32, a wrong width or non-finite numbers", "It is skipped and counted")
def test_a_code_that_cannot_be_used_is_skipped_and_counted_and_each_kind_is_logged_once(live, told, caplog):
    for number, (wrong, reason) in enumerate(WRONG_CODES):
        say(
            live,
            (f"bad {number}", msgspec.structs.replace(code("new"), item_id=f"bad {number}", **wrong)),
            (f"good {number}", code(f"good {number}")),
        )
        assert (f"bad {number}" in live.index, f"good {number}" in live.index) == (False, True), wrong
        assert told.faults[-1] == reason, wrong
    assert len(told.faults) == len(WRONG_CODES)
    assert told.others == 0
    assert caplog.text.count("is skipped") == len({reason for _, reason in WRONG_CODES})
