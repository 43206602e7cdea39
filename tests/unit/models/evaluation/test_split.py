"""Nothing held out reaches training, vocabulary, popularity or neighbours."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import sources
from features.codec import pack
from features.events import Click, Item, Query
from features.history import deeds, offline_rows
from features.rows import UserRow
from models.encoding.catalogue import catalogue_of
from models.errors import NothingToLearnError
from models.evaluation import by_users, temporal
from models.evaluation.baselines import popularity
from models.evaluation.cascade import Cascade
from models.evaluation.prediction_points import own_items, questions, users_asked
from models.evaluation.report import EvaluationSample, evaluate
from models.evaluation.score import Entry, simple
from models.serving.recommender import Recommender
from models.serving.retriever import Options
from models.training.train import learn, train
from research.evaluation import evaluation
from research.evaluation.inputs import EvaluationPlan, load_data, split_of
from research.evaluation.trained_baselines import TrainedBaseline, rival_history
from tests.tiny_bundle import CONFIG, START_MS, shop

MINUTE = 60_000
QUICK = CONFIG.replace(epochs=1)
clicks = st.builds(
    Click,
    event_id=st.integers(0, 10**6).map(str),
    user_id=st.sampled_from([f"u{n}" for n in range(12)]),
    item_id=st.sampled_from("123456"),
    category_id=st.sampled_from("xy"),
    ts=st.integers(0, 60).map(lambda n: n * MINUTE),
)
searches = st.builds(
    Query,
    event_id=st.integers(0, 10**6).map(str),
    user_id=st.sampled_from([f"u{n}" for n in range(12)]),
    query_id=st.just("q"),
    text=st.just("shoe"),
    ts=st.integers(0, 60).map(lambda n: n * MINUTE),
)
logs = st.lists(clicks | searches, max_size=60)


def split_or_none(make):
    try:
        return make()
    except NothingToLearnError:
        return None


@given(logs, st.sampled_from([0.0, 0.1, 0.5]))
@settings(max_examples=60, deadline=None)
def test_a_temporal_split_knows_nothing_from_the_cut_on(log, holdout):
    split = split_or_none(lambda: temporal(deeds(log), holdout))
    if split is None:
        assert len({event.ts for event in log if isinstance(event, Click)}) <= 1
        return
    known = [entry for mine in split.known.values() for entry in (*mine.events, *mine.queries)]
    assert all(entry.ts < split.cut_ms for entry in known)
    whole = [event for mine in split.done.values() for event in mine.events]
    assert sum(len(mine.events) for mine in split.known.values()) == sum(event.ts < split.cut_ms for event in whole)
    assert set(split.starts) == {user for user, mine in split.done.items() if any(event.ts >= split.cut_ms for event in mine.events)}
    assert all(question.ts >= split.cut_ms for question in questions(split, 3, users_asked(split, None, 0)))


@given(logs, st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_a_split_by_users_shares_no_user(log, seed):
    split = split_or_none(lambda: by_users(deeds(log), seed))
    if split is None:
        return
    assert not set(split.known) & set(split.starts)
    users = {user for user, mine in split.done.items() if mine.events}
    assert len(split.known) == len(users) - 2 * max(1, len(users) // 10)
    asked = list(questions(split, 3, users_asked(split, None, 0)))
    assert [question.user for question in asked] == sorted(split.starts)
    for question in asked:
        events = split.done[question.user].events
        assert question.past
        assert [*question.past] == [event for event in events if event.ts < question.ts]
        assert question.wanted == question.basket == {event.item for event in events if event.ts >= question.ts}
    assert split_or_none(lambda: by_users(deeds(log[::-1]), seed)).starts == split.starts


@given(logs, st.booleans())
@settings(max_examples=40, deadline=None)
def test_what_a_question_shows_is_older_than_it(log, whole):
    done = deeds(log)
    split = split_or_none(lambda: by_users(done, 0) if whole else temporal(done, 0.5))
    if split is None:
        return
    for question in questions(split, 2, users_asked(split, None, 0)):
        older = [event for event in log if event.user_id == question.user and event.ts < question.ts]
        users, categories = offline_rows(older)
        assert pack(question.row) == pack(users.get(question.user, UserRow()))
        assert question.rows == {category: row for (_, category), row in categories.items()}
        assert all(event.ts < question.ts for event in question.past)


def test_a_sample_of_tested_users_is_drawn_by_seed():
    events, _ = shop(start_ms=START_MS, users=20, events=10)
    split = temporal(deeds(events), 0.3)
    assert len(users_asked(split, 5, 0)) == 5
    assert users_asked(split, 5, 0) == users_asked(split, 5, 0) != users_asked(split, 5, 1)
    assert users_asked(split, None, 0) == sorted(split.starts)


def held_out(split, event):
    """Whether the split holds this event out, told without `known`."""
    if split.whole:
        return event.user_id not in split.known
    return event.ts >= split.cut_ms


def scrambled(events, split):
    """The same log, but all that is held out is about other items, in another category, after other searches."""
    changed = []
    for n, event in enumerate(events):
        if not held_out(split, event):
            changed.append(event)
        elif isinstance(event, Query):
            changed.append(msgspec.structs.replace(event, text=f"secret words {n}"))
        else:
            secret = {"item_id": f"secret{n % 3}", "category_id": "secret"}
            changed.append(Click(event_id=event.event_id, user_id=event.user_id, ts=event.ts, **secret))
    assert changed != events
    return changed


def splitters():
    return pytest.mark.parametrize("make", [lambda done: temporal(done, 0.2), lambda done: by_users(done, 1)], ids=["temporal", "users"])


@splitters()
def test_what_is_held_out_cannot_be_trained_on(make):
    """Two logs that differ in nothing but what is held out give the same weights, vocabulary, items and popularity."""
    events, catalogue = shop(start_ms=START_MS, users=20, events=25)
    split = make(deeds(events))
    other = make(deeds(scrambled(events, split)))
    mine, theirs = (learn(s.known, catalogue, QUICK, seed=1, cut_ms=s.cut_ms) for s in (split, other))
    assert mine.generation == theirs.generation
    assert (mine.vocabulary.items, mine.vocabulary.categories) == (theirs.vocabulary.items, theirs.vocabulary.categories)
    assert mine.items.ids == theirs.items.ids
    np.testing.assert_array_equal(mine.items.vectors, theirs.items.vectors)
    assert mine.popular == theirs.popular
    everything = deeds(scrambled(events, split))
    leaky = learn(everything, catalogue_of(catalogue, everything), QUICK, seed=1, cut_ms=10**13)
    assert leaky.generation != mine.generation
    assert any(item.startswith("secret") for item in leaky.vocabulary.items)


@splitters()
def test_what_is_held_out_does_not_move_the_baselines(make):
    events, _ = shop(start_ms=START_MS, users=20, events=25)
    split = make(deeds(events))
    other = make(deeds(scrambled(events, split)))
    asked = list(questions(split, 2, users_asked(split, None, 0)))
    for mine, theirs in zip(simple(split), simple(other), strict=True):
        assert mine.contender.answer(asked, 200) == theirs.contender.answer(asked, 200)
        assert not any(item.startswith("secret") for answer in theirs.contender.answer(asked, 200) for item in answer.items)
    assert popularity(split.known, split.cut_ms, 50) == popularity(other.known, other.cut_ms, 50)
    assert rival_history(split.known, [], []) == rival_history(other.known, [], [])


def test_training_for_serving_learns_nothing_from_the_cut_on():
    events, catalogue = shop(start_ms=START_MS, users=20, events=25)
    split = temporal(deeds(events), 0.1)
    config = QUICK.replace(cut_ms=split.cut_ms)
    mine, theirs = (train(log, catalogue, config, seed=1) for log in (events, scrambled(events, split)))
    assert mine.generation == theirs.generation
    assert mine.vocabulary.items == theirs.vocabulary.items
    assert mine.manifest.cut_ms == split.cut_ms


def written(path, users=20, events=25):
    log, catalogue = shop(start_ms=START_MS, users=users, events=events)
    sources.write(path, [*catalogue, *log])
    return path


@pytest.mark.parametrize("split_name", ["temporal", "users"])
def test_the_command_trains_on_what_the_split_allows(split_name, tmp_path, monkeypatch):
    """Two files that differ in what is held out: all that `run` hands to training is the same, and so is what comes of it."""
    plan = EvaluationPlan(str(written(tmp_path / "log.jsonl")), QUICK, split=split_name)
    given_to_training = []

    def watched(known, items, *arguments, **named):
        bundle = learn(known, items, *arguments, **named)
        given_to_training.append((bundle.generation, bundle.vocabulary.items, dict(known)))
        return bundle

    monkeypatch.setattr(evaluation, "learn", watched)
    evaluation.run(plan, phase)
    split = split_of(plan, load_data(plan).done)
    log, catalogue = shop(start_ms=START_MS, users=20, events=25)
    swapped, seen = [], sorted({event.item_id for event in log if isinstance(event, Click)})
    for n, event in enumerate(log):  # other known items: the catalogue of the file stays the same
        if isinstance(event, Click) and held_out(split, event):
            item = seen[n % len(seen)]
            event = msgspec.structs.replace(event, item_id=item, category_id=f"c{item[1:].split('-')[0]}")
        swapped.append(event)
    assert swapped != log
    sources.write(tmp_path / "log.jsonl", [*catalogue, *swapped])
    evaluation.run(plan, phase)
    mine, theirs = given_to_training
    assert mine == theirs
    for user, known in mine[2].items():
        assert all(event.ts < split.cut_ms for event in known.events)
        assert split_name == "temporal" or user not in split.starts


class phase:
    """A progress bar that nobody sees."""

    def __init__(self, name):
        self.name = name

    def __enter__(self):
        return lambda done, total: None

    def __exit__(self, *error):
        return None


def test_too_little_to_split_says_what_to_do():
    one = [Click(event_id="1", user_id="u", item_id="i", category_id="c", ts=5)]
    for make, remedy in ((lambda: temporal(deeds(one), 0.1), "longer history"), (lambda: by_users(deeds(one), 0), "--split temporal")):
        with pytest.raises(NothingToLearnError, match=remedy):
            make()
    same = [msgspec.structs.replace(one[0], event_id=str(n), user_id=f"u{n}") for n in range(20)]
    with pytest.raises(NothingToLearnError, match="two different times"):
        by_users(deeds(same), 0)
    with pytest.raises(NothingToLearnError, match="no click and no order"):
        temporal({}, 0.1)
    crowd = [msgspec.structs.replace(event, ts=5 if n < 19 else 6) for n, event in enumerate(same)]
    assert temporal(deeds(crowd), 0.1).cut_ms == 6  # most events share the first time: the cut moves behind it


class Liked:
    """A rival that recommends by the number of events before the moment it was fitted at: a real, tiny one."""

    name = "liked"

    def fit(self, history, seed, budget):
        flat = [item for events in history.sequences.values() for _, item, _, _ in events]
        self.ranked = sorted(set(flat), key=lambda item: (-flat.count(item), item))

    def recommend(self, users, k):
        assert all(list(user.events) == sorted(user.events, key=lambda event: event[0]) for user in users)
        return [self.ranked[:k] for _ in users]


def test_a_rival_is_asked_for_more_so_that_new_items_are_left():
    events, _ = shop(start_ms=START_MS, users=12, events=20)
    split = temporal(deeds(events), 0.2)
    rival = Liked()
    rival.fit(rival_history(split.known, [], []), 0, None)
    asked = list(questions(split, 2, users_asked(split, None, 0)))
    for question, answer in zip(asked, TrainedBaseline(rival).answer(asked, 5), strict=True):
        assert answer.items == rival.ranked[:5]
        assert answer.fresh == [item for item in rival.ranked if item not in question.had][:5]
    report = evaluate(split, [Entry("liked", 0, TrainedBaseline(rival)), *simple(split)], rival.ranked, EvaluationSample(2))
    assert report.section().rows["liked"].keys() == report.section().rows["most popular"].keys()


def test_what_came_after_the_cut_is_found_by_nobody_but_who_had_it():
    events, catalogue = shop(start_ms=START_MS, users=6, events=12)
    split = temporal(deeds(events), 0.4)
    own = [Item(item_id=f"own{n}", category_id="c0", title="", ts=START_MS) for n in range(3)]
    user = sorted(split.starts)[0]
    had = [Click(event_id=item.item_id, user_id=user, item_id=item.item_id, category_id="c0", ts=split.cut_ms) for item in own[:2]]
    split = temporal(deeds([*events, *had]), cut_ms=split.cut_ms)
    assert own_items(split, [user], own) == own[:2]
    assert own_items(split, [name for name in split.starts if name != user], own) == []
    bundle = learn(split.known, catalogue, QUICK, seed=0, cut_ms=split.cut_ms)
    cascade = Cascade(Recommender(bundle), Options(8), catalogue, own)
    asked = list(questions(split, 9, users_asked(split, None, 0)))
    found = []
    for question, answer in zip(asked, cascade.answer(asked, 200), strict=True):
        new = {item for item in answer.items if item.startswith("own")}
        assert new <= question.had
        assert not question.had.intersection(answer.fresh)
        assert len(set(answer.items)) == len(answer.items)
        found.append(bool(new))
    assert any(found)
    assert not all(found)
