"""The reranker: repeats and attention are those of the slow versions, its negatives as frequent as said, it learns what to repeat."""

from functools import cache

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from features.history import deeds, moments
from features.outcomes import Candidate
from features.rows import CategoryRow, UserRow
from models.encoding.inputs import Positions, gaps, newest_ts, tensors
from models.encoding.vocabulary import FIRST, Vocabulary
from models.evaluation import temporal
from models.evaluation.cascade import Cascade
from models.evaluation.prediction_points import questions
from models.serving.recommender import Recommender
from models.serving.retriever import Options
from models.training.train import learn
from research.reranking.config import RerankConfig
from research.reranking.examples import build, first_seen
from research.reranking.histories import Candidates, Numbers, RerankHistories, encode, newest, read_categories
from research.reranking.learning import distinct
from research.reranking.model import Reranker
from research.reranking.negatives import NegativePool
from research.reranking.order import TOGETHER, depth, reranked
from research.reranking.repeats import FEATURES, RerankBatch, repeats
from research.reranking.study import Reranked, train_reranker
from tests.references import reranking as reference
from tests.tiny_bundle import CONFIG, shop

CAP = 4  # of the GSU
TINY = RerankConfig(attention=True, dim=8, heads=2, searched=CAP)


def drawn(lengths, asked, seed, dim=8):
    """Random histories of these lengths and `asked` candidates of each, as Asked and as the lists of the reference."""
    rng = np.random.default_rng(seed)
    wide, users = max(1, *lengths, 0), len(lengths)
    vectors = rng.standard_normal((9, dim)).astype(np.float32)
    here = np.arange(wide) < np.array(lengths, np.int64)[:, None]
    number, kind = rng.integers(0, 9, (users, wide)), rng.integers(1, 5, (users, wide))
    age = (rng.random((users, wide)) * 10.0 ** rng.integers(0, 8, (users, wide))).astype(np.float32)
    category = number % 4
    columns = (number, number - 3 * (number < 2), category, kind, gaps(age.ravel() * 1000).reshape(age.shape), age)
    histories = RerankHistories(*(np.where(here, column, 0).astype(column.dtype) for column in columns))
    wanted = rng.integers(0, 9, (users, asked))
    candidates = Candidates(wanted, wanted - 3 * (wanted < 2), wanted % 4, np.ones(wanted.shape, np.bool_))
    lists = [
        [
            reference.Event(
                int(histories.number[b, n]), int(category[b, n]), int(kind[b, n]) - 1, float(age[b, n]), int(histories.gap[b, n]),
                vectors[number[b, n]].tolist(),
            )
            for n in range(length)
        ]
        for b, length in enumerate(lengths)
    ]  # fmt: skip
    return RerankBatch(tensors(histories, "cpu"), tensors(candidates, "cpu")), candidates, lists, torch.from_numpy(vectors)


shapes = (st.lists(st.sampled_from([0, 1, 2, CAP - 1, CAP, CAP + 1, 9]), min_size=1, max_size=4), st.integers(1, 5), st.integers(0, 2**31))


@settings(max_examples=60, deadline=None)
@given(*shapes)
def test_repeats_are_those_of_the_loops(lengths, asked, seed):
    batch, candidates, lists, _ = drawn(lengths, asked, seed)
    found = repeats(batch)
    assert found.shape == (len(lengths), asked, FEATURES)
    slow = [
        [reference.repeats(history, int(number), int(category)) for number, category in zip(numbers, categories, strict=True)]
        for history, numbers, categories in zip(lists, candidates.number, candidates.category, strict=True)
    ]
    torch.testing.assert_close(found, torch.tensor(slow), rtol=1e-4, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(*shapes)
def test_logits_are_those_of_the_loops(lengths, asked, seed):
    batch, candidates, lists, vectors = drawn(lengths, asked, seed)
    torch.manual_seed(seed)
    reranker = Reranker(TINY).eval()
    attention = reranker.attention
    weights = {name: getattr(attention.search, name).weight.tolist() for name in ("query", "key", "value", "out")}
    weights["empty"] = [attention.search.empty.tolist()]
    with torch.no_grad():
        found = reranker(vectors, batch)
        for b, history in enumerate(lists):
            for c in range(asked):
                target = vectors[int(candidates.item[b, c])]
                tables = attention.kind.weight.tolist(), attention.gap.weight.tolist()
                interest = torch.tensor(reference.interest(history, target.tolist(), *tables, weights, 2, CAP))
                features = torch.tensor(reference.repeats(history, int(candidates.number[b, c]), int(candidates.category[b, c])))
                logit = reranker.repeats(features) + attention.head(torch.cat([interest, target, interest * target]))
                torch.testing.assert_close(found[b, c], logit[0], rtol=1e-3, atol=1e-3)


def test_all_weights_are_trained():
    batch, _, _, vectors = drawn([0, 3, 9], 3, 0)
    reranker = Reranker(TINY)
    reranker(vectors, batch).square().sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in reranker.parameters())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([0, 1, 3, 7]), min_size=1, max_size=4), st.integers(1, 6), st.integers(0, 2**31))
