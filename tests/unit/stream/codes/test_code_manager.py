"""The manager of codes: what it publishes, in which order, and what a failure, a crash or a rollback leaves behind."""

from contextlib import suppress
from itertools import count

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.codes.codebook import Codebook
from models.codes.drift import Policy
from stream.codes.catalogue_snapshot import CatalogueSnapshot
from stream.codes.readers import CodeRecord
from stream.errors import LeadershipLostError, PublishError
from stream.kafka.messages import CodebookRecord, digest
from tests.code_manager_world import BUNDLE, DIM, TOPICS, N, P, World, employ, hear_all, item, moved, own, published, vectors


def test_a_refresh_publishes_the_changed_codes_and_then_names_the_generation():
    world = World()
    manager = employ(world)
    moved(world, 5)
    request = world.ask(how="cold")
    manager.tick(0.0)
    generations = [(r.key, msgspec.json.decode(r.value)) for r in world.log if r.key.startswith(b"codebook:") and r.value]
    (key, first), (again, last) = generations
    assert key == again
    assert (first["ends"], last["parent"], last["how"]) == (None, own().generation, "cold")
    at = [n for n, r in enumerate(world.log) if r.topic == TOPICS.item_codes]
    offsets = [n for n, r in enumerate(world.log) if r.key == key]
    assert offsets[0] < min(at) <= max(at) < offsets[1] < next(n for n, r in enumerate(world.log) if r.key == b"current:b")
    new = world.registry.announced[world.named()].codebook
    codes, before = new.encode(vectors(5)), own().encode(vectors(5))
    changed = {f"i{n}" for n in np.flatnonzero((codes != before).any(axis=1))}
    assert {recode.item_id for recode in world.recodes()} == changed
    assert last["changed"] == len(changed) == world.told[-1][2]
    for recode in world.recodes():
        n = int(recode.item_id[1:])
        assert recode.code == codes[n].tobytes()
        assert recode.of == digest(vectors(5)[n].tobytes())
    assert (world.registry.answer.id, world.registry.answer.state, world.registry.answer.codebook) == (request.id, "done", world.named())


def test_a_warm_refresh_changes_fewer_codes_than_a_cold_one():
    counts = {}
    for how in ("warm", "cold"):
        world = World()
        manager = employ(world)
        moved(world, 0, spread=1.02)
        world.ask(how=how)
        manager.tick(0.0)
        counts[how] = len(world.recodes())
        assert world.named() != own().generation
    assert counts["warm"] < counts["cold"]


def test_what_is_asked_once_is_done_once():
    world = World()
    manager = employ(world, automatic=False)
    moved(world, 5)
    world.ask()
    manager.tick(0.0)
    size = len(world.log)
    manager.tick(0.1)
    assert [told[0] for told in world.told] == ["cold", "measured"]
    assert employ(world).tick(0.0) is None  # another worker: it reads the answer
    assert len([r for r in world.log[size:] if r.topic == TOPICS.item_codes]) == 0


def test_the_next_refresh_compares_with_what_is_in_use_then():
    world = World()
    manager = employ(world)
    for seed in (5, 6):
        moved(world, seed)
        world.ask()
        size = len(world.recodes())
        manager.tick(0.0)
        hear_all(world)
        used = world.registry.announced[world.named()].codebook
        held = published(world)
        parent = world.registry.announced[world.named()].record.parent
        base = own() if parent == own().generation else world.registry.announced[parent].codebook
        codes, before = used.encode(vectors(seed)), base.encode(vectors(seed))
        assert len(world.recodes()) > size
        for n in range(N):
            assert held.get(f"i{n}", before[n].tobytes()) == codes[n].tobytes()
    assert [r.codebook for r in world.registry.of(BUNDLE)] == [parent, world.named()]


