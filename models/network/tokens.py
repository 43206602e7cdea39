"""Events, queries and buckets as tokens: what both towers read of a history."""

from torch import Tensor, nn

from models.config import NetworkConfig
from models.encoding.inputs import KIND_ROWS, QUERY

CLICK = 1  # the kind that stands for every behaviour where kinds are not told


class EventTokens(nn.Module):
    """The sum of projected vectors of item and query text and the embeddings of category, kind and time gap, as `NetworkConfig` says."""

    def __init__(self, config: NetworkConfig, category: nn.Embedding, gap: nn.Embedding) -> None:
        super().__init__()
        self.category, self.gap = category, gap
        self.kind = nn.Embedding(KIND_ROWS, config.dim)
        self.into = nn.Linear(config.dim, config.dim)
        self.asked = nn.Linear(config.dim, config.dim, bias=False)
        self._told = config.kind, config.time_gap, config.paired_text

    def forward(
        self, vectors: Tensor, category: Tensor, kind: Tensor, gap: Tensor, text: Tensor, texts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Item vectors (B, T, d), four (B, T), vectors of the texts (U, d) -> tokens, mask, vectors masked, which have an item."""
        by_kind, by_gap, by_text = self._told
        has_item = (kind > 0) & (kind < QUERY)  # (B, T)
        vectors = vectors * has_item.unsqueeze(-1)  # (B, T, d)
        tokens = self.into(vectors) + self.category(category)  # (B, T, d)
        tokens = tokens + self.kind(kind if by_kind else kind.masked_fill(has_item, CLICK))
        if by_gap:
            tokens = tokens + self.gap(gap)
        if not by_text:
            text = text.masked_fill(has_item, 0)  # a search alone is nothing but its text
        return tokens + self.asked(texts)[text], kind > 0, vectors, has_item  # (B, T, d), (B, T), (B, T, d), (B, T)
