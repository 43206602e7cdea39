"""The towers against plain loops, over random shapes; and what they promise at the edges."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from models.config import NetworkConfig
from models.encoding.contents import Widths, strangers
from models.encoding.vocabulary import Vocabulary
from models.network.layers import attend, masked_mean, or_empty
from models.network.towers import LongTower, ShortTower
from models.network.ulim import Network, Pgin, scatter
from models.training.losses import allow, sampled_softmax
from tests.drawn import drawn, masks
from tests.references import towers as reference

sizes = st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 6), st.integers(0, 2**31))
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@given(sizes)
@settings(deadline=None)
def test_pooling_and_attention_are_those_of_the_loops(shape):
    batch, length, dim, seed = shape
    tokens, query, mask = drawn(seed, batch, length, dim), drawn(seed + 1, batch, dim), masks(seed, batch, length)
    pooled, attention = masked_mean(tokens, mask), attend(query, tokens, mask)
    for b in range(batch):
        here = mask[b].tolist()
        torch.testing.assert_close(pooled[b], torch.tensor(reference.masked_mean(tokens[b].tolist(), here)), **CLOSE)
        slow = reference.attend(query[b].tolist(), tokens[b].tolist(), here)
        torch.testing.assert_close(attention[b], torch.tensor(slow), **CLOSE)
    assert (attention[~mask] == 0).all()


@given(sizes, st.integers(2, 12))
@settings(deadline=None)
def test_the_pointer_is_scattered_as_by_the_loop_and_zero_elsewhere(shape, rows):
    batch, length, _, seed = shape
    attention = drawn(seed, batch, length).softmax(1)
    category = torch.randint(0, rows, (batch, length), generator=torch.Generator().manual_seed(seed))
    probability = scatter(attention, category, rows)
    for b in range(batch):
        slow = reference.scatter(attention[b].tolist(), category[b].tolist(), rows)
        torch.testing.assert_close(probability[b], torch.tensor(slow), **CLOSE)
        assert {row for row, p in enumerate(probability[b].tolist()) if p != 0} <= set(category[b].tolist())


@given(st.integers(1, 4), st.integers(1, 7), st.integers(0, 2**31))
@settings(deadline=None)
def test_self_attention_of_the_short_tower_is_that_of_the_loop(batch, length, seed):
    tokens, mask = drawn(seed, 3, batch, length, 4), masks(seed, batch, length)
    mask[:, 0] = True
    fast = F.scaled_dot_product_attention(*tokens, attn_mask=mask[:, None, :].expand(-1, length, -1))
    for b in range(batch):
        slow = reference.self_attention(*(tokens[n, b].tolist() for n in range(3)), mask[b].tolist())
        torch.testing.assert_close(fast[b], torch.tensor(slow), **CLOSE)


@given(st.integers(1, 5), st.integers(0, 6), st.integers(0, 2**31), st.sampled_from(["negatives", "all", "none"]))
@settings(deadline=None)
def test_the_loss_is_that_of_the_loop(batch, more, seed, correct):
    queries, candidates, log_q = drawn(seed, batch, 3), drawn(seed + 1, batch + more, 3), drawn(seed + 2, batch + more)
    position = torch.randint(0, 4, (batch + more,), generator=torch.Generator().manual_seed(seed))
    allowed = allow(position[:batch], position, masks(seed, batch, batch + more))
    slow = [
        reference.sampled_softmax(queries[b].tolist(), candidates.tolist(), allowed[b].tolist(), log_q.tolist(), b, 0.1, correct)
        for b in range(batch)
    ]
    fast = sampled_softmax(queries, candidates, allowed, log_q, 0.1, correct)
    torch.testing.assert_close(fast, torch.tensor(slow).mean(), **CLOSE)
    for b in range(batch):
        assert allowed[b, b]
        assert not any(allowed[b, c] for c in range(batch + more) if c != b and position[c] == position[b])


@given(sizes)
@settings(deadline=None, max_examples=30)
def test_what_is_masked_changes_nothing_and_the_empty_sequence_has_its_token(shape):
    batch, length, _, seed = shape
    torch.manual_seed(seed)
    dim, mask, tokens, profile = 4, masks(seed, batch, length), drawn(seed, batch, length, 4), drawn(seed, batch, 4)
    short, long = ShortTower(NetworkConfig(dim=dim)), LongTower(NetworkConfig(dim=dim))
    mine = tokens * mask.unsqueeze(-1)

    def outputs(padding):
        filled = torch.where(mask.unsqueeze(-1), tokens, padding)
        pooled, vector = short(filled, mask, mine, mask, profile)
        return pooled, vector, long(filled, mask, mine, pooled, profile, profile)

    for one, other in zip(outputs(torch.tensor(0.0)), outputs(torch.tensor(7.0)), strict=True):
        torch.testing.assert_close(one, other, **CLOSE)
        assert torch.isfinite(one).all()
    for vector in outputs(torch.tensor(0.0))[1:]:
        torch.testing.assert_close(vector.norm(dim=1), torch.ones(batch))
    filled, present = or_empty(tokens, mask, short.empty)
    assert present.any(1).all()
    assert all(torch.equal(filled[b, 0], short.empty) for b in range(batch) if not mask[b].any())


def test_pgin_mixes_probabilities_and_points_at_nothing_that_was_not_touched():
    torch.manual_seed(0)
    pgin, table = Pgin(4), torch.randn(9, 4)
    category = torch.tensor([[3, 5, 3], [2, 0, 0], [0, 0, 0]])
    next_ = pgin(torch.randn(3, 4), torch.randn(3, 4), torch.randn(3, 3, 4), category, table, torch.zeros(9))
    torch.testing.assert_close(next_.mixed.sum(1), torch.ones(3))
    assert [set(row.nonzero()[:, 0].tolist()) for row in next_.pointer] == [{3, 5}, {2}, set()]
    assert next_.gate[2] == 0
    assert (next_.generator[:, :2] == 0).all()
    next_.mixed[0, 3].log().backward()
    assert all(parameter.grad is not None for parameter in pgin.parameters())


def test_every_parameter_is_registered_and_items_are_unit_vectors():
    vocabulary, widths = Vocabulary(["a", "b"], ["i"]), Widths(image=3)
    config = NetworkConfig(dim=8, heads=2)
    network = Network(config, vocabulary.category_rows, vocabulary.item_rows, widths)
    vectors = network.items(strangers(vocabulary, config, widths))
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4))
    assert {name.split(".")[0] for name in network.state_dict()} == {"psu", "space", "towers", "pgin", "popularity"}
