"""A memory of Z slots (DMAN, AAAI 2021): a lifelong sequence is written into it segment by segment, the short pooling reads it.

The slots have the same size after ten events and after ten thousand.
"""

import torch
from torch import Tensor, nn

from models.network.layers import NEVER, attend
from models.network.towers import TargetPooling

SEGMENT = 16  # tokens written at once


class Memory(nn.Module):
    """Learned initial slots; each attends to every segment, and a gate weighs how much of the result replaces it."""

    def __init__(self, dim: int, slots: int) -> None:
        super().__init__()
        self.slots = nn.Parameter(torch.randn(slots, dim) * dim**-0.5)
        self.ask, self.key, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.gate = nn.Linear(2 * dim, dim)
        self.query, self.slot_key, self.out = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, mask: Tensor, pooled: Tensor) -> Tensor:
        """Tokens (R, L, d) oldest first, mask (R, L), p_s (R, d) -> what p_s reads from the memory (R, d)."""
        slots = self.write(tokens, mask)  # (R, Z, d)
        there = torch.ones_like(slots[..., 0], dtype=torch.bool)  # (R, Z)
        attention = attend(self.query(pooled), self.slot_key(slots), there)  # (R, Z)
        found: Tensor = self.out((attention.unsqueeze(-1) * slots).sum(1))  # (R, d)
        return found

    def write(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """The slots (R, Z, d) after all segments; a masked segment leaves them unchanged."""
        slots = self.slots.expand(len(tokens), -1, -1)  # (R, Z, d)
        for segment, here in zip(*(part.split(SEGMENT, 1) for part in (tokens, mask)), strict=True):
            slots = self._written(slots, segment, here)
        return slots

    def _written(self, slots: Tensor, segment: Tensor, here: Tensor) -> Tensor:
        scores = self.ask(slots) @ self.key(segment).transpose(1, 2) / slots.shape[-1] ** 0.5  # (R, Z, T)
        shares = scores.masked_fill(~here.unsqueeze(1), NEVER).softmax(2)  # (R, Z, T)
        found = shares @ self.value(segment)  # (R, Z, d)
        gate = torch.sigmoid(self.gate(torch.cat([slots, found], 2))) * here.any(1)[:, None, None]  # (R, Z, d)
        written: Tensor = slots + gate * (found - slots)  # (R, Z, d)
        return written


class MemoryPooling(nn.Module):
    """Target attention, with what the short pooling reads from a memory added to p_l."""

    def __init__(self, dim: int, slots: int) -> None:
        super().__init__()
        self.target = TargetPooling(dim)
        self.memory = Memory(dim, slots)

    def forward(self, tokens: Tensor, mask: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (R, L, d), mask (R, L), p_s (R, d) -> p_l (R, d), attention (R, L)."""
        long, attention = self.target(tokens, mask, pooled)  # (R, d), (R, L)
        return long + self.memory(tokens, mask, pooled), attention
