"""ULIM's towers (papers.md 1.1): items, a short interest over all categories, a long interest of one category.

Vectors are L2-normalised and scores are cosines. Declared choices, where the paper leaves them open or we differ:
- A history reads the item TOWER's vectors, not a second table: a new item needs no retraining to be read or retrieved.
- The profile u is behaviour only: categories weighted by their counts and recency, and how much there is of each.
- Both towers add the attention-weighted mean of the raw item vectors to their output, so that a repeat is one step away.
- The long tower's DNN also reads p_s: a category that the user never touched still follows what they look for now.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.config import Config
from models.inputs import COUNT_ROWS, GAP_ROWS
from models.items import Sizes
from models.ulim.decoupled import AttentionTable
from models.ulim.layers import NEVER, dnn, mean_words
from models.ulim.long import LongTower
from models.ulim.short import ShortTower
from models.ulim.tokens import EventTokens


class ItemTower(nn.Module):
    """e_i = normalise(fused + MLP(fused)); fused = gated sum of id, category, words, given image and given text."""

    def __init__(self, dim: int, item_rows: int, image: int, text: int, category: nn.Embedding, words: nn.Embedding) -> None:
        super().__init__()
        self.item = nn.Embedding(item_rows, dim)
        self.category = category
        self.words = words
        self.image = nn.Linear(image, dim, bias=False)
        self.text = nn.Linear(text, dim, bias=False)
        self.gate = nn.Linear(dim, 1, bias=False)
        self.preference = nn.Parameter(torch.zeros(5))
        self.mlp = dnn(dim, dim)

    def forward(self, item: Tensor, category: Tensor, words: Tensor, image: Tensor, text: Tensor) -> Tensor:
        """(n,), (n,), (n, W), (n, Di), (n, Dt) -> unit vectors (n, d)."""
        stacked = self._stacked(item, category, words, image, text)  # (n, M, d)
        here = torch.ones(len(item), 5, dtype=torch.bool, device=item.device)  # (n, M)
        here[:, 2], here[:, 3], here[:, 4] = (words > 0).any(1), (image != 0).any(1), (text != 0).any(1)
        scores = self.gate(torch.tanh(stacked)).squeeze(-1) + self.preference  # (n, M)
        weights = scores.masked_fill(~here, NEVER).softmax(1)  # (n, M)
        fused = (weights.unsqueeze(-1) * stacked).sum(1)  # (n, d)
        return F.normalize(fused + self.mlp(fused), dim=-1)  # (n, d)

    def parts(self, item: Tensor, category: Tensor, words: Tensor, image: Tensor, text: Tensor) -> Tensor:
        """The vectors (n, M, d) that forward fuses, in the order of models.codes.modalities, each of unit length or zero where missing.

        Words, image and text can be missing; an id or category that was never seen has the part of the unknown one.
        """
        return F.normalize(self._stacked(item, category, words, image, text), dim=-1)  # (n, M, d)

    def _stacked(self, item: Tensor, category: Tensor, words: Tensor, image: Tensor, text: Tensor) -> Tensor:
        parts = [self.item(item), self.category(category), mean_words(self.words, words), self.image(image), self.text(text)]
        return torch.stack(parts, 1)  # (n, M, d)


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

    def __init__(self, config: Config, category_rows: int, item_rows: int, sizes: Sizes) -> None:
        super().__init__()
        dim = config.dim
        self.category = nn.Embedding(category_rows, dim)
        self.words = nn.Embedding(sizes.buckets, dim, padding_idx=0)
        self.gap = nn.Embedding(GAP_ROWS, dim)
        self.items = ItemTower(dim, item_rows, sizes.image, sizes.text, self.category, self.words)
        self.tokens = EventTokens(config, self.category, self.words, self.gap)
        self.profile = Profile(dim, self.category, self.gap)
        self.short = ShortTower(config)
        self.long = LongTower(config)
        for table in (self.category, self.words, self.tokens.kind, self.gap, self.profile.count, self.items.item):
            nn.init.normal_(table.weight, std=dim**-0.5)
        with torch.no_grad():
            self.words.weight[0] = 0
        width = config.attention_dim
        self.attention = AttentionTable(dim, width, category_rows, item_rows) if width else None
