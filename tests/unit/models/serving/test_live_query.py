"""A live search is a list of its own: when there is one, what it finds, and that the query side learnt what words mean."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from features.rows import Behaviour, Pair, Search, UserRow
from models.codes.codebook import Codebook
from models.config import NetworkConfig
from models.encoding.inputs import QUERY, Positions, Texts, ends_with, live_query, short_tokens
from models.encoding.vocabulary import Vocabulary
from models.index import ItemIndex, Where
from models.serving.live_query import searched_for
from models.serving.recommender import Recommender
from models.training.losses import sampled_softmax
from tests.drawn import drawn
from tests.tiny_bundle import quickly_trained

ITEMS = [f"i{number:02d}" for number in range(20)]
VECTORS = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
SAID = dict(zip("abc", np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32), strict=True))


def searching(text, ts=5):
    return UserRow(recent=[Behaviour(1, 1, "i01", "c", 0)], queries=[Search(ts, 7, 0, text)])


def told(texts):
    return np.stack([SAID.get(text, np.zeros(4, np.float32)) for text in texts])


@pytest.mark.parametrize(
    ("row", "live"),
    [
        (UserRow(), ""),
        (searching("a"), "a"),
        (UserRow(queries=[Search(1, 1, 0, "old"), Search(2, 2, 0, "new")]), "new"),
        (searching("a", ts=1), ""),  # an event of its time stands after it
        (searching("a", ts=0), ""),
        (UserRow(recent=[Behaviour(1, 1, "i01", "c", 0, 0, Pair(True, 5, 7, "a"))], queries=[Search(5, 7, 0, "a")]), ""),
    ],
)
def test_a_search_is_live_until_something_follows_and_so_training_sees_it(row, live):
    assert live_query(row) == live
    texts = Texts(NetworkConfig())
    tokens = short_tokens([row], Positions({}, Vocabulary.of(["c"], [])), texts, cap=9)
    assert ends_with(QUERY, tokens).tolist() == [texts.number(live) if live else 0]


searchers = st.tuples(st.sampled_from(["", "a", "b", "nothing"]), st.sets(st.sampled_from(ITEMS)))


@given(st.lists(searchers, max_size=5), st.integers(0, 25), st.booleans())
@settings(deadline=None)
def test_the_list_is_the_nearest_of_all_items_for_those_who_search(users, limit, only_available):
    available = np.arange(20) % 3 > 0
    view = ItemIndex(Codebook.train(VECTORS, 2, seed=0), VECTORS, ITEMS, ["c"] * 20, available=available).look()
    where = Where(available=True) if only_available else None
    extra = searched_for(view, [searching(text) for text, _ in users], told, [out for _, out in users], limit, where, 0.3)
    assert (extra.path, extra.share, extra.found.numbers.shape) == ("query", 0.3, (len(users), limit))
    for (text, out), numbers in zip(users, extra.found.numbers, strict=True):
        scores = VECTORS @ SAID[text] if text in SAID else np.zeros(20)
        there = [n for n in range(20) if text in SAID and ITEMS[n] not in out and (available[n] or not only_available)]
        expected = sorted(there, key=lambda n: (-scores[n], ITEMS[n]))[:limit]
        assert view.names(numbers[numbers >= 0]) == [ITEMS[n] for n in expected]


def test_words_find_the_items_that_are_called_so():
    bundle = quickly_trained(0)
    view, recommender = bundle.index().look(), Recommender(bundle)
    titles = dict(zip(bundle.items.ids, bundle.items.titles, strict=True))
    for colour in ("red", "green"):
        [hits] = view.hits(view.search_pool(recommender.queries([colour]), 18))
        assert Counter(titles[item].split()[0] for item, _ in hits)[colour] > 12
    assert not recommender.queries(["", "?!"]).any()
    assert recommender.queries([]).shape == (0, recommender.dim)


def test_a_query_counts_by_its_weight():
    queries, candidates, log_q = drawn(0, 3, 4), drawn(1, 5, 4), torch.zeros(5)
    allowed = torch.ones(3, 5, dtype=torch.bool)
    each = torch.stack([sampled_softmax(queries[[0, 1, 2]], candidates, allowed, log_q, 0.1, weight=torch.eye(3)[n]) for n in range(3)])
    torch.testing.assert_close(each.mean(), sampled_softmax(queries, candidates, allowed, log_q, 0.1))
    assert sampled_softmax(queries, candidates, allowed, log_q, 0.1, weight=torch.zeros(3)) == 0
