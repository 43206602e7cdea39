"""Pretraining reads what was before a moment and nothing of what is held out; it learns, and the same way every time."""

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from features.events import Click, Item, Query
from features.history import Moment, deeds, moments
from features.rows import UserRow
from models.config import Config, PretrainingConfig
from models.encoding.histories import NONE, build, distinct, lifelong
from models.errors import NoHistoryError
from models.training.pretraining import draw
from research.relevance.next_click import baselines, model_scores, next_click_report, ranks, task
from research.relevance.seminar import train_seminar
from tests.tiny_bundle import MINUTE, shop

PRETRAINING = PretrainingConfig(epochs=3, length=8, searched=4, negatives=16, batch=64, learning_rate=2e-2)
CONFIG = Config().replace(dim=16, buckets=1024, pretraining=PRETRAINING)
GAMES = ("gears of war", "halo reach", "dead island", "forza racing", "guitar hero", "just dance", "mass effect", "rage")


def searches(users=160):
    """Each user searches for a game, misspelt as often as not, and clicks it a minute later."""
    rng, log = np.random.default_rng(1), []
    for user in range(users):
        game, ts = int(rng.integers(len(GAMES))), user * 10 * MINUTE
        drop = int(rng.integers(1, len(GAMES[game])))
        text = GAMES[game][:drop] + GAMES[game][drop + 1 :] if user % 2 else GAMES[game]
        log.append(Query(event_id=f"q{user}", user_id=f"u{user % 120}", query_id=f"q{user}", text=text, ts=ts))
        log.append(Click(event_id=f"c{user}", user_id=f"u{user % 120}", item_id=f"i{game}", category_id="games", ts=ts + MINUTE))
    return log, [Item(item_id=f"i{n}", category_id="games", title=title.title(), ts=0) for n, title in enumerate(GAMES)]


def test_a_history_holds_every_event_and_query_before_its_moment_and_none_after():
    events, catalogue = shop(users=6, events=40)
    positions = {item.item_id: at for at, item in enumerate(catalogue)}
    done = deeds(events)
    seen = list(moments(done))
    histories, of = build(seen, positions, CONFIG.replace(pretraining=PretrainingConfig(length=10_000)))
    whose = [seen[number] for number in of.tolist()]
    for n, moment in enumerate(whose):
        batch = histories.batch(np.array([n]))
        before = [event for event in done[moment.user].events if event.ts < moment.ts]
        asked = [query for query in done[moment.user].queries if query.ts < moment.ts]
        items = [catalogue[at].item_id for at in batch.item[0].tolist() if at != NONE]
        assert sorted(items) == sorted(event.item for event in before)
        steps = lifelong(moment.row, moment.categories, 10_000)
        assert {step.text for step in steps} - {""} == {query.text for query in asked if query.ts < moment.ts}
        assert [step.ts for step in steps] == sorted(step.ts for step in steps)
        assert len(steps) == int(((batch.item[0] != NONE) | (batch.text[0] != NONE)).sum())
        assert catalogue[int(batch.target[0])].item_id in {event.item for event in moment.basket}


def test_a_history_is_cut_to_its_newest_steps_and_may_be_empty():
    events, catalogue = shop(users=2, events=30)
    *_, last = moments(deeds(events))
    every = lifelong(last.row, last.categories, 10_000)
    for length in (1, 8, len(every), len(every) + 1):
        assert lifelong(last.row, last.categories, length) == every[-length:]
    histories, _ = build([Moment("u", 1, last.basket, UserRow(), {})], {catalogue[0].item_id: 0, last.basket[0].item: 1}, CONFIG)
    batch = histories.batch(np.array([0]))
    assert batch.item.tolist() == batch.text.tolist() == [[NONE]]
    assert batch.asked.tolist() == [NONE]


