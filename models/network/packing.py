"""Several short sequences in one row, each reading itself alone, as JD's off-policy recommender trains: nothing but padding is saved."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

FULL = 0.7  # a batch whose places are filled to this share is not packed: moving the tokens costs what the padding did


class Packed(NamedTuple):
    """Where the tokens of B sequences stand in R rows of T, T the longest of them."""

    row: Tensor  # (n,) of the n tokens that are there, in the order of their sequences
    place: Tensor  # (n,)
    rows: int  # R
    owner: Tensor  # (R, T) the sequence of each place, -1 where none stands


def packed(block: nn.Module, tokens: Tensor, mask: Tensor) -> Tensor:
    """What a block of self-attention gives for (B, T, d), (B, T) with the tokens that are there first -> (B, T, d), run on packed rows.

    The same numbers as of the block alone, but for rounding, where something is.
    """
    if mask.sum() >= FULL * mask.numel():
        return block(tokens, mask)
    at = pack(mask)
    rows = tokens.new_zeros(at.rows, at.owner.shape[1], tokens.shape[-1])  # (R, T, d)
    rows[at.row, at.place] = tokens[mask]
    allowed = at.owner.unsqueeze(2) == at.owner.unsqueeze(1)  # (R, T, T): the empty places read each other, and nobody else does
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
