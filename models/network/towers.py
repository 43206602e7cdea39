"""ULIM's towers (arXiv 2507.10097): a short interest over all categories, a long interest in one category, and the items they search.

Vectors are L2-normalised and scores are cosines. Choices where ULIM leaves them open or we differ:
- A history reads the vectors that are searched (`ItemSpace`), not a second table: a new item needs no training to be read or
  retrieved, and the text of a query is a vector of the same space.
- The profile u is behaviour only: categories weighted by their counts and recency, and the totals of both.
- Both towers add the attention-weighted mean of the raw item vectors to their output, so that repeats are easy to retrieve.
- The long tower's DNN also reads p_s: a category without history still follows the user's current interest.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.config import NetworkConfig
from models.encoding.inputs import COUNT_ROWS, GAP_ROWS, KIND_ROWS, QUERY
from models.network.layers import NEVER, SelfAttention, attend, dnn, masked_mean, or_empty
from models.network.psu import ItemVectors, Queries
from models.network.search import Spaces


class ItemSpace(nn.Module):
    """normalise(x + MLP(x)); x is the sum over modalities of g_m G_m e_m of an item, or G_q q of a query.

    The projections G_m are separate from those of GSU and ESU, which learn to weigh steps; these learn to place items near queries.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.spaces = Spaces(dim)
        self.mlp = dnn(dim, dim)

    def items(self, items: ItemVectors) -> Tensor:
        """Unit vectors (n, d) of n items; all items without any modality share one vector."""
        return self._placed(self.spaces.items(items))

    def queries(self, queries: Queries) -> Tensor:
        """Unit vectors (n, d) of n queries, zeros for an empty one."""
        return self._placed(self.spaces.query(queries.query)) * queries.here.unsqueeze(-1)  # (n, d)

    def _placed(self, mixed: Tensor) -> Tensor:
        return F.normalize(mixed + self.mlp(mixed), dim=-1)  # (n, d)


class EventTokens(nn.Module):
    """Events, queries and buckets as tokens.

    A token is the sum of the projected item and query vectors and the embeddings of category, behaviour and time gap.
    """

    def __init__(self, config: NetworkConfig, category: nn.Embedding, gap: nn.Embedding) -> None:
        super().__init__()
        self.category, self.gap = category, gap
        self.kind = nn.Embedding(KIND_ROWS, config.dim)
        self.into = nn.Linear(config.dim, config.dim)
        self.asked = nn.Linear(config.dim, config.dim, bias=False)

    def forward(
        self, vectors: Tensor, category: Tensor, kind: Tensor, gap: Tensor, text: Tensor, texts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Item vectors (B, T, d), four (B, T), vectors of the texts (U, d) -> tokens, mask, masked item vectors, has-item mask."""
        has_item = (kind > 0) & (kind < QUERY)  # (B, T)
        vectors = vectors * has_item.unsqueeze(-1)  # (B, T, d)
        tokens = self.into(vectors) + self.category(category)  # (B, T, d)
        tokens = tokens + self.kind(kind) + self.gap(gap) + self.asked(texts)[text]  # (B, T, d)
        return tokens, kind > 0, vectors, has_item


class Profile(nn.Module):
    """u: the kinds of things a user does, from the categories of the user row with their counts and times."""

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
    """p_s = masked mean of the encoded tokens; v_s = normalise(DNN([p_s; u]) + weighted mean of the items)."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        dim = config.dim
        self.block: nn.Module = SelfAttention(dim, config.heads)
        self.weigh = nn.Linear(dim, 1)
        self.empty = nn.Parameter(torch.randn(dim) * 0.1)
        self.dnn = dnn(2 * dim, dim)

    def forward(self, tokens: Tensor, mask: Tensor, vectors: Tensor, has_item: Tensor, profile: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, d), (B, S), item vectors (B, S, d), (B, S), u (B, d) -> p_s (B, d), v_s unit (B, d)."""
        tokens, mask = or_empty(tokens, mask, self.empty)  # (B, S, d), (B, S)
        tokens = self.block(tokens, mask)  # (B, S, d)
        pooled = masked_mean(tokens, mask)  # (B, d)
        weights = self.weigh(tokens).squeeze(-1).masked_fill(~has_item, NEVER).softmax(1) * has_item  # (B, S)
        repeat = (weights.unsqueeze(-1) * vectors).sum(1)  # (B, d)
        return pooled, F.normalize(self.dnn(torch.cat([pooled, profile], 1)) + repeat, dim=-1)  # (B, d), (B, d)


class TargetPooling(nn.Module):
    """Target attention of the short pooling p_s over the tokens of one category."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, mask: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (R, L, d), mask (R, L), p_s (R, d) -> p_l (R, d), attention (R, L)."""
        attention = attend(self.query(pooled), self.key(tokens), mask)  # (R, L)
        return (attention.unsqueeze(-1) * tokens).sum(1), attention  # (R, d), (R, L)


class LongTower(nn.Module):
    """v_l = normalise(DNN([p_l; u; p_s]) + weighted mean of the items), p_l pooled from the tokens of one category."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        dim = config.dim
        self.pool: nn.Module = TargetPooling(dim)
        self.empty = nn.Parameter(torch.randn(dim) * 0.1)
        self.dnn = dnn(3 * dim, dim)

    def forward(self, tokens: Tensor, mask: Tensor, vectors: Tensor, pooled: Tensor, profile: Tensor, category: Tensor) -> Tensor:
        """Tokens (R, L, d), mask (R, L), item vectors (R, L, d), p_s, u and category embedding (R, d) each -> unit v_l (R, d)."""
        tokens, mask = or_empty(tokens, mask, self.empty + category)  # (R, L, d), (R, L)
        long, attention = self.pool(tokens, mask, pooled)  # (R, d), (R, L)
        return self.interest(long, attention, vectors, pooled, profile)

    def interest(self, long: Tensor, attention: Tensor, vectors: Tensor, pooled: Tensor, profile: Tensor) -> Tensor:
        """p_l (R, d), attention (R, L), item vectors (R, L, d), p_s, u (R, d) -> v_l unit (R, d)."""
        repeat = (attention.unsqueeze(-1) * vectors).sum(1)  # (R, d)
        return F.normalize(self.dnn(torch.cat([long, profile, pooled], 1)) + repeat, dim=-1)  # (R, d)


class DualInterest(nn.Module):
    """The towers and the tables they share."""

    def __init__(self, config: NetworkConfig, category_rows: int) -> None:
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
