"""PGIN (ULIM): the next category, over all N. A pointer to what the user touched, a generator, a gate between.

Declared choices: the pointer's query is the profile AND the pooled short history (the paper: the profile alone); the long
behaviour sequence is that of the user row, its distinct categories with counts and times, since rows of single categories
are read only after the categories are chosen.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.encoding.vocabulary import FIRST
from models.network.layers import NEVER, attend, dnn


class NextCategory(NamedTuple):
    """The mixed probabilities and what they are made of."""

    mixed: Tensor  # (B, N), sums to 1
    pointer: Tensor  # (B, N), exactly 0 for a category that the user never touched
    generator: Tensor  # (B, N), exactly 0 for padding and the unknown
    gate: Tensor  # (B, 1), share of the pointer; 0 where there is nothing to point at
    attention: Tensor  # (B, P'), the pointer before it is scattered

    def by(self, source: str) -> tuple[Tensor, Tensor]:
        """`gated`, `pointer` or `generator` alone: probabilities (B, N), and the share (B, 1) of the pointer in them."""
        if source == "pointer":
            return self.pointer, torch.ones_like(self.gate)
        return (self.generator, torch.zeros_like(self.gate)) if source == "generator" else (self.mixed, self.gate)


class Pgin(nn.Module):
    """Pointer-generator over the categories of a vocabulary."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.ask = dnn(2 * dim, dim)
        self.key = nn.Linear(dim, dim)
        self.long_key = nn.Linear(dim, dim)
        self.long_query = nn.Linear(dim, dim)
        self.generate = dnn(3 * dim, dim)
        self.gate = nn.Sequential(nn.Linear(4 * dim, dim), nn.GELU(), nn.Linear(dim, 1))

    def forward(self, profile: Tensor, pooled: Tensor, touched: Tensor, category: Tensor, table: Tensor, bias: Tensor) -> NextCategory:
        """u (B, d), p_s (B, d), touched tokens (B, P', d), their rows (B, P'), embeddings (N, d), ln popularity (N,)."""
        mask = category > 0  # (B, P')
        flat = torch.zeros_like(mask, dtype=touched.dtype)  # (B, P')
        asked = self.ask(torch.cat([profile, pooled], 1))  # (B, d)
        attention = attend(asked, self.key(touched), mask, flat)  # (B, P')
        pointer = scatter(attention, category, len(table))  # (B, N)
        context = (attention.unsqueeze(-1) * touched).sum(1)  # (B, d)
        far = attend(self.long_query(profile), self.long_key(touched), mask, flat)  # (B, P')
        long = (far.unsqueeze(-1) * touched).sum(1)  # (B, d)
        logits = self.generate(torch.cat([profile, pooled, long], 1)) @ table.T + bias  # (B, N)
        never = torch.arange(len(table), device=logits.device) < FIRST  # (N,)
        generator = logits.masked_fill(never, NEVER).softmax(1)  # (B, N)
        said = self.gate(torch.cat([profile, pooled, long, context], 1)).float()  # (B, 1): in half a number 1 - gate is soon exactly 0
        gate = torch.sigmoid(said) * mask.any(1, keepdim=True)  # (B, 1)
        return NextCategory(gate * pointer + (1 - gate) * generator, pointer, generator, gate, attention)


def scatter(attention: Tensor, category: Tensor, rows: int) -> Tensor:
    """Attention over positions (B, P') added up by category (B, P') -> (B, rows)."""
    return attention.new_zeros(len(attention), rows).scatter_add(1, category, attention)  # (B, N)
