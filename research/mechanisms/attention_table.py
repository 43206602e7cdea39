"""A separate small attention table (DARE, arXiv 2410.02604): attention is learned apart from the representations.

Keys are the sum of an embedding of the item's id, one of its category, and a projection of the token whose gradient stops here: attention
learns from an item's content without moving its vector. An item never seen in training has the key of the unknown id, its category
and its content. DARE learns a second table of everything; here content has one table, read by both.
"""

import numpy as np
import torch
from torch import Tensor, nn

from models.config import NetworkConfig
from models.encoding.contents import Widths
from models.encoding.inputs import Tokens, TouchedTokens, tensors
from models.network.layers import attend, or_empty
from models.network.ulim import EncodedUsers, Network


class AttentionTable(nn.Module):
    """Embeddings of ids and categories of width a, and the projection of the content."""

    def __init__(self, dim: int, width: int, category_rows: int, item_rows: int) -> None:
        super().__init__()
        self.item = nn.Embedding(item_rows, width)
        self.category = nn.Embedding(category_rows, width)
        self.content = nn.Linear(dim, width, bias=False)
        for table in (self.item, self.category):
            nn.init.normal_(table.weight, std=width**-0.5)

    def append(self, vectors: Tensor, rows: Tensor) -> Tensor:
        """Item vectors (n, d), rows of their ids in the vocabulary (n,) -> (n, d + a): with this table's embeddings of the ids."""
        return torch.cat([vectors, self.item(rows)], 1)

    def forward(self, ids: Tensor, has_item: Tensor, category: Tensor, tokens: Tensor) -> Tensor:
        """Embeddings of ids (R, L, a), has-item mask (R, L), rows of categories (R, L), tokens (R, L, d) -> keys (R, L, a)."""
        found: Tensor = ids * has_item.unsqueeze(-1) + self.category(category) + self.content(tokens.detach())
        return found


class KeyedPooling(nn.Module):
    """Target attention that compares keys of width a and averages tokens of width d."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(dim, width)
        self.key = nn.Linear(width, width)

    def forward(self, tokens: Tensor, mask: Tensor, pooled: Tensor, keyed: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (R, L, d), mask (R, L), p_s (R, d), keys (R, L, a) -> p_l (R, d), attention (R, L)."""
        attention = attend(self.query(pooled), self.key(keyed), mask)  # (R, L)
        return (attention.unsqueeze(-1) * tokens).sum(1), attention  # (R, d), (R, L)


class DecoupledNetwork(Network):
    """The network whose long tower attends by an `AttentionTable` of width a. Histories read d + a numbers per item."""

    def __init__(self, config: NetworkConfig, category_rows: int, item_rows: int, widths: Widths, width: int) -> None:
        super().__init__(config, category_rows, item_rows, widths)
        self.towers.long.pool = KeyedPooling(config.dim, width)
        self.attention = AttentionTable(config.dim, width, category_rows, item_rows)

    def table(self, vectors: Tensor, rows: np.ndarray) -> Tensor:
        """The vectors (n, d) with the attention table's embeddings of the ids, `rows` (n,): (n, d + a)."""
        return self.attention.append(vectors, torch.from_numpy(rows).to(self.device))

    def users(self, vectors: Tensor, short: Tokens, touched: TouchedTokens, texts: Tensor) -> EncodedUsers:
        """The state of B users, which reads the d numbers alone."""
        return super().users(vectors[:, : self.dim], short, touched, texts)

    def long(self, vectors: Tensor, long: Tokens, texts: Tensor, pooled: Tensor, profile: Tensor, category: Tensor) -> Tensor:
        """v_l (R, d) as `Network.long` returns it, with attention over the keys."""
        item, rows, kind, gap, text = (tensor.long() for tensor in tensors(long, self.device))  # (R, L) each
        read, tower = vectors[item], self.towers.long  # (R, L, d + a)
        tokens, mask, mine, has_item = self.towers.tokens(read[..., : self.dim], rows, kind, gap, text, texts)  # (R, L, d), ...
        keyed = self.attention(read[..., self.dim :], has_item, rows, tokens)  # (R, L, a)
        tokens, mask = or_empty(tokens, mask, tower.empty + self.towers.category(category))  # (R, L, d), (R, L)
        found, attention = tower.pool(tokens, mask, pooled.detach(), keyed)  # (R, d), (R, L)
        return tower.interest(found, attention, mine, pooled, profile)
