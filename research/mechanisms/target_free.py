"""Target-free queries (MIRRN, arXiv 2411.15005): the newest events and all events of a sequence attend to it too."""

import torch
from torch import Tensor, nn

from models.network.layers import attend, masked_mean
from models.network.towers import TargetPooling

NEWEST = 16  # tokens whose mean is the query of recent interest


class TargetFreePooling(nn.Module):
    """Three attentions over one sequence, fused by a linear layer: queries are p_s, the mean of its last 16 tokens, the mean of all."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.target = TargetPooling(dim)
        self.near, self.far = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.fuse = nn.Linear(3 * dim, dim)

    def forward(self, tokens: Tensor, mask: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (R, L, d), mask (R, L), p_s (R, d) -> p_l (R, d), the mean attention (R, L)."""
        long, attention = self.target(tokens, mask, pooled)  # (R, d), (R, L)
        keys = self.target.key(tokens)  # (R, L, d)
        last = mask & (mask.flip(1).cumsum(1).flip(1) <= NEWEST)  # (R, L) of the newest unmasked tokens
        found, attentions = [long], [attention]
        for ask, of in ((self.near, last), (self.far, mask)):
            attentions.append(attend(ask(masked_mean(tokens, of)), keys, mask))  # (R, L)
            found.append((attentions[-1].unsqueeze(-1) * tokens).sum(1))  # (R, d)
        return self.fuse(torch.cat(found, 1)), torch.stack(attentions).mean(0)  # (R, d), (R, L)
