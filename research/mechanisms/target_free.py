"""Target-free queries (MIRRN, arXiv 2411.15005): the newest events and all events of a sequence attend to it too."""

import torch
from torch import Tensor, nn

from models.network.layers import attend
from models.network.towers import TargetPooling

NEWEST = 16  # tokens whose mean is the query of recent interest


class TargetFreePooling(nn.Module):
    """Three attentions over one sequence, fused by a linear layer: queries are p_s, the mean of its last 16 tokens, the mean of all."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.target = TargetPooling(dim)
        self.near, self.far = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.fuse = nn.Linear(3 * dim, dim)

    def forward(self, tokens: Tensor, mask: Tensor, weight: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """(R, L, d), (R, L), ln n (R, L), p_s (R, d) -> p_l (R, d), the mean attention (R, L)."""
        long, attention = self.target(tokens, mask, weight, pooled)  # (R, d), (R, L)
        keys, counts = self.target.key(tokens), weight.exp() * mask  # (R, L, d), (R, L)
        last = counts * (mask.flip(1).cumsum(1).flip(1) <= NEWEST)  # (R, L) of the newest unmasked tokens
        found, attentions = [long], [attention]
        for ask, of in ((self.near, last), (self.far, counts)):
            attentions.append(attend(ask(counted_mean(tokens, of)), keys, mask, weight))  # (R, L)
            found.append((attentions[-1].unsqueeze(-1) * tokens).sum(1))  # (R, d)
        return self.fuse(torch.cat(found, 1)), torch.stack(attentions).mean(0)  # (R, d), (R, L)


def counted_mean(tokens: Tensor, counts: Tensor) -> Tensor:
    """The mean of tokens (R, L, d) weighted by the number of events each stands for (R, L): (R, d), zeros where there are none."""
    return (tokens * counts.unsqueeze(-1)).sum(1) / counts.sum(1, keepdim=True).clamp(min=1)
