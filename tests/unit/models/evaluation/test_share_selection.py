"""Shares are those that a plain loop over whole answers would choose, by users who are not reported."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from features.event_time import DAY_MS
from features.events import Order, OrderLine
from features.history import deeds
from models.bundle import Bundle
from models.config.retrieval import USUAL, Shares
from models.encoding.catalogue import catalogue_of
from models.evaluation import temporal
from models.evaluation.cascade import Cascade
from models.evaluation.evaluate_bundle import judged
from models.evaluation.metrics import METRICS, item_metrics
from models.evaluation.prediction_points import Offered, questions
from models.evaluation.share_selection import CUT, LEAST_USERS, choose_shares, halves
from models.serving.recommender import Recommender
from models.serving.retriever import Options, Retriever, Serving
from models.training.train import learn
from research.evaluation.evaluation import unchosen
from tests.tiny_bundle import CONFIG, NO_PRETRAINING, START_MS, shop

RECALL = METRICS.index(f"recall@{CUT}")


@pytest.fixture(scope="module")
def world():
    """A log of a shop, split by time, and a bundle that learnt a little of it."""
    events, items = shop(users=2 * LEAST_USERS + 20, categories=8, items=120, events=14)
    split = temporal(deeds(events), 0.3)
    catalogue = catalogue_of(items, split.known)
    config = CONFIG.replace(epochs=1, pretraining=NO_PRETRAINING)
    return split, catalogue, learn(split.known, catalogue, config, 0, cut_ms=split.cut_ms)


def shared(bundle: Bundle, shares: Shares, exclude_bought: bool = True) -> Bundle:
    config = bundle.manifest.config.replace(shares=shares, exclude_bought=exclude_bought)
    return replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, config=config))


def plain_recall(world, users, shares, exclude_bought=True):
    """recall@50 by asking a cascade of these shares the ordinary way."""
    split, catalogue, bundle = world
    asked = [question for question in questions(split, 2, users) if question.wanted]
    answers = Cascade(Recommender(shared(bundle, shares, exclude_bought)), Options(8), catalogue).answer(asked, 200)
    return np.mean([item_metrics(answer.items, q.basket, q.wanted)[RECALL] for q, answer in zip(asked, answers, strict=True)])


def test_what_is_chosen_is_better_by_whole_answers(world):
    split, catalogue, bundle = world
    users, _ = halves(split.starts, 0)
    choice = choose_shares(Cascade(Recommender(bundle), Options(8), catalogue), questions(split, 2, users), 0)
    assert choice.users == len(users) >= LEAST_USERS
    assert choice.before == pytest.approx(plain_recall(world, users, USUAL))
    assert choice.after == pytest.approx(plain_recall(world, users, choice.shares, choice.exclude_bought))
    assert choice.shares != USUAL
    assert choice.after > choice.before


def repeated_orders(again):
    """A log in which users order the same items week after week, or another item each time."""
    log = []
    for user in range(2 * LEAST_USERS + 20):
        for week in range(8):
            item = (user + (0 if again else week)) % 40
            line = OrderLine(item_id=f"i{item % 4}-{item // 4}", category_id=f"c{item % 4}")
            ts = START_MS + (week * 7 + user % 7) * DAY_MS
            log.append(Order(event_id=f"e{user}-{week}", order_id=f"o{user}-{week}", user_id=f"u{user:03}", ts=ts, lines=[line]))
    return sorted(log, key=lambda event: event.ts)


@pytest.mark.parametrize("again", [True, False])
def test_purchases_come_back_where_the_log_says_that_people_buy_again(again):
    split = temporal(deeds(repeated_orders(again)), 0.3)
    catalogue = catalogue_of([], split.known)
    bundle = learn(split.known, catalogue, CONFIG.replace(epochs=1, pretraining=NO_PRETRAINING), 0, cut_ms=split.cut_ms)
    assert bundle.manifest.config.retrieval.exclude_bought
    found = judged(bundle, Offered(catalogue, []), split, 5, "cpu").manifest.config.retrieval
    assert found.exclude_bought != again
    assert Retriever(Serving(Recommender(bundle), bundle.index())).exclude_bought
    assert Retriever(Serving(Recommender(shared(bundle, found.shares, not again)), bundle.index())).exclude_bought != again
    assert not Retriever(Serving(Recommender(bundle), bundle.index()), Options(exclude_bought=False)).exclude_bought


def test_nothing_is_chosen_where_users_are_too_few_or_cannot_tell(world):
    split, catalogue, bundle = world
    cascade = Cascade(Recommender(bundle), Options(8), catalogue)
    few = halves(split.starts, 0)[0][: LEAST_USERS - 1]
    assert choose_shares(cascade, questions(split, 2, few), 0).shares == USUAL
    before = Shares(repeat=0.4, even=0.5)  # as a bundle has that goes on from another
    for there, users in ((catalogue, few), ([], halves(split.starts, 0)[0])):
        cascade = Cascade(Recommender(shared(bundle, before)), Options(8), there)
        choice = choose_shares(cascade, questions(split, 2, users), 0)
        assert (choice.shares, choice.before, choice.after) == (before, 0.0, 0.0)


def test_a_cascade_of_other_shares_answers_as_one_made_with_them(world):
    split, catalogue, bundle = world
    asked = list(questions(split, 2, sorted(split.starts)[:20]))
    cascade, shares = Cascade(Recommender(bundle), Options(8), catalogue), Shares(repeat=0.0, short=0.5)
    expected = Cascade(Recommender(shared(bundle, shares)), Options(8), catalogue).answer(asked, 60)
    usual = cascade.answer(asked, 60)
    assert cascade.changed(shares=shares).answer(asked, 60) == expected != usual
    assert cascade.answer(asked, 60) == usual


def test_halves_are_all_users_none_in_both_whoever_else_is_there():
    names = [f"u{n}" for n in range(400)]
    mine, others = halves(names, 3)
    assert sorted(mine + others) == sorted(names)
    assert 150 < len(mine) < 250
    assert halves(names[:60], 3) == (sorted({*mine} & {*names[:60]}), sorted({*others} & {*names[:60]}))
    assert halves(names, 4) != (mine, others)


def test_a_bundle_is_not_asked_about_those_by_whom_its_shares_were_chosen(world):
    split, catalogue, bundle = world
    manifest = judged(bundle, Offered(catalogue, []), split, bundle.manifest.seed, "cpu").manifest
    manifest = msgspec.structs.replace(manifest, data="log")
    others = halves(split.starts, manifest.seed)[1]
    assert sorted(unchosen(manifest, "log", split).starts) == others
    assert unchosen(manifest, "another log", split) == split
    assert unchosen(msgspec.structs.replace(manifest, chosen=False), "log", split) == split


@pytest.mark.slow
def test_a_training_reports_the_users_that_it_did_not_choose_by(world):
    split, catalogue, bundle = world
    mine, others = halves(split.starts, 5)
    found = judged(bundle, Offered(catalogue, []), split, 5, "cpu")
    assert found.manifest.metrics["cascade"]["users"] == len(others)
    expected = choose_shares(Cascade(Recommender(bundle), Options(8), catalogue, [], bundle.popular), questions(split, 2, mine), 5).shares
    assert found.manifest.config.retrieval.shares == expected
    whole = judged(bundle, Offered(catalogue, []), split, 5, "cpu", choose=False)
    assert whole.manifest.config.retrieval.shares == USUAL
    assert whole.manifest.metrics["cascade"]["users"] == len(split.starts)


def test_shares_out_of_range_are_refused():
    for wrong in ({"repeat": 1.0}, {"query": -0.1}, {"even": 1.5}, {"none": 0.1}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(wrong, Shares)
