"""The keeper of codes: what it publishes, in which order, and what a failure, a crash or a rollback leaves behind."""

from contextlib import suppress
from itertools import count

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.codes.codebook import Codebook
from models.codes.drift import Policy
from stream.codes.catalogue_snapshot import Ledger
from stream.codes.code_reader import Word
from stream.errors import LeadershipLostError, PublishError
from stream.kafka.messages import Generation, digest
from tests.keeper_world import BUNDLE, DIM, TOPICS, N, P, World, employ, hear_all, item, moved, own, published, vectors


def test_a_refresh_publishes_the_changed_codes_and_then_names_the_generation():
    world = World()
    keeper = employ(world)
    moved(world, 5)
    request = world.ask(how="cold")
    keeper.tick(0.0)
    generations = [(r.key, msgspec.json.decode(r.value)) for r in world.log if r.key.startswith(b"generation:") and r.value]
    (key, first), (again, last) = generations
    assert key == again
    assert (first["ends"], last["parent"], last["how"]) == (None, own().generation, "cold")
    at = [n for n, r in enumerate(world.log) if r.topic == TOPICS.item_codes]
    places = [n for n, r in enumerate(world.log) if r.key == key]
    assert places[0] < min(at) <= max(at) < places[1] < next(n for n, r in enumerate(world.log) if r.key == b"current:b")
    new = world.book.codebook(world.named())
    codes, before = new.encode(vectors(5)), own().encode(vectors(5))
    changed = {f"i{n}" for n in np.flatnonzero((codes != before).any(axis=1))}
    assert {recode.item_id for recode in world.recodes()} == changed
    assert last["changed"] == len(changed) == world.told[-1][2]
    for recode in world.recodes():
        n = int(recode.item_id[1:])
        assert recode.code == codes[n].tobytes()
        assert recode.of == digest(vectors(5)[n].tobytes())
    assert (world.book.answer.id, world.book.answer.state, world.book.answer.generation) == (request.id, "done", world.named())


def test_a_warm_refresh_changes_fewer_codes_than_a_cold_one():
    counts = {}
    for how in ("warm", "cold"):
        world = World()
        keeper = employ(world)
        moved(world, 0, spread=1.02)
        world.ask(how=how)
        keeper.tick(0.0)
        counts[how] = len(world.recodes())
        assert world.named() != own().generation
    assert counts["warm"] < counts["cold"]


def test_what_is_asked_once_is_done_once():
    world = World()
    keeper = employ(world, automatic=False)
    moved(world, 5)
    world.ask()
    keeper.tick(0.0)
    size = len(world.log)
    keeper.tick(0.1)
    assert [told[0] for told in world.told] == ["cold", "measured"]
    assert employ(world).tick(0.0) is None  # another worker: it reads the answer
    assert len([r for r in world.log[size:] if r.topic == TOPICS.item_codes]) == 0


def test_the_next_refresh_compares_with_what_is_in_use_then():
    world = World()
    keeper = employ(world)
    for seed in (5, 6):
        moved(world, seed)
        world.ask()
        size = len(world.recodes())
        keeper.tick(0.0)
        hear_all(world)
        used = world.book.codebook(world.named())
        held = published(world)
        parent = world.book.generations[world.named()].parent
        base = own() if parent == own().generation else world.book.codebook(parent)
        codes, before = used.encode(vectors(seed)), base.encode(vectors(seed))
        assert len(world.recodes()) > size
        for n in range(N):
            assert held.get(f"i{n}", before[n].tobytes()) == codes[n].tobytes()
    assert [g.generation for g in world.book.of(BUNDLE)] == [parent, world.named()]


def test_items_that_no_record_speaks_of_are_refreshed_too():
    world = World()
    keeper = employ(world, table=vectors(3))
    world.ask()
    keeper.tick(0.0)
    assert len(world.recodes()) > N / 2
    assert {r.partition for r in world.log if r.topic == TOPICS.item_codes} == {None}


