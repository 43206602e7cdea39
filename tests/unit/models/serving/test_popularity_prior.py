"""How much items are wanted of late puts what the searches find in another order, and nothing else."""

from dataclasses import replace
from math import log1p

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from features.event_time import DAY_MS
from features.events import Click
from features.history import deeds
from models.bundle.popular import NOTHING_POPULAR, Popular
from models.codes.codebook import Codebook
from models.evaluation.baselines import popularity
from models.evaluation.cascade import Cascade
from models.evaluation.prediction_points import questions
from models.evaluation.split import temporal
from models.index import Delete, Found, ItemIndex
from models.serving.cascade import Searched
from models.serving.popularity_prior import Demand, descending
from models.serving.recommender import Recommender
from models.serving.retriever import Options
from tests.refresh_world import NOW, System, click
from tests.tiny_bundle import CONFIG, quickly_trained, shop

ITEMS = [f"i{number}" for number in range(20)]
VECTORS = np.random.default_rng(0).standard_normal((20, 8)).astype(np.float32)
TEMPERATURE = 0.1


def index():
    return ItemIndex(Codebook.train(VECTORS, 2, 0, rounds=1), VECTORS, ITEMS, ["c"] * 20)


def searched(rows):
    """Hits (number, score) of each list as a search gives them: best first, ties by number."""
    width = max(map(len, rows), default=0)
    numbers, scores = np.full((len(rows), width), -1, np.int32), np.full((len(rows), width), -np.inf, np.float32)
    for row, hits in enumerate(rows):
        for at, (number, score) in enumerate(sorted(hits, key=lambda hit: (-hit[1], hit[0]))):
            numbers[row, at], scores[row, at] = number, score
    return Searched(Found(numbers, scores), Found(numbers[::-1], scores[::-1]), [])


lists = st.lists(
    st.lists(st.tuples(st.integers(0, 19), st.sampled_from([-0.5, 0.0, 0.25, 0.25, 0.5])), unique_by=lambda hit: hit[0], max_size=12),
    min_size=1,
    max_size=3,
)
counts = st.dictionaries(st.sampled_from(ITEMS), st.sampled_from([0.5, 3.0, 3.0, 200.0]))


@given(lists, counts, st.sampled_from([0.5, 1.0, 3.0]))
def test_hits_come_by_score_and_the_logarithm_of_their_count(rows, events, weight):
    popular = Popular.of((item, "c", count) for item, count in events.items())
    before = searched(rows)
    found = Demand(index().look(), popular, TEMPERATURE).ordered(before, weight)
    for old, new in ((before.pool, found.pool), (before.categories, found.categories)):
        for numbers, scores, now, now_scores in zip(old.numbers, old.scores, new.numbers, new.scores, strict=True):
            hits = [(number, score) for number, score in zip(numbers.tolist(), scores.tolist(), strict=True) if number >= 0]
            raised = [(number, score + TEMPERATURE * weight * log1p(events.get(f"i{number}", 0.0))) for number, score in hits]
            expected = sorted(raised, key=lambda hit: -round(hit[1], 5))
            kept = len(hits)
            np.testing.assert_allclose(now_scores[:kept], [score for _, score in expected], rtol=1e-5, atol=1e-6)
            assert now[:kept].tolist() == [number for number, _ in expected]
            assert (now[kept:] == -1).all()
            assert np.isneginf(now_scores[kept:]).all()


@given(
    arrays(
        np.float32, (3, 40), elements=st.sampled_from([-np.inf, -1e30, -0.5, -0.0, 0.0, 1e-40, 0.5, 1e30]) | st.floats(-10, 10, width=32)
    )
)
def test_the_order_is_that_of_a_stable_sort(scores):
    np.testing.assert_array_equal(descending(scores), np.argsort(-scores, axis=1, kind="stable"))


def test_no_weight_and_nothing_popular_change_nothing():
    before = searched([[(3, 0.5), (1, 0.25)]])
    popular = Popular.of([("i1", "c", 100.0)])
    assert Demand(index().look(), popular, TEMPERATURE).ordered(before, 0.0) is before
    after = Demand(index().look(), NOTHING_POPULAR, TEMPERATURE).ordered(before, 1.0)
    np.testing.assert_array_equal(after.pool.numbers, before.pool.numbers)


def test_items_that_are_not_in_the_index_are_passed_over():
    items = index()
    items.apply([Delete("i19")])
    popular = Popular.of([("i19", "c", 100.0), ("never", "c", 100.0), ("i1", "c", 100.0)])
    found = Demand(items.look(), popular, TEMPERATURE).ordered(searched([[(19, 0.0), (1, 0.0), (0, 0.0)]]), 1.0)
    assert found.pool.numbers.tolist() == [[1, 0, 19]]


def test_an_event_counts_half_after_each_half_life_and_nothing_later_counts():
    events = [("a", 0), ("a", 7), ("b", 14), ("later", 15)]
    clicks = [Click(event_id=f"e{n}", user_id="u", item_id=item, category_id="c", ts=day * DAY_MS) for n, (item, day) in enumerate(events)]
    until = 14 * DAY_MS + 1
    popular = popularity(deeds(clicks), until, 10, half_life_days=7.0)
    assert dict(popular.by_category["c"]) == pytest.approx({"a": 0.75, "b": 1.0}, rel=1e-6)
    assert [item for item, *_ in popularity(deeds(clicks), until, 10).overall] == ["a", "b"]


def refreshed(item, count, **limits):
    """What the searches find for a user when `item` has so many events of late."""
    system = System(**limits)
    system.serving.demand = Demand(system.serving.index.look(), Popular.of([(item, "c1", count)]), 0.07)
    sets = system.process(system.happens(*[click(n, f"c{n % 3}", ts=NOW - 1000 * (30 - n)) for n in range(20)])).sets
    return [found.item for found in sets[0][0].candidates if found.path in ("category", "short")]


def test_what_is_wanted_of_late_comes_first_and_a_setting_can_overrule_the_bundle():
    plain = refreshed("i1-7", 1.0, demand=0.0)
    last = plain[-1]
    assert refreshed(last, 1e9, demand=0.0) == plain
    assert refreshed(last, 1e9).index(last) < plain.index(last)
    assert set(refreshed(last, 1e9)) == set(plain)


def test_the_cascade_of_an_evaluation_reads_what_it_is_given_and_not_what_the_bundle_knows():
    events, catalogue = shop(users=20, events=40)
    split = temporal(deeds(events), 0.2, None)
    bundle = quickly_trained(1)
    asked = questions(split, 2, sorted(split.starts))
    batch = list(asked)[:10]

    def answers(weight, popular):
        config = bundle.manifest.config.replace(demand=weight)
        served = replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, config=config))
        return [answer.items for answer in Cascade(Recommender(served), Options(8), catalogue, popular=popular).answer(batch, 60)]

    popular = popularity(split.known, split.cut_ms, 200, CONFIG.retrieval.popular_days)
    assert bundle.popular != popular
    assert answers(2.0, NOTHING_POPULAR) == answers(0.0, popular)
    assert answers(2.0, popular) != answers(0.0, popular)
