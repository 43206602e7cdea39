"""The long tower: an interest of one category, from the lifelong sequence of that category (ULIM, dual-interest learning)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.config import NetworkConfig
from models.network.layers import dnn, or_empty
from models.network.memory import Memory
from models.network.self_attention import SelfPooling
from models.network.target import TargetPooling
from models.network.target_free import TargetFreePooling


def pooling(config: NetworkConfig) -> TargetPooling | TargetFreePooling | SelfPooling:
    """What pools the tokens of one category, as `NetworkConfig` says."""
    if config.long_attention == "self":
        return SelfPooling(config.dim, config.heads)
    keyed = config.attention_dim or config.dim
    return TargetFreePooling(config.dim, keyed) if config.target_free else TargetPooling(config.dim, keyed)


class LongTower(nn.Module):
    """v_l = normalise(DNN([p_l; u; p_s]) + items), p_l pooled from the tokens of one category."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        dim = config.dim
        self.pool = pooling(config)
        self.empty = nn.Parameter(torch.randn(dim) * 0.1)
        self.dnn = dnn(3 * dim, dim)
        self.memory = Memory(dim, config.memory) if config.memory else None

    def forward(
        self,
        tokens: Tensor,
        mask: Tensor,
        weight: Tensor,
        vectors: Tensor,
        pooled: Tensor,
        profile: Tensor,
        category: Tensor,
        keyed: Tensor | None = None,
    ) -> Tensor:
        """(R, L, d), (R, L), ln n (R, L), item vectors (R, L, d), p_s, u, category embedding (R, d) -> v_l unit (R, d).

        `keyed` (R, L, a), of a table of attention alone, is what attention reads of the tokens; None: the tokens.
        """
        tokens, mask = or_empty(tokens, mask, self.empty + category)  # (R, L, d), (R, L)
        read, asking = (tokens, pooled) if keyed is None else (keyed, pooled.detach())
        long, attention = self.pool(tokens, mask, weight, asking, read)  # (R, d), (R, L)
        if self.memory is not None:
            long = long + self.memory(tokens, mask, weight, pooled)  # (R, d)
        repeat = (attention.unsqueeze(-1) * vectors).sum(1)  # (R, d)
        return F.normalize(self.dnn(torch.cat([long, profile, pooled], 1)) + repeat, dim=-1)  # (R, d)
