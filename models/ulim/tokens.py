"""Events, queries and buckets as tokens: what both towers read of a history."""

from torch import Tensor, nn

from models.config import Config
from models.inputs import KIND_ROWS, QUERY
from models.ulim.layers import mean_words

CLICK = 1  # the kind that stands for every behaviour where kinds are not told


class EventTokens(nn.Module):
    """The sum of a projected item vector and the embeddings of category, kind, time gap and query text, as `Config` asks."""

    def __init__(self, config: Config, category: nn.Embedding, words: nn.Embedding, gap: nn.Embedding) -> None:
        super().__init__()
        self.category, self.words, self.gap = category, words, gap
        self.kind = nn.Embedding(KIND_ROWS, config.dim)
        self.into = nn.Linear(config.dim, config.dim)
        self._told = config.kind, config.time_gap, config.paired_text

    def forward(
        self, vectors: Tensor, category: Tensor, kind: Tensor, gap: Tensor, text: Tensor, words: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Item vectors (B, T, d), four (B, T), words of the texts (U, W) -> tokens, mask, vectors masked, which have an item."""
        by_kind, by_gap, by_text = self._told
        has_item = (kind > 0) & (kind < QUERY)  # (B, T)
        vectors = vectors * has_item.unsqueeze(-1)  # (B, T, d)
        tokens = self.into(vectors) + self.category(category)  # (B, T, d)
        tokens = tokens + self.kind(kind if by_kind else kind.masked_fill(has_item, CLICK))
        if by_gap:
            tokens = tokens + self.gap(gap)
        texts = mean_words(self.words, words)  # (U, d)
        if not by_text:
            text = text.masked_fill(has_item, 0)  # a search alone is nothing but its text
        return tokens + texts[text], kind > 0, vectors, has_item  # (B, T, d), (B, T), (B, T, d), (B, T)
