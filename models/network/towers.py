"""ULIM's towers (arXiv 2507.10097, dual-interest learning): a short interest over all categories, a long interest of one category.

Vectors are L2-normalised and scores are cosines. Declared choices, where the paper leaves them open or we differ:
- A history reads the vectors that are searched (models.network.items), not a second table: a new item needs no retraining to
  be read or retrieved, and the text of a query is a vector of the same space.
- The profile u is behaviour only: categories weighted by their counts and recency, and how much there is of each.
- Both towers add the attention-weighted mean of the raw item vectors to their output, so that a repeat is one step away.
- The long tower's DNN also reads p_s: a category that the user never touched still follows what they look for now.
"""

import torch
from torch import Tensor, nn

from models.config import NetworkConfig
from models.encoding.arrays import GAP_ROWS
from models.encoding.inputs import COUNT_ROWS
from models.network.decoupled import AttentionTable
from models.network.layers import NEVER, dnn
from models.network.long import LongTower
from models.network.short import ShortTower
from models.network.tokens import EventTokens


class Profile(nn.Module):
    """u: what kinds of thing a user does, from the categories of the user row with their counts and times."""

    def __init__(self, dim: int, category: nn.Embedding, gap: nn.Embedding) -> None:
        super().__init__()
        self.category = category
        self.gap = gap
        self.count = nn.Embedding(COUNT_ROWS, dim)
        self.size = nn.Linear(2, dim)
        self.weigh = nn.Linear(dim, 1)
        self.out = dnn(dim, dim)

    def forward(self, category: Tensor, gap: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        """Three (B, P') -> the profile (B, d), and the touched categories as tokens (B, P', d)."""
        mask = category > 0  # (B, P')
        tokens = self.category(category) + self.gap(gap) + self.count(count)  # (B, P', d)
        weights = self.weigh(torch.tanh(tokens)).squeeze(-1).masked_fill(~mask, NEVER).softmax(1) * mask  # (B, P')
        mean = (weights.unsqueeze(-1) * tokens).sum(1)  # (B, d)
        sizes = torch.stack([mask.sum(1).float(), (count * mask).sum(1).float()], 1).log1p()  # (B, 2)
        return self.out(mean + self.size(sizes)), tokens  # (B, d), (B, P', d)


class DualInterest(nn.Module):
    """The tables that all share, and the towers."""

    def __init__(self, config: NetworkConfig, category_rows: int, item_rows: int) -> None:
        super().__init__()
        dim = config.dim
        self.category = nn.Embedding(category_rows, dim)
        self.gap = nn.Embedding(GAP_ROWS, dim)
        self.tokens = EventTokens(config, self.category, self.gap)
        self.profile = Profile(dim, self.category, self.gap)
        self.short = ShortTower(config)
        self.long = LongTower(config)
        for weight in (self.category.weight, self.tokens.kind.weight, self.gap.weight, self.profile.count.weight):
            nn.init.normal_(weight, std=dim**-0.5)
        width = config.attention_dim
        self.attention = AttentionTable(dim, width, category_rows, item_rows) if width else None