def test_records_are_applied_while_a_refresh_publishes():
    """An item that changes and one that goes meanwhile: their recodes are void, and the reader of the topic never waits."""
    world = World()
    manager = employ(world)
    moved(world, 5)
    world.ask()
    publish = world.publish

    def meanwhile(records):
        if records[0].topic == TOPICS.item_codes:
            world.publish = publish
            assert manager._lock.acquire(blocking=False), "the reader would wait for the broker"
            manager._lock.release()
            manager.apply([CodeRecord("i0", item("i0", vectors(6)[0])), CodeRecord("i1", None)], {0: len(world.log)})
        publish(records)

    world.publish = meanwhile
    manager.tick(0.0)
    assert world.registry.answer.state == "done"
    hear_all(world)
    new = world.registry.announced[world.named()].codebook
    names = [f"i{n}" for n in range(2, N)]
    np.testing.assert_array_equal(world.catalogue.codes_of(names), new.encode(vectors(5)[2:]))
    np.testing.assert_array_equal(world.catalogue.codes_of(["i0"]), own().encode(vectors(6)[:1]))
    assert world.catalogue.codes_of(["i1"]) is None


def test_items_that_no_record_speaks_of_are_refreshed_too():
    world = World()
    manager = employ(world, table=vectors(3))
    world.ask()
    manager.tick(0.0)
    assert len(world.recodes()) > N / 2
    assert {r.partition for r in world.log if r.topic == TOPICS.item_codes} == {None}


def test_a_recode_lies_in_the_partition_of_its_item():
    world = World()
    manager = employ(world)
    manager.apply([CodeRecord("i1", item("i1", vectors(5)[1]), 3)], {3: 1})
    moved(world, 5, share=0)
    world.ask()
    manager.tick(0.0)
    assert {r.partition for r in world.log if r.key == b"\xffi1"} <= {3}


def test_an_outage_is_waited_out_and_a_long_one_leaves_the_old_codes(caplog):
    world = World()
    manager = employ(world, automatic=False)
    moved(world, 5)
    world.ask()
    world.outages = 2
    manager.tick(0.0)
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
    manager.tick(0.0)
    assert (world.told[-1][1], world.registry.answer.state) == ("failed", "failed")
    assert world.named() == used
    assert [g.ends for g in world.registry.of(BUNDLE)][-1] is None
    world.publish = publish
    world.ask()
    manager.tick(0.0)
    assert world.named() != used
    assert all(g.ends is not None for g in world.registry.of(BUNDLE))  # the unfinished one was taken back or finished


@settings(max_examples=25, deadline=None)
@given(left=st.integers(0, 40))
def test_a_keeper_that_is_killed_anywhere_leaves_the_old_codes_or_the_new_ones(left):
    world = World()
    manager = employ(world)
    moved(world, 5)
    request = world.ask()
    world.left = left * N // 40
    with suppress(KeyboardInterrupt):
        manager.tick(0.0)
    used = world.named()
    if used != own().generation:
        assert world.registry.complete(BUNDLE, used) is not None
    world.left = float("inf")
    successor = employ(world)
    moved(world, 5)
    successor.tick(0.0)
    if world.told == []:
        assert (world.registry.answer.id, world.registry.answer.state) == (request.id, "failed")
    again = world.ask()
    successor.tick(0.0)
    assert (world.registry.answer.id, world.registry.answer.state) == (again.id, "done")
    hear_all(world)
    new = world.registry.announced[world.named()].codebook
    np.testing.assert_array_equal(world.catalogue.codes_of([f"i{n}" for n in range(N)]), new.encode(vectors(5)))


def test_a_keeper_that_is_dismissed_stops_where_it_is():
    world = World()
    manager = employ(world)
    moved(world, 5)
    world.ask()
    world.dismissed = True
    with pytest.raises(LeadershipLostError):
        manager.tick(0.0)
    assert world.named() == own().generation


def test_rollback_and_forth():
    world = World()
    manager = employ(world)
    moved(world, 5)
    world.ask("rollback")
    manager.tick(0.0)
    assert (world.registry.answer.state, world.named()) == ("refused", own().generation)
    world.ask()
    manager.tick(0.0)
    new = world.named()
    for expected in (own().generation, new):
        world.ask("rollback")
        manager.tick(0.0)
        assert (world.registry.answer.state, world.named()) == ("done", expected)
    for to, state in ((own().generation, "done"), (own().generation, "refused"), ("unknown", "refused"), (new, "done")):
        world.ask("rollback", to=to)
        manager.tick(0.0)
        assert world.registry.answer.state == state
    assert world.named() == new


