"""What serving withholds is withheld from every contender."""

import pytest

from features.events import Item
from features.history import deeds
from models.evaluation.baselines import Answer
from models.evaluation.prediction_points import questions
from models.evaluation.score import simple
from models.evaluation.serving_rules import ServingRules, UnderServingRules
from models.evaluation.split import temporal
from tests.tiny_bundle import shop

K = 20


@pytest.fixture(scope="module")
def split():
    events, _ = shop(users=10, events=40)
    return temporal(deeds(events), 0.3)


class Ranked:
    """Answers with the first k of a list."""

    def __init__(self, items):
        self.items = items

    def answer(self, asked, k):
        return [Answer(self.items[:k], [item for item in self.items if item not in question.had][:k]) for question in asked]


def points(split):
    return [point for point in questions(split, 2, sorted(split.starts)) if point.row.bought]


def test_items_that_follow_move_up(split):
    point = points(split)[0]
    bought = [event.item for event in point.row.bought]
    ranked = Ranked([bought[0], "sold out", "x", "y", "z"])
    for rules, expected in (
        (ServingRules(), [bought[0], "sold out", "x"]),
        (ServingRules(exclude_bought=True), ["sold out", "x", "y"]),
        (ServingRules(out_of_stock=frozenset({"sold out"})), [bought[0], "x", "y"]),
        (ServingRules(True, frozenset({"sold out"})), ["x", "y", "z"]),
    ):
        [answer] = UnderServingRules(ranked, rules).answer([point], 3)
        assert list(answer.items) == expected
        assert list(answer.fresh) == [item for item in ("sold out", "x", "y", "z") if item not in rules.out_of_stock][:3]


def test_no_simple_baseline_recommends_what_serving_withholds(split):
    sold_out = [Item(item_id=f"i{c}-0", category_id=f"c{c}", title="", ts=0, attributes={"in_stock": "no"}) for c in range(6)]
    asked = points(split)
    plain = {entry.name: entry.contender.answer(asked, K) for entry in simple(split)}
    ruled = {entry.name: entry.contender.answer(asked, K) for entry in simple(split, rules=ServingRules.of(True, sold_out))}
    assert asked
    for name, answers in ruled.items():
        withheld = [{event.item for event in point.row.bought} | {item.item_id for item in sold_out} for point in asked]
        assert any(out & set(answer.items) for out, answer in zip(withheld, plain[name], strict=True))
        for out, answer in zip(withheld, answers, strict=True):
            assert not out & {*answer.items, *answer.fresh}
            assert len(answer.items) == K