def test_a_recode_lies_in_the_partition_of_its_item():
    world = World()
    keeper = employ(world)
    keeper.hear([Word("i1", item("i1", vectors(5)[1]), 3)], {3: 1})
    moved(world, 5, share=0)
    world.ask()
    keeper.tick(0.0)
    assert {r.partition for r in world.log if r.key == b"\xffi1"} <= {3}


def test_an_outage_is_waited_out_and_a_long_one_leaves_the_old_codes(caplog):
    world = World()
    keeper = employ(world, automatic=False)
    moved(world, 5)
    world.ask()
    world.outages = 2
    keeper.tick(0.0)
    assert world.told[-1][1] == "done"
    used = world.named()
    moved(world, 6)
    world.ask()
    publish = world.publish

    def refused(records):
        if records[0].topic == TOPICS.item_codes:
            raise PublishError("away")
        publish(records)

    world.publish = refused
    keeper.tick(0.0)
    assert (world.told[-1][1], world.book.answer.state) == ("failed", "failed")
    assert world.named() == used
    assert [g.ends for g in world.book.of(BUNDLE)][-1] is None
    world.publish = publish
    world.ask()
    keeper.tick(0.0)
    assert world.named() != used
    assert all(g.ends is not None for g in world.book.of(BUNDLE))  # the unfinished one was taken back or finished


@settings(max_examples=25, deadline=None)
@given(left=st.integers(0, 40))
def test_a_keeper_that_is_killed_anywhere_leaves_the_old_codes_or_the_new_ones(left):
    world = World()
    keeper = employ(world)
    moved(world, 5)
    request = world.ask()
    world.left = left * N // 40
    with suppress(KeyboardInterrupt):
        keeper.tick(0.0)
    used = world.named()
    if used != own().generation:
        assert world.book.complete(BUNDLE, used) is not None
    world.left = float("inf")
    successor = employ(world)
    moved(world, 5)
    successor.tick(0.0)
    if world.told == []:
        assert (world.book.answer.id, world.book.answer.state) == (request.id, "failed")
    again = world.ask()
    successor.tick(0.0)
    assert (world.book.answer.id, world.book.answer.state) == (again.id, "done")
    hear_all(world)
    new = world.book.codebook(world.named())
    np.testing.assert_array_equal(world.ledger.codes_of([f"i{n}" for n in range(N)]), new.encode(vectors(5)))


def test_a_keeper_that_is_dismissed_stops_where_it_is():
    world = World()
    keeper = employ(world)
    moved(world, 5)
    world.ask()
    world.dismissed = True
    with pytest.raises(LeadershipLostError):
        keeper.tick(0.0)
    assert world.named() == own().generation


def test_rollback_and_forth():
    world = World()
    keeper = employ(world)
    moved(world, 5)
    world.ask("rollback")
    keeper.tick(0.0)
    assert (world.book.answer.state, world.named()) == ("refused", own().generation)
    world.ask()
    keeper.tick(0.0)
    new = world.named()
    for expected in (own().generation, new):
        world.ask("rollback")
        keeper.tick(0.0)
        assert (world.book.answer.state, world.named()) == ("done", expected)
    for to, state in ((own().generation, "done"), (own().generation, "refused"), ("unknown", "refused"), (new, "done")):
        world.ask("rollback", to=to)
        keeper.tick(0.0)
        assert world.book.answer.state == state
    assert world.named() == new


def test_nothing_is_refreshed_by_itself_after_a_rollback_until_somebody_asks():
    world = World()
    keeper = employ(world, policy=Policy(patience=1))
    moved(world, 5)
    world.ask()
    keeper.tick(0.0)
    world.ask("rollback")
    keeper.tick(1.0)
    keeper.tick(10.0)
    keeper.tick(20.0)
    assert world.named() == own().generation
    assert world.book.drifts[BUNDLE].automatic is False
    world.ask()
    keeper.tick(21.0)
    assert world.named() != own().generation


