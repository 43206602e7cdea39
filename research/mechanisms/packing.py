"""Several short sequences packed into one row, each attending to itself alone (JD's off-policy recommender): less padding."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from models.network.layers import SelfAttention

FULL = 0.7  # a batch this full is not packed: moving the tokens costs as much as the padding


class PackedAttention(SelfAttention):
    """`SelfAttention` that runs on packed rows."""

    def forward(self, tokens: Tensor, allowed: Tensor) -> Tensor:
        """(B, T, d), mask (B, T) with the unmasked tokens first -> (B, T, d)."""
        return packed(super().forward, tokens, allowed)


class Packed(NamedTuple):
    """Positions of the tokens of B sequences in R rows of length T, the longest of them."""

    row: Tensor  # (n,) of the n unmasked tokens, in the order of their sequences
    place: Tensor  # (n,)
    rows: int  # R
    owner: Tensor  # (R, T) the sequence at each position, -1 where there is none


def packed(block: Callable[[Tensor, Tensor], Tensor], tokens: Tensor, mask: Tensor) -> Tensor:
    """A block of self-attention on packed rows: (B, T, d), (B, T) with the unmasked tokens first -> (B, T, d).

    At unmasked positions the result is that of the block by itself, up to rounding.
    """
    if mask.sum() >= FULL * mask.numel():
        return block(tokens, mask)
    at = pack(mask)
    rows = tokens.new_zeros(at.rows, at.owner.shape[1], tokens.shape[-1])  # (R, T, d)
    rows[at.row, at.place] = tokens[mask]
    allowed = at.owner.unsqueeze(2) == at.owner.unsqueeze(1)  # (R, T, T): empty positions attend to each other alone
    read = block(rows, allowed)  # (R, T, d)
    spread = read.new_zeros(*mask.shape, read.shape[-1])  # (B, T, d)
    spread[mask] = read[at.row, at.place]
    return spread


def pack(mask: Tensor) -> Packed:
    """Rows for the sequences of a mask (B, T) whose tokens come first: first-fit, the longest sequences first."""
    lengths = mask.sum(1).tolist()
    longest = max(1, max(lengths, default=1))
    starts, rows = first_fit(lengths, longest)
    row_of, start_of = torch.tensor(rows, dtype=torch.int64), torch.tensor(starts, dtype=torch.int64)  # (B,), (B,)
    number, place = mask.cpu().nonzero(as_tuple=True)  # (n,), (n,)
    row, place = row_of[number], start_of[number] + place
    count = max(rows, default=-1) + 1
    owner = torch.full((count, longest), -1)
    owner[row, place] = number
    return Packed(row.to(mask.device), place.to(mask.device), count, owner.to(mask.device))


def first_fit(lengths: list[int], width: int) -> tuple[list[int], list[int]]:
    """For each length, none above `width`, its start in its row, and its row: each into the first row that has room, longest first."""
    starts, rows = [0] * len(lengths), [0] * len(lengths)
    free: list[int] = []
    for n in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
        row = next((at for at, room in enumerate(free) if room >= lengths[n]), len(free))
        if row == len(free):
            free.append(width)
        starts[n], rows[n] = width - free[row], row
        free[row] -= lengths[n]
    return starts, rows