def test_negatives_are_as_often_expected_as_the_loops_say(lengths, count, seed):
    batch, _, lists, _ = drawn(lengths, 1, seed)
    of = np.array([FIRST, FIRST, FIRST + 1, FIRST + 1, FIRST + 1, 1])
    targets = np.array([0, 0, 0, 3, 5])
    weight = np.sqrt(np.bincount(targets, minlength=6) + 1.0).tolist()
    histories = RerankHistories(*(array.numpy() for array in (batch.item, batch.number, batch.category, batch.kind, batch.gap, batch.age)))
    items, rows, log_q = NegativePool(of, targets).draw(histories, count, np.random.default_rng(seed))
    assert items.shape == rows.shape == log_q.shape == (len(lengths), count)
    assert (of[items] == rows).all()
    for b, history in enumerate(lists):
        slow = [reference.expected([event.category for event in history], item, of.tolist(), weight, count) for item in items[b].tolist()]
        np.testing.assert_allclose(np.exp(log_q[b]), slow, rtol=1e-6)


def test_negatives_are_drawn_as_often_as_expected():
    batch, _, _, _ = drawn([5], 1, 1)
    of = np.array([FIRST, FIRST, FIRST + 1, FIRST + 1, FIRST + 1, 1])
    histories = RerankHistories(*(array.numpy() for array in (batch.item, batch.number, batch.category, batch.kind, batch.gap, batch.age)))
    count = 200_000
    items, _, log_q = NegativePool(of, np.array([0, 0, 0, 3])).draw(histories, count, np.random.default_rng(0))
    told = np.zeros(6)
    told[items[0]] = np.exp(log_q[0])
    np.testing.assert_allclose(np.bincount(items[0], minlength=6), told, rtol=0.03)


