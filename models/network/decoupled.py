"""A small attention table beside the representations (DARE, arXiv 2410.02604): what is looked at is learnt apart from what is looked for.

Keys are the sum of an embedding of the item's id, one of its category, and a projection of the token, whose gradient ends here: attention
learns from the words of an item without moving its vector. So an item that training never saw has a key: that of the unknown
id, its category and its words. Declared choice: DARE learns a whole second table; of content there is one table here, read by both.
"""

import torch
from torch import Tensor, nn


class AttentionTable(nn.Module):
    """The a numbers of each id and category, and the projection of the rest."""

    def __init__(self, dim: int, width: int, category_rows: int, item_rows: int) -> None:
        super().__init__()
        self.item = nn.Embedding(item_rows, width)
        self.category = nn.Embedding(category_rows, width)
        self.content = nn.Linear(dim, width, bias=False)
        for table in (self.item, self.category):
            nn.init.normal_(table.weight, std=width**-0.5)

    def beside(self, vectors: Tensor, rows: Tensor) -> Tensor:
        """Item vectors (n, d), rows of their ids in the vocabulary (n,) -> (n, d + a): with what this table knows of the ids."""
        return torch.cat([vectors, self.item(rows)], 1)

    def forward(self, ids: Tensor, has_item: Tensor, category: Tensor, tokens: Tensor) -> Tensor:
        """Embeddings of ids (R, L, a), which are there (R, L), rows of categories (R, L), tokens (R, L, d) -> keys (R, L, a)."""
        return ids * has_item.unsqueeze(-1) + self.category(category) + self.content(tokens.detach())