def test_nothing_is_refreshed_by_itself_after_a_rollback_until_somebody_asks():
    world = World()
    manager = employ(world, policy=Policy(patience=1))
    moved(world, 5)
    world.ask()
    manager.tick(0.0)
    world.ask("rollback")
    manager.tick(1.0)
    manager.tick(10.0)
    manager.tick(20.0)
    assert world.named() == own().generation
    assert world.registry.drifts[BUNDLE].automatic is False
    world.ask()
    manager.tick(21.0)
    assert world.named() != own().generation


def test_a_drift_is_measured_and_refreshed_by_itself():
    world = World()
    manager = employ(world, policy=Policy(patience=1))
    manager.tick(0.0)
    assert world.told == [("measured", own().generation, "none")]
    moved(world, 5, spread=3.0)
    manager.tick(0.5)  # not yet time
    assert len(world.told) == 1
    manager.tick(1.0)
    assert world.named() != own().generation
    report = world.registry.drifts[BUNDLE]
    assert (report.codebook, report.action in ("warm", "cold"), report.automatic) == (own().generation, True, True)
    assert report.figures["relative"] > 1
    hear_all(world)
    manager.tick(2.5)
    assert world.registry.drifts[BUNDLE].action == "none"
    assert world.registry.drifts[BUNDLE].figures["relative"] < 1.1


def test_without_leave_it_only_measures():
    world = World()
    manager = employ(world, automatic=False, policy=Policy(patience=1))
    moved(world, 5, spread=3.0)
    manager.tick(0.0)
    assert world.named() == own().generation
    assert world.told[0][2] in ("warm", "cold")
    world.ask(how="auto")
    manager.tick(0.1)
    assert world.named() != own().generation


def test_codes_that_somebody_made_under_another_codebook_are_made_anew_by_encode():
    world = World()
    manager = employ(world)
    wrong = Codebook.train(vectors(9), P, 3)
    manager.apply([CodeRecord(f"i{n}", item(f"i{n}", vectors(0)[n], wrong)) for n in range(50)], {0: 1})
    world.ask(how="encode")
    manager.tick(0.0)
    codes = own().encode(vectors(0)[:50])
    assert world.named() == own().generation
    assert {recode.item_id: recode.code for recode in world.recodes()} == {
        f"i{n}": code.tobytes() for n, code in enumerate(codes) if code.tobytes() != wrong.encode(vectors(0)[n][None]).tobytes()
    }


def test_a_request_that_is_too_old_is_left_alone():
    world = World()
    manager = employ(world, automatic=False)
    world.ask()
    world.clock = count(1_000_000_000)
    manager.tick(0.0)
    assert world.registry.answer is None


def test_the_ledger_follows_items_that_come_change_and_go():
    catalogue = CatalogueSnapshot(BUNDLE, own(), DIM)
    names = [f"i{n}" for n in range(N)]
    catalogue.load_table(names, vectors(0), own().encode(vectors(0)))
    rng, expected = np.random.default_rng(0), dict(zip(names, vectors(0), strict=True))
    for number in range(3000):
        name = f"i{rng.integers(2 * N)}"
        if rng.random() < 0.5:
            catalogue.apply([CodeRecord(name, None)], {0: number})
            expected.pop(name, None)
        else:
            vector = vectors(7)[rng.integers(N)]
            catalogue.apply([CodeRecord(name, item(name, vector))], {0: number})
            expected[name] = vector
    assert len(catalogue) == len(expected)
    assert set(catalogue.names) == set(expected)
    np.testing.assert_array_equal(catalogue.coded, np.stack([expected[name] for name in catalogue.names]))
    np.testing.assert_array_equal(catalogue.codes, own().encode(catalogue.coded))
    other = msgspec.structs.replace(item("x", vectors(7)[0]), bundle="other")
    short = msgspec.structs.replace(item("x", vectors(7)[0]), vector=b"1234")
    assert catalogue.apply([CodeRecord("x", other), CodeRecord("y", short)], {0: 1}) == {}


def test_generation_records_are_of_the_shape_that_workers_read():
    world = World()
    manager = employ(world)
    moved(world, 5)
    world.ask()
    manager.tick(0.0)
    [record] = world.registry.of(BUNDLE)
    assert isinstance(record, CodebookRecord)
    assert record.begins == {0: 0}
    assert record.ends[0] > record.changed
    assert record.items == N
    assert record.baseline
