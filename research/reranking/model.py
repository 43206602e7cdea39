"""The reranker: a logit per candidate from counts of repeats and, with `RerankConfig.attention`, from SEMINAR's GSU and ESU."""

import torch
from torch import Tensor, nn

from features.rows import KINDS
from models.encoding.inputs import GAP_ROWS
from models.network.search import HistorySearch
from research.reranking.config import RerankConfig
from research.reranking.repeats import FEATURES, RerankBatch, repeats

HIDDEN = (48, 24)


class TargetAttention(nn.Module):
    """GSU and ESU of a candidate's vector over the history, and a logit of [interest; candidate; product]."""

    def __init__(self, config: RerankConfig) -> None:
        super().__init__()
        self.kind = nn.Embedding(len(KINDS) + 1, config.dim)
        self.gap = nn.Embedding(GAP_ROWS, config.dim)
        for table in (self.kind, self.gap):
            nn.init.normal_(table.weight, std=0.05)
        self.search = HistorySearch(config.dim, config.heads, config.searched)
        self.head = nn.Sequential(nn.Linear(3 * config.dim, config.dim), nn.GELU(), nn.Linear(config.dim, 1))

    def forward(self, vectors: Tensor, asked: RerankBatch) -> Tensor:
        """(B, C); `vectors` (n, d) are those that `item` points into."""
        history = vectors[asked.item] + self.kind(asked.kind) + self.gap(asked.gap)  # (B, L, d)
        target = vectors[asked.asked_item]  # (B, C, d)
        interest = self.search(target, history, asked.mask)  # (B, C, d)
        found: Tensor = self.head(torch.cat([interest, target, interest * target], -1)).squeeze(-1)  # (B, C)
        return found


class Reranker(nn.Module):
    """Logits whose softmax over all items is the chance to be wanted next: scores of all paths on one scale."""

    def __init__(self, config: RerankConfig) -> None:
        super().__init__()
        first, second = HIDDEN
        self.repeats = nn.Sequential(nn.Linear(FEATURES, first), nn.GELU(), nn.Linear(first, second), nn.GELU(), nn.Linear(second, 1))
        self.attention = TargetAttention(config) if config.attention else None

    def forward(self, vectors: Tensor, asked: RerankBatch) -> Tensor:
        """Logits (B, C) of candidates; `vectors` (n, d) are the items', which histories and candidates point into."""
        logits = self.repeats(repeats(asked)).squeeze(-1)  # (B, C)
        found: Tensor = logits if self.attention is None else logits + self.attention(vectors, asked)
        return found
