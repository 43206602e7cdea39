"""SEMINAR: GSU and ESU search a lifelong history with a target and attend to what they find; `Seminar` scores next pairs.

GSU and ESU score with the same W_Q and W_K. `esu` needs only the positions of the found steps, so product-quantised
codes can take the place of the GSU. A history without any step has the learned vector `empty` as its interest.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.codes.modalities import MODALITIES
from models.config import PretrainingConfig
from models.network.layers import NEVER
from models.network.psu import ItemVectors, Psu, Queries, pair


class NearestSteps(NamedTuple):
    """For each target the positions in the history of the best K steps, best first."""

    at: Tensor  # (B, C, K) int64
    here: Tensor  # (B, C, K) bool, False where there are fewer than K


class Spaces(nn.Module):
    """G_m, one (d, d) a modality and one for queries: from PSU space to that of GSU and ESU. The identity until trained."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.modalities = nn.Parameter(torch.eye(dim).repeat(len(MODALITIES), 1, 1))  # (M, d, d)
        self.queries = nn.Parameter(torch.eye(dim))  # (d, d)

    def items(self, items: ItemVectors) -> Tensor:
        """Sum over m of g_m G_m e_m: (n, d)."""
        weighed = items.gates.unsqueeze(-1) * items.modalities  # (n, M, d)
        return weighed.flatten(1) @ self.modalities.flatten(0, 1)  # (n, d)

    def query(self, queries: Tensor) -> Tensor:
        """G_q q: (..., d)."""
        return queries @ self.queries


