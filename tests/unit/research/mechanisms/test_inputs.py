"""Inputs that an ablation leaves out are not read, and those that it replaces are what plain loops make of them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from features.history import deeds, moments
from features.rows import KINDS, UserRow
from models.config import NetworkConfig
from models.encoding.contents import Widths, strangers
from models.encoding.inputs import QUERY, Tokens, TouchedTokens
from models.encoding.vocabulary import Vocabulary
from models.network.layers import attend
from models.network.ulim import Network
from models.serving.recommender import Recommender
from models.training.train import learn
from research import mechanisms
from research.mechanisms import inputs
from research.mechanisms.category_source import GeneratorOnly, PointerOnly
from research.mechanisms.inputs import FOLDED, folded, newest_half
from tests.drawn import drawn
from tests.tiny_bundle import CONFIG, quickly_trained, shop

WIDTHS = Widths(image=3)
SMALL = NetworkConfig(dim=8, heads=2, buckets=16, attribute_buckets=16)
VOCABULARY = Vocabulary(["a", "b"], ["i"])
BUILDERS = [inputs.NO_GAP, inputs.ONE_KIND, inputs.NO_PAIRED_TEXT, inputs.NEWEST_HALF, inputs.FOLDS, inputs.without_queries]


def network(build_network=Network):
    torch.manual_seed(0)
    return build_network(SMALL, VOCABULARY.category_rows, VOCABULARY.item_rows, WIDTHS).eval()


def history(rng, batch, length, most=QUERY):
    """Tokens of all kinds up to `most`, padded on the right; and the words of three texts."""
    kind = np.where(np.arange(length) < rng.integers(0, length + 1, batch)[:, None], rng.integers(1, most + 1, (batch, length)), 0)
    item, category, gap, text = (rng.integers(0, high, (batch, length)) * (kind > 0) for high in (4, 4, 20, 3))
    return Tokens(item, category, kind, gap, text), np.array([[0, 0], [3, 4], [5, 0]])


def long_of(net, tokens, words, pooled=None):
    vectors = net.items(strangers(VOCABULARY, SMALL, WIDTHS))
    batch = len(tokens.item)
    p, u = drawn(1, batch, 8) if pooled is None else pooled, drawn(2, batch, 8)
    with torch.inference_mode():
        return net.long(vectors, tokens, net.texts(words), p, u, torch.full((batch,), 2))


def short_of(net, tokens, words):
    vectors = net.items(strangers(VOCABULARY, SMALL, WIDTHS))
    with torch.inference_mode():
        return net.users(vectors, tokens, TouchedTokens(*np.zeros((3, len(tokens.item), 1), np.int64)), net.texts(words)).vectors


LEFT_OUT = [
    (inputs.NO_GAP, "gap", lambda rng, kind: np.full_like(kind, 7)),
    (inputs.NO_PAIRED_TEXT, "text", lambda rng, kind: np.where(kind < QUERY, 1, 0)),
    (inputs.ONE_KIND, "kind", lambda rng, kind: np.where((kind > 0) & (kind < QUERY), 1 + rng.integers(0, len(KINDS), kind.shape), kind)),
]


@pytest.mark.parametrize("tower", [long_of, short_of])
@pytest.mark.parametrize(("build_network", "field", "other"), LEFT_OUT)
def test_what_is_left_out_is_not_read_and_the_default_reads_it(build_network, field, other, tower):
    rng = np.random.default_rng(0)
    tokens, words = history(rng, 6, 9)
    tokens = tokens._replace(text=tokens.text * (tokens.kind < QUERY))
    changed = tokens._replace(**{field: other(rng, tokens.kind) * (tokens.kind > 0)})
    usual, without = network(), network(build_network)
    assert not torch.allclose(tower(usual, tokens, words), tower(usual, changed, words), atol=1e-4)
    torch.testing.assert_close(tower(without, tokens, words), tower(without, changed, words))


@pytest.mark.parametrize("build_network", [inputs.ONE_KIND, inputs.NO_PAIRED_TEXT])
def test_queries_without_an_event_are_still_read(build_network):
    tokens, words = history(np.random.default_rng(0), 6, 9)
    query, net = tokens.kind == QUERY, network(build_network)
    for changed in (
        tokens._replace(kind=np.where(query, 1, tokens.kind)),
        tokens._replace(text=np.where(query, 2 - tokens.text, tokens.text)),
    ):
        assert not torch.allclose(short_of(net, tokens, words), short_of(net, changed, words), atol=1e-4)


@given(st.integers(1, 4), st.integers(1, 9), st.integers(0, 2**31))
def test_half_of_a_history_is_its_newest_events(batch, length, seed):
    tokens, words = history(np.random.default_rng(seed), batch, length, len(KINDS))
    half = newest_half(tokens)
    for kind, kept in zip(tokens.kind.tolist(), half.kind.tolist(), strict=True):
        count = sum(one > 0 for one in kind)
        assert kept == [0 if n < count // 2 else one for n, one in enumerate(kind)]
    net = network()
    torch.testing.assert_close(long_of(network(inputs.NEWEST_HALF), tokens, words), long_of(net, half, words))


@given(st.integers(1, 4), st.integers(1, 20), st.integers(0, 5), st.integers(1, 4), st.integers(0, 2**31))
def test_older_events_fold_into_buckets_that_share_an_age(batch, length, newest, buckets, seed):
    tokens, _ = history(np.random.default_rng(seed), batch, length, len(KINDS))
    found = folded(tokens, newest, buckets)
    for b in range(batch):
        count = int((tokens.kind[b] > 0).sum())
        older = max(0, count - newest)
        groups = [[n for n in range(older) if n * buckets // max(1, older) == bucket] for bucket in range(buckets)]
        assert {len(group) for group in groups} <= {older // buckets, -(-older // buckets)}
        for group in groups:
            assert all(found.gap[b, n] == tokens.gap[b, group[-1]] for n in group)
        assert (found.kind[b, :older] == FOLDED).all()
        for field in ("item", "category", "text"):
            assert (getattr(found, field)[b, :older] == 0).all()
        for one, other in zip(found, tokens, strict=True):
            assert (one[b, older:] == other[b, older:]).all()


def test_n_equal_events_draw_the_attention_of_one_whose_score_has_ln_n():
    query, other, key = drawn(1, 1, 4), drawn(2, 1, 1, 4), drawn(3, 1, 1, 4)
    many = attend(query, torch.cat([other, key.expand(-1, 3, -1)], 1), torch.ones(1, 4, dtype=torch.bool))
    scores = torch.einsum("bd,btd->bt", query, torch.cat([other, key], 1)) / 2 + torch.tensor([[0.0, 3.0]]).clamp(min=1).log()
    torch.testing.assert_close(many[:, 0], scores.softmax(1)[:, 0])


def test_the_kind_of_a_bucket_is_none_that_an_event_has():
    assert FOLDED > QUERY
    assert network().towers.tokens.kind.num_embeddings == FOLDED + 1


def test_a_silent_search_unit_starts_with_the_usual_weights_and_leaves_the_generator_of_torch_where_it_was():
    usual, after = network(), torch.rand(1)
    silent, too = network(inputs.without_queries), torch.rand(1)
    assert torch.equal(after, too)
    assert all(torch.equal(one, other) for one, other in zip(usual.state_dict().values(), silent.state_dict().values(), strict=True))
    words = np.array([[3, 4], [0, 0]])
    assert usual.psu.queries(words).here.tolist() == [True, False]
    found = silent.psu.queries(words)
    assert not found.here.any()
    assert (found.query == 0).all()
    assert (silent.texts(words) == 0).all()


@pytest.mark.parametrize("build_network", BUILDERS)
def test_each_trains_and_serves_with_the_parameters_of_the_network(build_network):
    assert network(build_network).state_dict().keys() == network().state_dict().keys()
    events, catalogue = shop(users=10, events=20)
    config = CONFIG.replace(epochs=1)
    bundle = learn(deeds(events), catalogue, config, 0, cut_ms=events[-1].ts + 1, build_network=build_network)
    recommender = Recommender(bundle)
    recommender.warm_up()
    assert bundle.generation != learn(deeds(events), catalogue, config, 0, cut_ms=events[-1].ts + 1).generation


def test_the_long_tower_attends_by_the_short_history_unless_it_pools_by_self_attention():
    tokens, words = history(np.random.default_rng(1), 5, 9)
    for build_network in (Network, mechanisms.SELF_ATTENTION):
        net = network(build_network)
        net.towers.long.dnn[0].weight.data[:, 16:] = 0  # p_s comes in by the attention alone
        same = torch.allclose(long_of(net, tokens, words), long_of(net, tokens, words, drawn(9, 5, 8)), atol=1e-5)
        assert same == (build_network is mechanisms.SELF_ATTENTION)


def test_categories_come_from_one_part_alone():
    bundle, events = quickly_trained(0), shop(users=10, events=20)[0]
    users = [moment.row for moment in moments(deeds(events))][-20:]
    usual = Recommender(bundle)
    state = usual.short(users)
    parts = usual.category_parts(users, state, 4)
    for source, part in ((PointerOnly, 0), (GeneratorOnly, 1)):
        recommender = source(bundle)
        chosen = recommender.categories(users, state, 4)
        assert [[name for name, _ in mine] for mine in chosen] == [both[part] for both in parts]
        assert all(abs(sum(chance for _, chance in mine)) <= 1 + 1e-5 for mine in chosen)
    assert PointerOnly(bundle).categories([UserRow()], usual.short([UserRow()]), 4) == [[]]