@given(st.lists(st.lists(st.integers(-1, 9), min_size=2, max_size=2), max_size=5), st.lists(st.integers(-1, 9), max_size=4))
@settings(deadline=None, max_examples=50)
def test_numbers_are_found_again_at_their_places(rows, more):
    arrays = np.array(rows, np.int64).reshape(-1, 2), np.array(more, np.int64)
    used, placed = distinct(*arrays)
    for array, at in zip(arrays, placed, strict=True):
        assert at.shape == array.shape
        assert np.array_equal(np.append(used, NONE)[at], array)


def test_negatives_stand_for_all_other_items_of_the_catalogue():
    rng = np.random.default_rng(0)
    logits, share, target = rng.normal(size=12), rng.dirichlet(np.ones(12)), 3
    estimates = []
    for _ in range(4000):
        items, log_q = draw(share, 16, rng)
        estimates.append(np.exp(logits[items] - log_q)[items != target].sum())
    assert np.mean(estimates) == pytest.approx(np.exp(logits).sum() - np.exp(logits[target]), rel=0.1)


def weights(trained):
    return {name: tensor.clone() for name, tensor in trained.model.state_dict().items()}


def test_what_is_held_out_changes_no_weight_and_the_seed_does():
    events, catalogue = searches()
    cut = 100 * 10 * MINUTE
    quick = CONFIG.replace(pretraining=msgspec.structs.replace(PRETRAINING, epochs=1))
    before = [event for event in events if event.ts < cut]
    whole, cut_off = (train_seminar(deeds(log), catalogue, quick, cut, seed=3, tuning=1) for log in (events, before))
    assert set(whole.vocabulary.items) == {event.item_id for event in before if isinstance(event, Click)}
    other = train_seminar(deeds(before), catalogue, quick, cut, seed=4, tuning=1)
    assert all(torch.equal(one, weights(cut_off)[name]) for name, one in weights(whole).items())
    assert any(not torch.equal(one, weights(other)[name]) for name, one in weights(whole).items())


def test_it_learns_which_item_a_misspelt_query_means_and_tells_how_far_it_is():
    events, catalogue = searches()
    told = []
    todo = task(events, catalogue, CONFIG, 0.25)
    trained = train_seminar(todo.done, todo.catalogue, CONFIG, todo.cut_ms, 0, 1, lambda *now: told.append(now))
    ours = ranks(model_scores(trained, todo), todo.cases)
    popular = ranks(baselines(todo)["most popular"], todo.cases)
    assert (1 / ours).mean() > (1 / popular).mean() + 0.3
    assert (1 / ours).mean() > 0.8
    assert {phase for phase, *_ in told} == {"pretraining", "fine-tuning"}
    assert all(done <= total for _, done, total, _ in told)


def test_the_report_has_a_row_for_each_ablation_and_differences():
    events, catalogue = searches()
    found = next_click_report(
        "games",
        events,
        catalogue,
        CONFIG.replace(pretraining=msgspec.structs.replace(PRETRAINING, epochs=1)),
        [0, 1],
        tuning=1,
        holdout=0.25,
    )
    ours = [name for name in found.rows if name.startswith("SEMINAR") and " less " not in name]
    assert ours == ["SEMINAR", "SEMINAR without pretraining", "SEMINAR without alignment", "SEMINAR without queries"]
    mrr = {name: row[0] for name, row in found.rows.items()}
    assert mrr["SEMINAR without queries"].value < mrr["SEMINAR"].value
    assert mrr["SEMINAR less most popular"].value == pytest.approx(mrr["SEMINAR"].value - mrr["most popular"].value)
    assert all(row[0].low <= row[0].value <= row[0].high for row in found.rows.values())
    assert len(mrr["SEMINAR"].seeds) == 2


def test_nothing_before_the_cut_is_an_error():
    events, catalogue = searches(users=4)
    with pytest.raises(NoHistoryError):
        train_seminar(deeds(events), catalogue, CONFIG, cut_ms=0, seed=0)
