"""The lists that a refresh worker serves are those that an evaluation of the same bundle measures, at every fallback level."""

import msgspec
import pytest

from features.event_time import DAY_MS
from features.events import Item
from features.history import deeds
from models.evaluation import temporal
from models.evaluation.cascade import Cascade
from models.evaluation.prediction_points import questions
from models.index import Upsert
from models.serving.recommender import Recommender
from models.serving.retriever import Options
from tests.refresh_world import NOW, System, lose_model, request
from tests.tiny_bundle import quickly_trained, shop

SOLD_OUT = {"i1-3", "i2-0", "i4-7"}
K = 40


@pytest.fixture(scope="module")
def moments():
    """Questions, one per user, and the events before each."""
    events, _ = shop(users=10, events=40, start_ms=NOW - 40 * DAY_MS)
    split = temporal(deeds(events), 0.3)
    asked = [question for user in sorted(split.starts) for question in list(questions(split, 9, [user]))[-1:]]
    assert len(asked) == 10
    assert any(question.row.bought for question in asked)
    return asked, {q.user: [event for event in events if event.user_id == q.user and event.ts < q.ts] for q in asked}


@pytest.mark.parametrize("exclude_bought", [True, False])
@pytest.mark.parametrize("level", ["full", "short", "category_popular"])
def test_a_refresh_worker_serves_what_is_evaluated(moments, level, exclude_bought):
    asked, before = moments
    served = {user: refreshed(user, events, level, exclude_bought) for user, events in before.items()}
    evaluated = cascade(exclude_bought).candidates(asked, K, level=level)
    for question, mine in zip(asked, evaluated, strict=True):
        found = served[question.user]
        assert [(c.item, c.category, c.path) for c in found] == [(c.item, c.category, c.path) for c in mine]
        assert [c.score for c in found] == pytest.approx([c.score for c in mine], abs=1e-5)
        assert not {c.item for c in found} & SOLD_OUT
        if exclude_bought:
            assert not {c.item for c in found} & {event.item for event in question.row.bought}
    assert sum(len(mine) for mine in evaluated) > 10 * K / 2


@pytest.mark.parametrize("exclude_bought", [True, False])
@pytest.mark.parametrize("level", ["full", "short", "category_popular"])
def test_a_user_of_whom_nothing_is_known_is_evaluated_as_served(moments, level, exclude_bought):
    unknown = msgspec.structs.replace(moments[0][0], row=type(moments[0][0].row)(), rows={}, past=[])
    system = System(candidates=K, exclude_bought=exclude_bought)
    sold_out(system)
    if level == "category_popular":
        lose_model(system)
    found = system.answer([request("nobody")], level == "short")
    [mine] = cascade(exclude_bought).candidates([unknown], K, level=level)
    assert found.level == "popular"
    assert [(c.item, c.category, c.path) for c in found.candidates] == [(c.item, c.category, c.path) for c in mine]
    assert [c.score for c in found.candidates] == pytest.approx([c.score for c in mine], abs=1e-5)
    assert found.candidates
    assert not {c.item for c in found.candidates} & SOLD_OUT


def refreshed(user, events, level, exclude_bought):
    system = System(candidates=K, exclude_bought=exclude_bought)
    sold_out(system)
    requests = system.happens(*events)
    if level == "category_popular":
        lose_model(system)
    found = system.answer(requests, level == "short")
    assert (found.user_id, found.level) == (user, level)
    return found.candidates


def sold_out(system):
    now, index = system.serving.index.look(), system.serving.index
    names = sorted(SOLD_OUT)
    numbers = now.numbers(names)
    rows = zip(names, now.category_numbers(numbers).tolist(), now.vectors(numbers), now.codes(numbers), strict=True)
    index.apply([Upsert(item, now.category_name(own), vector, code, index.generation, available=False) for item, own, vector, code in rows])


def cascade(exclude_bought):
    bundle = quickly_trained(1)
    catalogue = [
        Item(item_id=item, category_id=category, title="", ts=0, attributes={"in_stock": "no"} if item in SOLD_OUT else {})
        for item, category in zip(bundle.items.ids, bundle.items.categories, strict=True)
    ]
    return Cascade(Recommender(bundle), Options(exclude_bought=exclude_bought), catalogue, popular=bundle.popular)
