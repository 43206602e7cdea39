"""Generations of codes in an index that follows the topics: never mixed, never unfinished, in the end the current one."""

from threading import Event, Thread

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.bundle import save
from stream.codes.codebook_registry import CodebookRegistry, key_of
from stream.serving.live_index import LiveIndex
from tests.live_index import NOBODY, Told, announced, apply_record, check, code, codebook, follow, named, recodes, say, vectors_of
from tests.tiny_bundle import quickly_trained


def test_a_generation_is_served_once_all_of_it_was_read(live, registry, told):
    names = live.index.look().names(live.index.look().everything())
    say(live, offsets={0: 5, 1: 5})
    apply_record(registry, announced(1))
    follow(live)
    assert live.index.held == (codebook(0).generation,)
    say(live, *recodes(1, live, names), offsets={0: 30, 1: 40})
    apply_record(registry, announced(1, begins={0: 5, 1: 6}, ends={0: 31, 1: 40}), named(1, 0, 15))
    follow(live)
    assert live.index.generation == codebook(0).generation  # one record of partition 0 is still to come
    say(live, ("late", code("late")), offsets={0: 31, 1: 40})
    follow(live)
    assert live.index.generation == codebook(1).generation
    assert live.index.held == (codebook(0).generation, codebook(1).generation)
    assert told.used[-1] == (live.index.generation, live.index.held)
    check(live)
    apply_record(registry, named(0, 1, 20, "rollback"))
    assert live.follow()
    assert not live.follow()
    assert live.index.generation == codebook(0).generation
    check(live)


def test_published_codes_are_used_and_the_others_kept(live, registry, monkeypatch):
    """What is published is taken as it is: a code that only the manager could have made shows where it came from."""
    say(live, offsets={0: 5})
    apply_record(registry, announced(1))
    follow(live)
    [(name, recode)] = recodes(1, live, ["i0-1"])
    marked = bytes(byte ^ 1 for byte in recode.code)
    stale = msgspec.structs.replace(recode, item_id="i0-2", of=b"12345678")
    say(live, (name, msgspec.structs.replace(recode, code=marked)), ("i0-2", stale), ("new", code("new")), offsets={0: 9})
    apply_record(registry, announced(1, begins={0: 5}, ends={0: 9}), named(1, 0, 15))
    follow(live)
    view = live.index.look()
    numbers = view.numbers(["i0-1", "i0-2", "new"])
    own = codebook(0).encode(view.vectors(numbers))
    new = codebook(1).encode(view.vectors(numbers))
    assert view.codes(numbers)[0].tobytes() == marked
    np.testing.assert_array_equal(view.codes(numbers)[1], own[1])  # not among those published for its vector: the parent's bytes
    np.testing.assert_array_equal(view.codes(numbers)[2], new[2])


def test_a_worker_that_noticed_too_late_makes_all_codes_itself(live, registry):
    say(live, offsets={0: 5})
    apply_record(registry, announced(1, begins={0: 4}, ends={0: 5}), named(1, 0, 15))
    follow(live)
    assert live.index.generation == codebook(1).generation
    check(live)


def test_a_generation_that_is_no_longer_held_is_made_anew_for_a_rollback(live, registry):
    say(live, offsets={0: 5})
    for number in (1, 2):
        apply_record(registry, announced(number, number - 1, {0: 4}, {0: 5}), named(number, number - 1, 10 * number + 5))
        follow(live)
    assert set(live.index.held) == {codebook(1).generation, codebook(2).generation}
    apply_record(registry, named(0, 2, 99, "rollback"))
    follow(live)
    assert set(live.index.held) == {codebook(0).generation, codebook(2).generation}
    assert live.index.generation == codebook(0).generation
    check(live)


def test_items_that_change_while_codes_are_made_get_the_right_ones(live, registry, monkeypatch):
    say(live, offsets={0: 5})
    apply_record(registry, announced(1))
    follow(live)
    hold = live.index.hold

    def slow(*arguments):
        say(live, ("i0-1", code("i0-1", title="blue thing")), ("new", code("new")), ("i0-2", None), offsets={0: 6})
        hold(*arguments)
        say(live, ("newer", code("newer")), ("i0-3", code("i0-3", title="green thing")), ("new", None), offsets={0: 7})

    monkeypatch.setattr(live.index, "hold", slow)
    names = live.index.look().names(live.index.look().everything())
    say(live, *recodes(1, live, names), offsets={0: 5})
    apply_record(registry, announced(1, begins={0: 5}, ends={0: 5}), named(1, 0, 15))
    follow(live)
    assert live.index.generation == codebook(1).generation
    assert ("newer" in live.index, "new" in live.index) == (True, False)
    check(live)


