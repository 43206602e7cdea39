"""What the short tower may read its tokens by: a recurrence, and self-attention of several users in a row."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.config import NetworkConfig
from models.encoding.contents import Widths
from models.network.layers import SelfAttention
from research import mechanisms
from research.mechanisms.packing import first_fit, pack, packed
from research.mechanisms.recurrent import Recurrent, scan
from tests.drawn import drawn
from tests.references import towers as reference

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
CAP = 16
lengths = st.lists(st.sampled_from([0, 1, 2, 7, CAP - 1, CAP]), min_size=1, max_size=9)


def first(lengths, width):
    """A mask of tokens that come first."""
    return torch.arange(width) < torch.tensor(lengths).unsqueeze(1)


@given(st.integers(1, 4), st.integers(1, 2 * CAP + 1), st.integers(1, 4), st.integers(0, 2**31))
@settings(deadline=None, max_examples=40)
def test_all_states_at_once_are_those_of_one_after_the_other(batch, length, dim, seed):
    kept, added = drawn(seed, batch, length, dim).sigmoid(), drawn(seed + 1, batch, length, dim)
    states = scan(kept, added)
    for b in range(batch):
        torch.testing.assert_close(states[b], torch.tensor(reference.recurrence(kept[b].tolist(), added[b].tolist())), **CLOSE)


@given(lengths, st.integers(0, 2**31))
@settings(deadline=None, max_examples=40)
def test_the_recurrent_block_is_that_of_the_loop_and_reads_only_what_was_before(sizes, seed):
    torch.manual_seed(seed)
    block, mask = Recurrent(4), first(sizes, CAP + 1)
    tokens = drawn(seed, len(sizes), CAP + 1, 4)
    with torch.inference_mode():
        found = block(tokens, mask)
        read = block.first(tokens)
        moved = torch.sigmoid(block.gate(read))
        for b, size in enumerate(sizes):
            if not size:
                continue
            kept, added = (1 - moved[b, :size]).tolist(), (moved[b] * block.candidate(read[b]))[:size].tolist()
            mixed = tokens[b, :size] + block.mix(torch.tensor(reference.recurrence(kept, added)))
            torch.testing.assert_close(found[b, :size], mixed + block.feed(block.second(mixed)), **CLOSE)
        later = block(torch.where(torch.arange(CAP + 1).view(1, -1, 1) < 3, tokens, -tokens), mask)
    torch.testing.assert_close(found[:, :3], later[:, :3])


def test_a_masked_token_between_leaves_the_state_alone():
    torch.manual_seed(0)
    block, tokens = Recurrent(4), drawn(0, 1, 5, 4)
    mask = torch.tensor([[True, False, True, False, True]])
    with torch.inference_mode():
        torch.testing.assert_close(block(tokens, mask)[mask], block(tokens[:, ::2], torch.ones(1, 3, dtype=torch.bool))[0], **CLOSE)


@given(lengths, st.sampled_from([1, 2]), st.integers(0, 2**31))
@settings(deadline=None, max_examples=60)
def test_users_in_one_row_are_read_as_each_by_itself(sizes, heads, seed):
    torch.manual_seed(seed)
    block, mask, tokens = SelfAttention(4, heads), first(sizes, CAP + 1), drawn(seed, len(sizes), CAP + 1, 4)
    together = packed(block, tokens, mask)
    torch.testing.assert_close(together[mask], block(tokens, mask)[mask], rtol=1e-5, atol=1e-5)
    assert torch.isfinite(together).all()
    other = packed(block, torch.where(mask.unsqueeze(-1), tokens, tokens + 5), mask)
    torch.testing.assert_close(together[mask], other[mask])


def test_a_batch_that_is_full_is_not_packed_and_one_that_is_not_takes_fewer_rows():
    block, seen = SelfAttention(4, 2), []
    block.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[0]))
    for sizes in ([5, 5, 5, 5], [5, 1, 1, 1]):
        packed(block, drawn(0, 4, 5, 4), first(sizes, 5))
    assert seen == [4, 2]


def test_packed_gradients_are_those_of_the_block():
    torch.manual_seed(0)
    block, mask, tokens = SelfAttention(8, 2), first([3, 1, 0, 7, 4, 2], 7), drawn(0, 6, 7, 8)
    gradients = []
    for read in (block, partial(packed, block)):
        block.zero_grad()
        (read(tokens, mask)[mask] * drawn(1, int(mask.sum()), 8)).sum().backward()
        gradients.append([parameter.grad.clone() for parameter in block.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@given(st.lists(st.integers(0, CAP), max_size=40))
@settings(deadline=None)
def test_no_two_tokens_share_a_place_and_no_two_rows_would_fit_in_one(sizes):
    starts, rows = first_fit(sizes, CAP)
    taken = [(row, place) for start, row, size in zip(starts, rows, sizes, strict=True) for place in range(start, start + size)]
    assert len(taken) == len(set(taken))
    assert all(place < CAP for _, place in taken)
    filled = sorted(sum(size for size, of in zip(sizes, rows, strict=True) if of == row) for row in set(rows))
    assert len(filled) < 2 or filled[0] + filled[1] > CAP or filled[0] == 0


@pytest.mark.parametrize("sizes", [[], [0], [0, 0], [1], [CAP, CAP]])
def test_the_edges_of_a_batch(sizes):
    mask = torch.zeros(0, CAP, dtype=torch.bool) if not sizes else first(sizes, CAP)
    at = pack(mask)
    assert len(at.row) == sum(sizes)
    read = packed(SelfAttention(4, 2), torch.ones(len(sizes), CAP, 4), mask)
    assert read.shape == (len(sizes), CAP, 4)
    assert torch.isfinite(read).all()


@pytest.mark.parametrize("build_network", [mechanisms.PACKED, mechanisms.RECURRENT])
def test_the_short_tower_takes_empty_histories_with_each(build_network):
    torch.manual_seed(0)
    tower = build_network(NetworkConfig(dim=4, buckets=16, attribute_buckets=16), 4, 3, Widths()).towers.short
    mask, tokens = first([0, 3, 5], 5), drawn(0, 3, 5, 4)
    pooled, vector = tower(tokens, mask, tokens * mask.unsqueeze(-1), mask, drawn(1, 3, 4))
    assert torch.isfinite(pooled).all()
    torch.testing.assert_close(vector.norm(dim=1), torch.ones(3))
    other = tower(tokens + ~mask.unsqueeze(-1) * 3.0, mask, tokens * mask.unsqueeze(-1), mask, drawn(1, 3, 4))
    torch.testing.assert_close(vector, other[1], **CLOSE)
