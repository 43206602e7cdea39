"""Target-free queries (MIRRN, arXiv 2411.15005): the newest events and all events of a sequence ask it too, beside the short history."""

import torch
from torch import Tensor, nn

from models.network.layers import attend
from models.network.target import TargetPooling

NEWEST = 16  # tokens whose mean is the query of the near past


class TargetFreePooling(nn.Module):
    """Three searches of one sequence, fused by a linear layer: by p_s, by the mean of its last 16 tokens, by the mean of all."""

    def __init__(self, dim: int, keyed: int) -> None:
        super().__init__()
        self.target = TargetPooling(dim, keyed)
        self.near, self.far = nn.Linear(keyed, keyed), nn.Linear(keyed, keyed)
        self.fuse = nn.Linear(3 * dim, dim)

    def forward(self, tokens: Tensor, mask: Tensor, weight: Tensor, pooled: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
        """(R, L, d), (R, L), ln n (R, L), p_s (R, d), what keys are made of (R, L, k) -> p_l (R, d), the mean attention (R, L)."""
        long, attention = self.target(tokens, mask, weight, pooled, read)  # (R, d), (R, L)
        keys, counts = self.target.key(read), weight.exp() * mask  # (R, L, k), (R, L)
        last = counts * (mask.flip(1).cumsum(1).flip(1) <= NEWEST)  # (R, L) of the newest that are there
        found, attentions = [long], [attention]
        for ask, of in ((self.near, last), (self.far, counts)):
            attentions.append(attend(ask(counted_mean(read, of)), keys, mask, weight))  # (R, L)
            found.append((attentions[-1].unsqueeze(-1) * tokens).sum(1))  # (R, d)
        return self.fuse(torch.cat(found, 1)), torch.stack(attentions).mean(0)  # (R, d), (R, L)


def counted_mean(tokens: Tensor, counts: Tensor) -> Tensor:
    """The mean of tokens (R, L, k) that stand for so many events each (R, L), 0 for none: (R, k)."""
    return (tokens * counts.unsqueeze(-1)).sum(1) / counts.sum(1, keepdim=True).clamp(min=1)
