"""The whole of SEMINAR: the search unit, its way into search space, and the logit of a next (query, item) pair."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.config import PretrainingConfig
from models.network.psu import Items, Psu, Queries, pair
from models.network.search import Search, Spaces


class Steps(NamedTuple):
    """Lifelong histories as numbers of rows in the tables of items and queries at hand; -1 where a step lacks one."""

    item: Tensor  # (B, L) int64
    query: Tensor  # (B, L) int64


class Asked(NamedTuple):
    """The pairs that may come next: one query for each user, C items for each; -1 is no query."""

    item: Tensor  # (B, C) int64
    query: Tensor  # (B,) int64


class Seminar(nn.Module):
    """Psu, G_m, GSU and ESU, and what makes a logit of them."""

    def __init__(self, psu: Psu, config: PretrainingConfig) -> None:
        super().__init__()
        self.config = config
        self.psu = psu
        dim = psu.config.dim
        self.spaces = Spaces(dim)
        self.search = Search(dim, psu.config.heads, config.searched)
        self.end = nn.Parameter(torch.randn(dim) * dim**-0.5)  # EOS: the step after the last
        self.head = nn.Sequential(nn.Linear(3 * dim, dim), nn.GELU(), nn.Linear(dim, 1))
        self.relevance = nn.Parameter(torch.tensor(1.0))

    def histories(self, items: Items, queries: Queries, steps: Steps) -> tuple[Tensor, Tensor]:
        """s_l of every step and the EOS step after it: (B, L + 1, d), and which of them are there (B, L + 1)."""
        item, has_item = _rows(self.spaces.items(items), items.here, steps.item)  # (B, L, d), (B, L)
        query, has_query = _rows(self.spaces.query(queries.query), queries.here, steps.query)  # (B, L, d), (B, L)
        fused = pair(query, has_query, item, has_item, self.config.query_share)  # (B, L, d)
        end = self.end.expand(len(fused), 1, -1)  # (B, 1, d)
        here = (has_item | has_query, torch.ones(len(fused), 1, dtype=torch.bool, device=fused.device))
        return torch.cat([fused, end], 1), torch.cat(here, 1)  # (B, L + 1, d), (B, L + 1)

    def logits(self, items: Items, queries: Queries, steps: Steps, asked: Asked) -> Tensor:
        """How likely each of C pairs is next: (B, C)."""
        history, mask = self.histories(items, queries, steps)  # (B, L + 1, d), (B, L + 1)
        item, has_item = _rows(self.spaces.items(items), items.here, asked.item)  # (B, C, d), (B, C)
        query, has_query = _rows(self.spaces.query(queries.query), queries.here, asked.query)  # (B, d), (B,)
        query, has_query = query.unsqueeze(1).expand_as(item), has_query.unsqueeze(1).expand_as(has_item)  # (B, C, d), (B, C)
        target = pair(query, has_query, item, has_item, self.config.query_share)  # (B, C, d)
        interest = self.search(target, history, mask)  # (B, C, d)
        weighed = self.head(torch.cat([interest, target, interest * target], -1)).squeeze(-1)  # (B, C)
        return weighed + self.relevance * self.match(items, queries, asked)  # (B, C)

    def match(self, items: Items, queries: Queries, asked: Asked) -> Tensor:
        """cos(q, e) / temperature in PSU space (B, C); 0 where the query or the item is missing."""
        item, _ = _rows(items.item, items.here, asked.item)  # (B, C, d)
        query, _ = _rows(queries.query, queries.here, asked.query)  # (B, d)
        cosine = torch.einsum("bcd,bd->bc", F.normalize(item, dim=-1), F.normalize(query, dim=-1))  # (B, C)
        return cosine / self.config.temperature  # (B, C)


def _rows(table: Tensor, here: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of a table (n, d) at positions (...), zeros for -1; and whether there is something (...)."""
    if not len(table):
        return table.new_zeros(*at.shape, table.shape[1]), torch.zeros_like(at, dtype=torch.bool)
    known = at.clamp(min=0)  # (...)
    there = here[known] & (at >= 0)  # (...)
    flat = table.index_select(0, known.flatten()).view(*at.shape, table.shape[1])  # (..., d)
    return flat * there.unsqueeze(-1), there  # (..., d), (...)