def test_the_newest_event_of_each_item_stands_for_it():
    number = np.array([[5, 6, 5, 7, 0, 0], [1, 1, 1, 2, 2, 1]])
    kind = np.array([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
    histories = RerankHistories(number, number, number, kind, kind, number.astype(np.float32))
    assert distinct(histories).tolist() == [[False, True, True, True, False, False], [False, False, False, False, True, True]]


def seen(length, categories):
    """The last moment of the tiny shop's first user, and its history."""
    events, catalogue = shop(users=2, events=30)
    moment = list(moments({"u0": deeds(events)["u0"]}))[-1]
    return moment, newest(moment.row, moment.categories, categories, length), catalogue


@pytest.mark.parametrize("length", [1, 5, 27, 28, 29, 100])
@pytest.mark.parametrize("categories", [0, 1, 16])
def test_a_history_is_the_newest_of_the_rows_none_twice(length, categories):
    moment, history, _ = seen(length, categories)
    rows = {category: moment.categories[category] for category in read_categories(moment.row, categories)}
    every = {(event.ts, event.id): event for event in [*moment.row.recent, *(e for row in rows.values() for e in row.events)]}
    assert [(event.ts, event.id) for event in history] == sorted(every)[-length:]
    assert newest(moment.row, rows, categories, length) == history  # other rows make no difference


def test_a_history_goes_beyond_the_row_of_the_user():
    moment, _, _ = seen(100, 16)
    short = UserRow(recent=moment.row.recent[-3:], categories=moment.row.categories)
    assert len(newest(short, moment.categories, 0, 100)) == 3
    assert len(newest(short, moment.categories, 16, 100)) > 3
    assert newest(short, {}, 16, 100) == short.recent


def test_arrays_of_histories_tell_items_apart_that_no_table_has():
    moment, history, catalogue = seen(100, 16)
    known = {item.item_id: at for at, item in enumerate(catalogue[:3])}
    numbers = Numbers(Positions(known, Vocabulary.of(["c0", "c1"], [])))
    arrays = encode([moment.row, UserRow()], [history, []], numbers)
    items = [event.item for event in history]
    number = arrays.number[0, : len(items)].tolist()
    assert len(dict(zip(items, number, strict=True))) == len(set(number))
    assert all((n >= 0) == (item in known) for item, n in zip(items, number, strict=True))
    assert arrays.age[0, : len(items)].tolist() == [pytest.approx((newest_ts(moment.row) - event.ts) / 1000) for event in history]
    assert not arrays.kind[1].any()


@pytest.fixture(scope="module", params=[False, True], ids=["repeats", "attention"])
def scoring(request):
    return trained(request.param)


@cache
def trained(attention):
    events, catalogue = shop()
    bundle = bundle_of_shop()
    config = msgspec.structs.replace(RerankConfig.of(bundle.manifest.config, attention), searched=8, negatives=32)
    return train_reranker(bundle, deeds(events), catalogue, config, seed=3)


@cache
def bundle_of_shop():
    events, catalogue = shop()
    return learn(deeds(events), catalogue, CONFIG, 3, cut_ms=max(event.ts for event in events) + 1)


def test_training_is_the_same_twice(scoring):
    attention = scoring.config.attention
    again = trained.__wrapped__(attention)
    for name, weight in scoring.reranker.state_dict().items():
        assert torch.equal(again.reranker.state_dict()[name], weight)


def wanted_next():
    """The rows before the last moments of the tiny shop, with all of its items as candidates, and the items wanted."""
    events, catalogue = shop()
    last = [list(moments({user: done}))[-1] for user, done in deeds(events).items()]
    named = [Candidate(item.item_id, 0.5, item.category_id, "short") for item in catalogue]
    return last, named


def test_what_users_come_back_to_is_put_first(scoring):
    last, named = wanted_next()
    users, rows = [moment.row for moment in last], [moment.categories for moment in last]
    ordered = reranked(scoring, users, rows, [named] * len(last), 10)
    found = [moment.basket[0].item in {candidate.item for candidate in mine} for moment, mine in zip(last, ordered, strict=True)]
    assert np.mean(found) > 0.7  # of 72 items; 10 are 0.14 by chance, 6 are what a user ever wants


def test_the_order_is_that_of_each_user_alone_and_paths_stay(scoring):
    last, named = wanted_next()
    users = [moment.row for moment in last] * 2
    rows = [moment.categories for moment in last] * 2
    found = [named[: 5 + n % 7] for n in range(len(users))]
    found[1] = []
    assert len(users) > TOGETHER
    together = reranked(scoring, users, rows, found, 8)
    for user, mine, candidates, ordered in zip(users, rows, found, together, strict=True):
        [alone] = reranked(scoring, [user], [mine], [candidates], 8)
        np.testing.assert_allclose([c.score for c in alone], [c.score for c in ordered], rtol=0, atol=2e-3)
        assert ordered == sorted(ordered, key=lambda candidate: -candidate.score)
        assert len(ordered) == min(8, len(candidates))
        assert {candidate.path for candidate in ordered} <= {"short"}


def test_strange_users_items_and_categories_have_scores(scoring):
    strange = [Candidate("no such item", 1.0, "no such category", "repeat"), Candidate("i0-0", 1.0, "c0", "category")]
    ordered = reranked(scoring, [UserRow()], [{"c0": CategoryRow()}], [strange], 2)
    assert {candidate.path for candidate in ordered[0]} == {"repeat", "category"}


def test_scores_that_are_not_finite_are_an_error(scoring):
    broken = scoring._replace(reranker=Reranker(scoring.config))
    with torch.no_grad():
        broken.reranker.repeats[0].bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="not finite"):
        reranked(broken, [UserRow()], [{}], [[Candidate("i0-0", 1.0, "c0", "short")]], 1)


def test_ties_keep_the_order_of_the_merge(scoring):
    alike = scoring._replace(vectors=torch.ones_like(scoring.vectors))
    named = [Candidate(f"i{n % 2}-{n}", 1.0, f"c{n % 2}", "short") for n in (7, 3, 1, 9, 5)]
    assert [c.item for c in reranked(alike, [UserRow()], [{}], [named], 5)[0]] == [c.item for c in named]


def test_as_a_contender_it_reorders_the_lists_of_the_cascade(scoring):
    events, catalogue = shop()
    split = temporal(deeds(events), 0.1)
    asked = list(questions(split, 2, sorted(split.starts)))[:8]
    cascade = Cascade(Recommender(bundle_of_shop()), Options(exclude_bought=False), catalogue)
    found = Reranked(cascade, scoring).answer(asked, 10)
    lists = cascade.candidates(asked, depth(10))
    assert depth(10) == 15
    for question, answer, mine in zip(asked, found, lists, strict=True):
        assert set(answer.items) <= {candidate.item for candidate in mine}
        assert len(answer.items) == 10
        assert not set(answer.fresh) & question.had
    assert [answer.items for answer in found] != [[candidate.item for candidate in mine[:10]] for mine in lists]


def test_examples_hold_nothing_of_the_moment_they_are_to_foretell_and_want_what_was_known():
    events, catalogue = shop(users=3, events=20)
    catalogue = catalogue[:-1]
    done = deeds(events)
    cut = sorted(event.ts for deed in done.values() for event in deed.events)[30]
    positions = Positions({item.item_id: at for at, item in enumerate(catalogue)}, Vocabulary.of([i.category_id for i in catalogue], []))
    since = first_seen([msgspec.structs.replace(item, ts=cut + n) for n, item in enumerate(catalogue)], done)
    every = [event for deed in done.values() for event in deed.events]
    first = [min([cut + n, *(event.ts for event in every if event.item == item.item_id)]) for n, item in enumerate(catalogue)]
    assert since.tolist() == first
    examples = build(done, positions, since, TINY, cut)
    told = [
        (moment, event)
        for moment in moments(done, until_ts=cut)
        for event in moment.basket
        if any(other.item == event.item and other.ts < moment.ts for other in every) and event.item != "i5-11"
    ]
    assert 0 < len(told) < 30
    assert examples.target.tolist() == [positions.of(event.item, 0) for _, event in told]
    sizes = (examples.histories.kind[examples.moment] > 0).sum(1).tolist()
    assert sizes == [sum(event.ts < moment.ts for event in done[moment.user].events) for moment, _ in told]