class HistorySearch(nn.Module):
    """C targets of each of B users against their histories of L steps. K is `searched`, or L where that is less."""

    def __init__(self, dim: int, heads: int, searched: int) -> None:
        super().__init__()
        self.heads = heads
        self.searched = searched
        self.query = nn.Linear(dim, dim, bias=False)  # W_Q
        self.key = nn.Linear(dim, dim, bias=False)  # W_K
        self.value = nn.Linear(dim, dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.empty = nn.Parameter(torch.randn(dim) * 0.1)

    def gsu(self, targets: Tensor, history: Tensor, mask: Tensor) -> NearestSteps:
        """(W_Q t).(W_K s_l) for targets (B, C, d), histories (B, L, d), masks (B, L); the top K of each."""
        with torch.no_grad():
            return self._top(self.query(targets) @ self.key(history).transpose(1, 2), mask)

    def esu(self, targets: Tensor, history: Tensor, found: NearestSteps) -> Tensor:
        """Multi-head target attention over the found steps alone: targets (B, C, d), histories (B, L, d) -> (B, C, d)."""
        batch, count, width = found.at.shape
        here = found.here.unsqueeze(-1)  # (B, C, K, 1)
        rows = (torch.arange(batch, device=here.device)[:, None, None] * history.shape[1] + found.at).flatten()  # (B C K,)
        split = (batch, count, width, self.heads, history.shape[2] // self.heads)  # B, C, K, H, d/H
        projected = (layer(history).flatten(0, 1) for layer in (self.key, self.value))  # (B L, d) each
        key, value = (table.index_select(0, rows).view(split) for table in projected)
        query = self.query(targets).view(batch, count, 1, *split[3:])  # (B, C, 1, H, d/H)
        scores = (query * key).sum(-1) / query.shape[-1] ** 0.5  # (B, C, K, H)
        weights = scores.masked_fill(~here, NEVER).softmax(2) * here  # (B, C, K, H)
        mixed = self.out((weights.unsqueeze(-1) * value).sum(2).flatten(2))  # (B, C, d)
        return torch.where(here.any(2), mixed, self.empty)  # (B, C, d)

    def forward(self, targets: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        """What `esu` gives for what `gsu` finds, (B, C, d), (B, L, d), (B, L) -> (B, C, d), as products of whole matrices.

        Since both score with W_Q and W_K, the sum of the ESU's heads is the GSU's score. Better than the two where many
        targets share a history, as in training; `esu` is better where K is far below L.
        """
        query, key, value = (self._heads(layer(x)) for layer, x in ((self.query, targets), (self.key, history), (self.value, history)))
        scores = query @ key.transpose(2, 3)  # (B, H, C, L)
        found = self._top(scores.detach().sum(1), mask)
        kept = torch.zeros_like(scores[:, 0], dtype=torch.bool).scatter(2, found.at, found.here).unsqueeze(1)  # (B, 1, C, L)
        weights = (scores / query.shape[-1] ** 0.5).masked_fill(~kept, NEVER).softmax(3) * kept  # (B, H, C, L)
        mixed = self.out((weights @ value).transpose(1, 2).flatten(2))  # (B, C, d)
        return torch.where(mask.any(1)[:, None, None], mixed, self.empty)  # (B, C, d)

    def _heads(self, projected: Tensor) -> Tensor:
        """(B, T, d) -> (B, H, T, d/H)."""
        found: Tensor = projected.unflatten(2, (self.heads, -1)).transpose(1, 2)
        return found

    def _top(self, scores: Tensor, mask: Tensor) -> NearestSteps:
        """The best K of scores (B, C, L)."""
        best = scores.masked_fill(~mask.unsqueeze(1), -torch.inf).topk(min(self.searched, scores.shape[2]), dim=-1)  # (B, C, K)
        return NearestSteps(best.indices, best.values > -torch.inf)


class Steps(NamedTuple):
    """Lifelong histories as numbers of rows in the tables of items and queries at hand; -1 where a step lacks one."""

    item: Tensor  # (B, L) int64
    query: Tensor  # (B, L) int64


class NextPairs(NamedTuple):
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
        self.search = HistorySearch(dim, psu.config.heads, config.searched)
        self.end = nn.Parameter(torch.randn(dim) * dim**-0.5)  # EOS: the step after the last
        self.head = nn.Sequential(nn.Linear(3 * dim, dim), nn.GELU(), nn.Linear(dim, 1))
        self.relevance = nn.Parameter(torch.tensor(1.0))

    def histories(self, items: ItemVectors, queries: Queries, steps: Steps) -> tuple[Tensor, Tensor]:
        """s_l of every step and the EOS step after it: (B, L + 1, d), and which of them are there (B, L + 1)."""
        item, has_item = _rows(self.spaces.items(items), items.here, steps.item)  # (B, L, d), (B, L)
        query, has_query = _rows(self.spaces.query(queries.query), queries.here, steps.query)  # (B, L, d), (B, L)
        fused = pair(query, has_query, item, has_item, self.config.query_share)  # (B, L, d)
        end = self.end.expand(len(fused), 1, -1)  # (B, 1, d)
        here = (has_item | has_query, torch.ones(len(fused), 1, dtype=torch.bool, device=fused.device))
        return torch.cat([fused, end], 1), torch.cat(here, 1)  # (B, L + 1, d), (B, L + 1)

    def logits(self, items: ItemVectors, queries: Queries, steps: Steps, asked: NextPairs) -> Tensor:
        """How likely each of C pairs is next: (B, C)."""
        history, mask = self.histories(items, queries, steps)  # (B, L + 1, d), (B, L + 1)
        item, has_item = _rows(self.spaces.items(items), items.here, asked.item)  # (B, C, d), (B, C)
        query, has_query = _rows(self.spaces.query(queries.query), queries.here, asked.query)  # (B, d), (B,)
        query, has_query = query.unsqueeze(1).expand_as(item), has_query.unsqueeze(1).expand_as(has_item)  # (B, C, d), (B, C)
        target = pair(query, has_query, item, has_item, self.config.query_share)  # (B, C, d)
        interest = self.search(target, history, mask)  # (B, C, d)
        weighed = self.head(torch.cat([interest, target, interest * target], -1)).squeeze(-1)  # (B, C)
        found: Tensor = weighed + self.relevance * self.match(items, queries, asked)  # (B, C)
        return found

    def match(self, items: ItemVectors, queries: Queries, asked: NextPairs) -> Tensor:
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
