"""The long tower: an interest of one category, from the lifelong sequence of that category (papers.md 1.1)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.config import Config
from models.ulim.layers import attend, dnn, or_empty
from models.ulim.self_attention import SelfPooling


class TargetPooling(nn.Module):
    """The attention of the SHORT pooling over the tokens of one category."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, mask: Tensor, weight: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """(R, L, d), (R, L), ln n (R, L), p_s (R, d) -> p_l (R, d), attention (R, L)."""
        attention = attend(self.query(pooled), self.key(tokens), mask, weight)  # (R, L)
        return (attention.unsqueeze(-1) * tokens).sum(1), attention  # (R, d), (R, L)


class LongTower(nn.Module):
    """v_l = normalise(DNN([p_l; u; p_s]) + items), p_l pooled from the tokens of one category."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim = config.dim
        self.pool = TargetPooling(dim) if config.long_attention == "target" else SelfPooling(dim, config.heads)
        self.empty = nn.Parameter(torch.randn(dim) * 0.1)
        self.dnn = dnn(3 * dim, dim)

    def forward(
        self, tokens: Tensor, mask: Tensor, weight: Tensor, vectors: Tensor, pooled: Tensor, profile: Tensor, category: Tensor
    ) -> Tensor:
        """(R, L, d), (R, L), ln n (R, L), item vectors (R, L, d), p_s, u, category embedding (R, d) -> v_l unit (R, d)."""
        tokens, mask = or_empty(tokens, mask, self.empty + category)  # (R, L, d), (R, L)
        long, attention = self.pool(tokens, mask, weight, pooled)  # (R, d), (R, L)
        repeat = (attention.unsqueeze(-1) * vectors).sum(1)  # (R, d)
        return F.normalize(self.dnn(torch.cat([long, profile, pooled], 1)) + repeat, dim=-1)  # (R, d)
