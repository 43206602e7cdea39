"""The three objectives against plain loops, over random shapes and masks; and that they pull the right way."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from models.network.psu import ItemVectors
from models.training.pretraining import SAME, alignment, apart, next_pair, relevance
from tests.drawn import drawn, masks
from tests.references import seminar as reference

CLOSE = {"rtol": 1e-3, "atol": 1e-4}
TEMPERATURE = 0.05
seeds = st.integers(0, 2**31)


def items_of(vectors, present):
    modalities = F.normalize(vectors, dim=-1) * present.unsqueeze(-1)
    return ItemVectors(modalities, present / present.sum(1, keepdim=True).clamp(min=1), present)


@given(st.integers(0, 4), st.integers(1, 5), seeds)
@settings(deadline=None, max_examples=40)
def test_the_next_pair_is_a_softmax_over_what_is_allowed(batch, count, seed):
    logits, log_q, allowed = drawn(seed, batch, count), drawn(seed + 1, batch, count), masks(seed, batch, count)
    allowed[:, 0] = True
    slow = reference.next_pair(logits.tolist(), allowed.tolist(), log_q.tolist())
    torch.testing.assert_close(next_pair(logits, allowed, log_q), torch.tensor(slow), **CLOSE)


@given(st.integers(0, 6), st.integers(2, 4), seeds)
@settings(deadline=None, max_examples=40)
def test_alignment_is_that_of_the_loops_whatever_is_missing(count, modalities, seed):
    vectors, present = drawn(seed, count, modalities, 3), masks(seed, count, modalities)
    if count > 2:
        vectors[1, 0], present[1, 0] = vectors[0, 0], present[0, 0]  # two look-alikes
    items = items_of(vectors, present)
    slow = reference.alignment(items.modalities.tolist(), present.tolist(), 0.2, SAME)
    torch.testing.assert_close(alignment(items, 0.2), torch.tensor(slow), **CLOSE)


@given(st.integers(0, 5), seeds)
@settings(deadline=None, max_examples=40)
def test_relevance_is_that_of_the_loops(count, seed):
    queries, items, negatives = drawn(seed, count, 3), drawn(seed + 1, count, 3), masks(seed, count, count)
    weight = drawn(seed + 2, count).abs() * masks(seed + 3, count)
    slow = reference.relevance(queries.tolist(), items.tolist(), negatives.tolist(), weight.tolist(), 0.3)
    torch.testing.assert_close(relevance(queries, items, negatives, weight, 0.3), torch.tensor(slow), **CLOSE)


def descend(loss_of, *tensors):
    """The tensors after steps down a loss."""
    moved = [tensor.clone().requires_grad_() for tensor in tensors]
    optimiser = torch.optim.SGD(moved, lr=0.05)
    for _ in range(60):
        optimiser.zero_grad()
        loss_of(*moved).backward()
        optimiser.step()
    return [tensor.detach() for tensor in moved]


def test_what_follows_the_same_query_elsewhere_is_no_negative():
    rng = np.random.default_rng(0)
    pairs = np.unique(rng.integers(0, 6, (20, 2)), axis=0)
    there = {tuple(pair) for pair in pairs.tolist()}
    expected = [[(text, item) not in there for _, item in pairs.tolist()] for text, _ in pairs.tolist()]
    assert apart(*torch.from_numpy(pairs).T).tolist() == expected
    assert apart(torch.tensor([0, 0, 1]), torch.tensor([1, 2, 2]))[0].tolist() == [False, False, False]


def test_relevance_draws_query_and_item_together_and_negatives_apart():
    queries, items, negatives = drawn(0, 4, 8), drawn(1, 4, 8), ~torch.eye(4, dtype=torch.bool)
    before = F.cosine_similarity(queries[:, None], items[None], dim=-1)
    moved = descend(lambda q, e: relevance(q, e, negatives, torch.ones(4), TEMPERATURE), queries, items)
    after = F.cosine_similarity(moved[0][:, None], moved[1][None], dim=-1)
    assert after.diagonal().mean() > before.diagonal().mean() + 0.05
    assert after[negatives].mean() < before[negatives].mean()


def test_alignment_draws_the_modalities_of_an_item_together_and_leaves_look_alikes_alone():
    present = torch.ones(4, 2, dtype=torch.bool)
    vectors = drawn(2, 4, 2, 8)
    (moved,) = descend(lambda v: alignment(items_of(v, present), TEMPERATURE), vectors)
    near = F.cosine_similarity(vectors[:, 0], vectors[:, 1], dim=-1), F.cosine_similarity(moved[:, 0], moved[:, 1], dim=-1)
    assert (near[1] > near[0]).all()
    twins = drawn(3, 1, 2, 8).repeat(3, 1, 1)
    assert alignment(items_of(twins, present[:3]), 0.05) == pytest.approx(0, abs=1e-5)


def test_targets_are_as_sharp_as_the_temperature_says():
    """A known defect multiplies by the temperature: then no batch, however well aligned, has a loss near zero."""
    items = items_of(torch.eye(8).unsqueeze(1).expand(-1, 2, -1), torch.ones(8, 2, dtype=torch.bool))
    assert alignment(items, 0.05) < 1e-5
    assert relevance(torch.eye(8), torch.eye(8), ~torch.eye(8, dtype=torch.bool), torch.ones(8), 0.05) < 1e-5


def test_nothing_to_learn_from_is_zero_with_gradients_that_are_numbers():
    vectors = drawn(4, 3, 4, 8).requires_grad_()
    present = torch.zeros(3, 4, dtype=torch.bool)
    total = alignment(items_of(vectors, present), 0.05) + next_pair(vectors[:0, :, 0], present[:0], vectors[:0, :, 0])
    total = total + relevance(vectors[:0, 0], vectors[:0, 1], present[:0, :0], vectors[:0, 0, 0], 0.05)
    total.backward()
    assert total == 0
    assert torch.isfinite(vectors.grad).all()
