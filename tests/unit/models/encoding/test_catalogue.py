"""What is learnt from and asked for is the catalogue as it was known at the cut; what is served is the newest, without deleted items."""

from collections import Counter

import msgspec
import numpy as np
import pytest

from features import sources
from features.events import Click, Item
from features.history import deeds
from infra.training.from_files import file_history
from models.encoding.catalogue import alive, catalogue_of, known_at
from models.errors import NothingToLearnError
from models.evaluation import evaluate_bundle as judged
from models.evaluation import temporal
from models.evaluation.prediction_points import offered
from models.serving.recommender import Recommender
from models.training.train import learn, train
from research.evaluation.inputs import EvaluationPlan, load_data
from tests.tiny_bundle import CONFIG, NO_PRETRAINING, shop

QUICK = CONFIG.replace(epochs=1, pretraining=NO_PRETRAINING)


def state(item, **changed):
    return msgspec.structs.replace(item, **changed)


@pytest.fixture(scope="module")
def world():
    """A log, its catalogue, the moment after its last event, and the three items that it touches most."""
    events, catalogue = shop(users=10, events=20)
    touched = Counter(event.item_id for event in events if isinstance(event, Click))
    return events, catalogue, events[-1].ts + 1, [item for item, _ in touched.most_common(3)]


@pytest.fixture
def seen(monkeypatch):
    """The items that can be found, of each evaluation."""
    found, evaluate = [], judged.evaluate
    monkeypatch.setattr(
        judged, "evaluate", lambda split, entries, ids, asked: found.append(set(ids)) or evaluate(split, entries, ids, asked)
    )
    return found


def test_the_newest_state_says_what_is_alive():
    states = [
        Item(item_id=name, category_id="c", title=title, ts=ts) for name, title, ts in (("b", "new", 3), ("b", "old", 1), ("a", "a", 2))
    ]
    gone = state(states[0], ts=4, deleted=True)
    assert [item.title for item in alive(states)] == ["a", "new"]
    assert [item.item_id for item in alive([gone, *states])] == ["a"]
    back = state(gone, ts=5, deleted=False, title="back")
    assert [item.title for item in alive([back, gone, *states])] == ["a", "back"]
    done = deeds(Click(event_id=name, user_id="u", item_id=name, category_id="c", ts=1) for name in "abd")
    assert [item.item_id for item in catalogue_of([gone, *states], done)] == ["a", "d"]


def test_an_item_is_what_it_was_before_the_cut():
    states = [Item(item_id="i", category_id="c", title=title, ts=ts) for title, ts in (("later", 9), ("old", 1), ("known", 4))]
    new = [Item(item_id="n", category_id="c", title=title, ts=ts) for title, ts in (("first", 7), ("second", 8))]
    assert {item.item_id: item.title for item in known_at([*states, *new], 5)} == {"i": "known", "n": "first"}


def test_what_was_deleted_before_the_cut_is_neither_learnt_nor_served(world, seen):
    events, catalogue, _, top = world
    gone = [state(item, deleted=True, ts=1) for item in catalogue if item.item_id in top]
    bundle = train(events, [*catalogue, *gone], QUICK, 0)
    assert not set(top) & {*bundle.items.ids, *bundle.vocabulary.items, *seen[0]}
    assert set(bundle.items.ids) == {item.item_id for item in catalogue} - set(top)
    fewer = train(events, [item for item in catalogue if item.item_id not in top] + gone, QUICK, 0)
    assert fewer.generation == bundle.generation


def test_learning_leaves_out_what_is_deleted_or_a_stranger(world):
    events, catalogue, end, top = world
    gone = [state(item, deleted=True, ts=end) for item in catalogue if item.item_id in top]
    bundles = [
        learn(deeds(events), items, QUICK, 0, cut_ms=end)
        for items in ([*catalogue, *gone], [item for item in catalogue if item.item_id not in top])
    ]
    assert bundles[0].generation == bundles[1].generation
    assert not set(top) & set(bundles[0].items.ids)


def test_states_of_after_the_cut_are_served_but_neither_learnt_nor_asked_for(world, seen):
    events, catalogue, end, top = world
    plain = train(events, catalogue, QUICK, 0)
    later = [state(item, title=f"later {item.title}", price=9.0, ts=end) for item in catalogue]
    gone = [state(item, deleted=True, ts=end + 1) for item in catalogue if item.item_id in top]
    bundle = train(events, [*catalogue, *later, *gone], QUICK, 0)
    assert bundle.generation == plain.generation
    assert bundle.codebook.generation == plain.codebook.generation
    assert bundle.manifest.metrics == plain.manifest.metrics
    assert seen[0] == seen[1] == set(plain.items.ids) == {item.item_id for item in catalogue}
    alive_now = [item for item in later if item.item_id not in top]
    assert list(bundle.items.ids) == sorted(item.item_id for item in alive_now)
    assert bundle.manifest.items == len(alive_now)
    titles = dict(zip(bundle.items.ids, bundle.items.titles, strict=True))
    assert titles == {item.item_id: item.title for item in alive_now}
    encoded = Recommender(bundle).item_vectors(alive([*later, *gone]))
    np.testing.assert_allclose(bundle.items.vectors, encoded, atol=1e-6)
    np.testing.assert_array_equal(bundle.items.codes, bundle.codebook.encode(bundle.items.vectors))


def test_an_item_that_only_held_out_events_tell_of_is_served_but_neither_learnt_nor_asked_for(world, seen):
    events, catalogue, end, _ = world
    split = temporal(deeds(events), QUICK.training.holdout)
    late = Click(event_id="late", user_id=sorted(split.starts)[0], item_id="late", category_id="c0", ts=end)
    config = QUICK.replace(cut_ms=split.cut_ms)
    told = [Item(item_id="late", category_id="c0", title="", ts=end)]
    plain, bundle = (train(log, catalogue, config, 0, inferred=items) for log, items in ((events, []), ([*events, late], told)))
    assert bundle.generation == plain.generation
    assert seen[0] == seen[1]
    assert "late" not in {*seen[1], *bundle.vocabulary.items}
    assert set(bundle.items.ids) == {*plain.items.ids, "late"}


def test_a_training_asks_over_the_items_that_an_evaluation_asks_over(world, seen, tmp_path):
    events, catalogue, end, top = world
    path = tmp_path / "log.jsonl"
    later = [state(item, title="later", ts=end) for item in catalogue[:9]] + [Item(item_id="new", category_id="c0", title="new", ts=end)]
    some = [item for item in catalogue if item.item_id not in top]
    late = Click(event_id="late", user_id="u0", item_id="late", category_id="c0", ts=end)
    sources.write(path, [*some, *later, *events, late])
    history, loaded = file_history(sources.Reading(path)), load_data(EvaluationPlan(str(path), QUICK))
    train(history.events, history.items, QUICK, 0, inferred=history.inferred)
    split = temporal(loaded.done, QUICK.training.holdout)
    expected = {item.item_id for item in offered(loaded.described, loaded.inferred, split, []).catalogue}
    assert seen == [expected]
    assert "new" in expected
    assert "late" not in expected


def test_a_log_whose_items_are_all_deleted_in_the_end_is_refused_before_it_is_learnt_from(world):
    events, catalogue, end, _ = world
    gone = [state(item, deleted=True, ts=end) for item in catalogue]
    steps = []
    with pytest.raises(NothingToLearnError, match="every item is deleted by the end of the log"):
        train(events, [*catalogue, *gone], QUICK, 0, steps.append)
    assert {step.phase for step in steps} == {"reading history"}
