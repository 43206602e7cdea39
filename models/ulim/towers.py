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

from models.inputs import COUNT_ROWS, GAP_ROWS, KIND_ROWS, QUERY

NEVER = -1e4  # the score of what is masked: exactly 0 after a softmax, and a number of float16 too


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


class ShortTower(nn.Module):
    """p_s = masked mean of self-attention; v_s = normalise(DNN([p_s; u]) + weighted mean of the items)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.mix = nn.Linear(dim, dim)
        self.first, self.second = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.feed = dnn(dim, dim)
        self.weigh = nn.Linear(dim, 1)
        self.empty = nn.Parameter(torch.randn(dim) * 0.1)
        self.dnn = dnn(2 * dim, dim)

    def forward(self, tokens: Tensor, mask: Tensor, vectors: Tensor, has_item: Tensor, profile: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, d), (B, S), item vectors (B, S, d), (B, S), u (B, d) -> p_s (B, d), v_s unit (B, d)."""
        tokens, mask = or_empty(tokens, mask, self.empty)  # (B, S, d), (B, S)
        batch, length, dim = tokens.shape
        split = self.qkv(self.first(tokens)).view(batch, length, 3, self.heads, dim // self.heads)  # (B, S, 3, H, d/H)
        query, key, value = split.permute(2, 0, 3, 1, 4)  # (B, H, S, d/H) each
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None, :])  # (B, H, S, d/H)
        tokens = tokens + self.mix(attended.transpose(1, 2).reshape(batch, length, dim))  # (B, S, d)
        tokens = tokens + self.feed(self.second(tokens))  # (B, S, d)
        pooled = masked_mean(tokens, mask)  # (B, d)
        weights = self.weigh(tokens).squeeze(-1).masked_fill(~has_item, NEVER).softmax(1) * has_item  # (B, S)
        repeat = (weights.unsqueeze(-1) * vectors).sum(1)  # (B, d)
        return pooled, F.normalize(self.dnn(torch.cat([pooled, profile], 1)) + repeat, dim=-1)  # (B, d), (B, d)


class LongTower(nn.Module):
    """p_l = attention of the SHORT pooling over the tokens of one category; v_l = normalise(DNN([p_l; u; p_s]) + items)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.empty = nn.Parameter(torch.randn(dim) * 0.1)
        self.dnn = dnn(3 * dim, dim)

    def forward(
        self, tokens: Tensor, mask: Tensor, weight: Tensor, vectors: Tensor, pooled: Tensor, profile: Tensor, category: Tensor
    ) -> Tensor:
        """(R, L, d), (R, L), ln n (R, L), item vectors (R, L, d), p_s, u, category embedding (R, d) -> v_l unit (R, d)."""
        tokens, mask = or_empty(tokens, mask, self.empty + category)  # (R, L, d), (R, L)
        attention = attend(self.query(pooled), self.key(tokens), mask, weight)  # (R, L)
        long = (attention.unsqueeze(-1) * tokens).sum(1)  # (R, d)
        repeat = (attention.unsqueeze(-1) * vectors).sum(1)  # (R, d)
        return F.normalize(self.dnn(torch.cat([long, profile, pooled], 1)) + repeat, dim=-1)  # (R, d)


class DualInterest(nn.Module):
    """The tables that all share, and the towers."""

    def __init__(self, dim: int, heads: int, category_rows: int, item_rows: int, buckets: int, image: int, text: int) -> None:
        super().__init__()
        self.category = nn.Embedding(category_rows, dim)
        self.words = nn.Embedding(buckets, dim, padding_idx=0)
        self.kind = nn.Embedding(KIND_ROWS, dim)
        self.gap = nn.Embedding(GAP_ROWS, dim)
        self.items = ItemTower(dim, item_rows, image, text, self.category, self.words)
        self.into = nn.Linear(dim, dim)
        self.profile = Profile(dim, self.category, self.gap)
        self.short = ShortTower(dim, heads)
        self.long = LongTower(dim)
        for table in (self.category, self.words, self.kind, self.gap, self.profile.count, self.items.item):
            nn.init.normal_(table.weight, std=dim**-0.5)
        with torch.no_grad():
            self.words.weight[0] = 0

    def embed(
        self, vectors: Tensor, category: Tensor, kind: Tensor, gap: Tensor, text: Tensor, words: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Item vectors (B, T, d), four (B, T), words of the texts (U, W) -> tokens, mask, vectors masked, which have an item."""
        has_item = (kind > 0) & (kind < QUERY)  # (B, T)
        vectors = vectors * has_item.unsqueeze(-1)  # (B, T, d)
        texts = mean_words(self.words, words)  # (U, d)
        tokens = self.into(vectors) + self.category(category) + self.kind(kind) + self.gap(gap) + texts[text]  # (B, T, d)
        return tokens, kind > 0, vectors, has_item  # (B, T, d), (B, T), (B, T, d), (B, T)


def attend(query: Tensor, keys: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    """Target attention: (B, d), (B, T, d), (B, T), ln n (B, T) -> (B, T), exactly 0 where masked."""
    scores = torch.einsum("bd,btd->bt", query, keys) / keys.shape[-1] ** 0.5 + weight  # (B, T)
    return scores.masked_fill(~mask, NEVER).softmax(1) * mask  # (B, T)


def masked_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """(B, T, d), (B, T) -> (B, d); zeros where nothing is there."""
    return (tokens * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)  # (B, d)


def mean_words(table: nn.Embedding, words: Tensor) -> Tensor:
    """Embeddings of hashed words (n, W), 0 padding -> their mean (n, d)."""
    if words.shape[1] == 0:
        return table.weight.new_zeros(len(words), table.embedding_dim)
    return F.embedding_bag(words, table.weight, mode="mean", padding_idx=0)  # (n, d)


def or_empty(tokens: Tensor, mask: Tensor, empty: Tensor) -> tuple[Tensor, Tensor]:
    """Put the learned empty token, (d) or (B, d), in the first place of each sequence that has none: (B, T, d), (B, T)."""
    first = torch.zeros_like(mask)  # (B, T)
    first[:, 0] = ~mask.any(1)
    filled = torch.where(first.unsqueeze(-1), empty.expand(len(tokens), -1).unsqueeze(1), tokens)  # (B, T, d)
    return filled, mask | first


def dnn(wide: int, dim: int) -> nn.Sequential:
    """Two layers: (n, wide) -> (n, dim)."""
    return nn.Sequential(nn.Linear(wide, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