def test_a_drift_is_measured_and_refreshed_by_itself():
    world = World()
    keeper = employ(world, policy=Policy(patience=1))
    keeper.tick(0.0)
    assert world.told == [("measured", own().generation, "none")]
    moved(world, 5, spread=3.0)
    keeper.tick(0.5)  # not yet time
    assert len(world.told) == 1
    keeper.tick(1.0)
    assert world.named() != own().generation
    report = world.book.drifts[BUNDLE]
    assert (report.generation, report.action in ("warm", "cold"), report.automatic) == (own().generation, True, True)
    assert report.figures["relative"] > 1
    hear_all(world)
    keeper.tick(2.5)
    assert world.book.drifts[BUNDLE].action == "none"
    assert world.book.drifts[BUNDLE].figures["relative"] < 1.1


def test_without_leave_it_only_measures():
    world = World()
    keeper = employ(world, automatic=False, policy=Policy(patience=1))
    moved(world, 5, spread=3.0)
    keeper.tick(0.0)
    assert world.named() == own().generation
    assert world.told[0][2] in ("warm", "cold")
    world.ask(how="auto")
    keeper.tick(0.1)
    assert world.named() != own().generation


def test_codes_that_somebody_made_under_another_codebook_are_made_anew_by_encode():
    world = World()
    keeper = employ(world)
    wrong = Codebook.train(vectors(9), P, 3)
    keeper.hear([Word(f"i{n}", item(f"i{n}", vectors(0)[n], wrong)) for n in range(50)], {0: 1})
    world.ask(how="encode")
    keeper.tick(0.0)
    codes = own().encode(vectors(0)[:50])
    assert world.named() == own().generation
    assert {recode.item_id: recode.code for recode in world.recodes()} == {
        f"i{n}": code.tobytes() for n, code in enumerate(codes) if code.tobytes() != wrong.encode(vectors(0)[n][None]).tobytes()
    }


def test_a_request_that_is_too_old_is_left_alone():
    world = World()
    keeper = employ(world, automatic=False)
    world.ask()
    world.clock = count(1_000_000_000)
    keeper.tick(0.0)
    assert world.book.answer is None


def test_the_ledger_follows_items_that_come_change_and_go():
    ledger = Ledger(BUNDLE, own(), DIM)
    names = [f"i{n}" for n in range(N)]
    ledger.begin(names, vectors(0), own().encode(vectors(0)))
    rng, expected = np.random.default_rng(0), dict(zip(names, vectors(0), strict=True))
    for number in range(3000):
        name = f"i{rng.integers(2 * N)}"
        if rng.random() < 0.5:
            ledger.apply([Word(name, None)], {0: number})
            expected.pop(name, None)
        else:
            vector = vectors(7)[rng.integers(N)]
            ledger.apply([Word(name, item(name, vector))], {0: number})
            expected[name] = vector
    assert len(ledger) == len(expected)
    assert set(ledger.names) == set(expected)
    np.testing.assert_array_equal(ledger.coded, np.stack([expected[name] for name in ledger.names]))
    np.testing.assert_array_equal(ledger.codes, own().encode(ledger.coded))
    other = msgspec.structs.replace(item("x", vectors(7)[0]), generation="other")
    short = msgspec.structs.replace(item("x", vectors(7)[0]), vector=b"1234")
    assert ledger.apply([Word("x", other), Word("y", short)], {0: 1}) == {}


def test_generation_records_are_of_the_shape_that_workers_read():
    world = World()
    keeper = employ(world)
    moved(world, 5)
    world.ask()
    keeper.tick(0.0)
    [record] = world.book.of(BUNDLE)
    assert isinstance(record, Generation)
    assert record.begins == {0: 0}
    assert record.ends[0] > record.changed
    assert record.items == N
    assert record.baseline