@pytest.fixture(scope="module")
def shared_directory(tmp_path_factory):
    return save(quickly_trained(1), tmp_path_factory.mktemp("shared") / "bundle")


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_whatever_the_order_codes_are_those_of_theirvectors_of(shared_directory, data):
    """Refreshes, rollbacks, items that come, change and go, tails that are behind: never a mixed index, in the end the current one."""
    registry, told = CodebookRegistry(), Told()
    live = LiveIndex(shared_directory, "cpu", NOBODY, "item-codes", registry, told)
    offsets, used, previous, number = {0: 0, 1: 0}, 0, None, 0
    say(live, offsets=dict(offsets))
    for _ in range(data.draw(st.integers(3, 10))):
        act = data.draw(st.sampled_from(["item", "gone", "refresh", "unfinished", "rollback", "follow"]))
        names = live.index.look().names(live.index.look().everything())
        if act in ("item", "gone"):
            name = data.draw(st.sampled_from(["i0-1", "x", "y"]))
            offsets[0] += 1
            titled = code(name, title=data.draw(st.sampled_from(["red", "blue", "green"])), codebook=codebook(used).generation)
            if used:
                titled = msgspec.structs.replace(titled, code=codebook(used).encode(vectors_of(titled)).tobytes())
            say(live, (name, titled if act == "item" else None), offsets=dict(offsets))
        elif act in ("refresh", "unfinished"):
            number += 1
            apply_record(registry, announced(number, used))
            if data.draw(st.booleans()):
                live.follow()
            begins = dict(offsets)
            part = data.draw(st.integers(0, len(names))) if act == "unfinished" else len(names)
            offsets[1] += part
            say(live, *recodes(number, live, names[:part]), offsets=dict(offsets))
            if act == "refresh":
                apply_record(registry, announced(number, used, begins, dict(offsets)), named(number, used, 10 * number + 5))
                used, previous = number, used
        elif act == "rollback" and previous is not None and previous != used:
            apply_record(registry, named(previous, used, 10 * number + 6, "rollback"))
            used, previous = previous, used
        elif act == "follow":
            live.follow()
        check(live)
    follow(live)
    check(live)
    assert live.index.generation == codebook(used).generation


def test_a_codebook_that_is_retracted_before_its_codes_are_prepared_ends_no_thread(live, registry):
    say(live, offsets={0: 5})
    announcement = announced(1, begins={0: 5}, ends={0: 5})
    apply_record(registry, announcement, named(1, 0, 15))
    registry.apply_record(key_of(announcement), None)
    live._hold(codebook(1).generation)
    assert live.index.held == (codebook(0).generation,)


def test_a_search_never_sees_two_generations(live, registry):
    """A thread searches all the time while generations are made, served and dropped."""
    say(live, offsets={0: 5})
    wrong, stopping, seen = [], Event(), set()

    def hammer():
        while not stopping.is_set():
            view = live.index.look()
            numbers = view.everything()
            if not np.array_equal(view.codes(numbers), view.codebook.encode(view.vectors(numbers))):
                wrong.append(view.generation)
            found = view.search_pool(view.vectors(numbers[:4]), 10)
            if (found.numbers < 0).any():
                wrong.append("empty")
            seen.add(view.generation)

    thread = Thread(target=hammer)
    thread.start()
    try:
        for number in (1, 2, 3):
            apply_record(registry, announced(number, number - 1, {0: 4}, {0: 5}), named(number, number - 1, 10 * number + 5))
            follow(live)
            say(live, (f"n{number}", code(f"n{number}")), offsets={0: 5})
            live.index.compact()
    finally:
        stopping.set()
        thread.join()
    assert wrong == []
    assert codebook(3).generation in seen | {live.index.generation}
