"""The short tower: an interest over all categories, from the newest events (ULIM, dual-interest learning)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.config import NetworkConfig
from models.network.layers import NEVER, dnn, masked_mean, or_empty
from models.network.packing import packed
from models.network.recurrent import Recurrent
from models.network.self_attention import SelfAttention


class ShortTower(nn.Module):
    """p_s = masked mean of what the encoder makes of the tokens; v_s = normalise(DNN([p_s; u]) + weighted mean of the items)."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        dim = config.dim
        recurrent = config.short_encoder == "recurrent"
        self.block = Recurrent(dim) if recurrent else SelfAttention(dim, config.heads)
        self._packed = config.packed and not recurrent
        self.weigh = nn.Linear(dim, 1)
        self.empty = nn.Parameter(torch.randn(dim) * 0.1)
        self.dnn = dnn(2 * dim, dim)

    def forward(self, tokens: Tensor, mask: Tensor, vectors: Tensor, has_item: Tensor, profile: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, d), (B, S), item vectors (B, S, d), (B, S), u (B, d) -> p_s (B, d), v_s unit (B, d)."""
        tokens, mask = or_empty(tokens, mask, self.empty)  # (B, S, d), (B, S)
        tokens = packed(self.block, tokens, mask) if self._packed else self.block(tokens, mask)  # (B, S, d)
        pooled = masked_mean(tokens, mask)  # (B, d)
        weights = self.weigh(tokens).squeeze(-1).masked_fill(~has_item, NEVER).softmax(1) * has_item  # (B, S)
        repeat = (weights.unsqueeze(-1) * vectors).sum(1)  # (B, d)
        return pooled, F.normalize(self.dnn(torch.cat([pooled, profile], 1)) + repeat, dim=-1)  # (B, d), (B, d)
