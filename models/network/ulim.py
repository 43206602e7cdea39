"""ULIM (arXiv 2507.10097) as a whole: PGIN, which predicts the next category, and the network of search unit, towers and PGIN.

PGIN is a pointer to the categories a user touched, a generator over all N, and a gate between them. Choices where ULIM leaves them
open: the pointer's query is the profile AND the pooled short history (the paper: the profile alone); the long behaviour sequence is
that of the user row, its distinct categories with counts and times, because rows of single categories are read only after the
categories are chosen.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from models.codes.modalities import arrange
from models.config import NetworkConfig
from models.encoding.contents import Contents, Widths
from models.encoding.inputs import Tokens, TouchedTokens, tensors
from models.encoding.vocabulary import FIRST
from models.network.layers import NEVER, attend, dnn
from models.network.psu import Psu
from models.network.towers import DualInterest, ItemSpace


class NextCategory(NamedTuple):
    """The mixed probabilities and what they are made of."""

    mixed: Tensor  # (B, N), sums to 1
    pointer: Tensor  # (B, N), exactly 0 for a category that the user never touched
    generator: Tensor  # (B, N), exactly 0 for padding and the unknown
    gate: Tensor  # (B, 1), share of the pointer; 0 where there is nothing to point at
    attention: Tensor  # (B, P'), the pointer before it is scattered


class Pgin(nn.Module):
    """Pointer-generator over the categories of a vocabulary."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.ask = dnn(2 * dim, dim)
        self.key = nn.Linear(dim, dim)
        self.long_key = nn.Linear(dim, dim)
        self.long_query = nn.Linear(dim, dim)
        self.generate = dnn(3 * dim, dim)
        self.gate = nn.Sequential(nn.Linear(4 * dim, dim), nn.GELU(), nn.Linear(dim, 1))

    def forward(self, profile: Tensor, pooled: Tensor, touched: Tensor, category: Tensor, table: Tensor, bias: Tensor) -> NextCategory:
        """u (B, d), p_s (B, d), touched tokens (B, P', d), their rows (B, P'), embeddings (N, d), ln popularity (N,)."""
        mask = category > 0  # (B, P')
        asked = self.ask(torch.cat([profile, pooled], 1))  # (B, d)
        attention = attend(asked, self.key(touched), mask)  # (B, P')
        pointer = scatter(attention, category, len(table))  # (B, N)
        context = (attention.unsqueeze(-1) * touched).sum(1)  # (B, d)
        far = attend(self.long_query(profile), self.long_key(touched), mask)  # (B, P')
        long = (far.unsqueeze(-1) * touched).sum(1)  # (B, d)
        logits = self.generate(torch.cat([profile, pooled, long], 1)) @ table.T + bias  # (B, N)
        never = torch.arange(len(table), device=logits.device) < FIRST  # (N,)
        generator = logits.masked_fill(never, NEVER).softmax(1)  # (B, N)
        said = self.gate(torch.cat([profile, pooled, long, context], 1)).float()  # (B, 1): in half a number 1 - gate is soon exactly 0
        gate = torch.sigmoid(said) * mask.any(1, keepdim=True)  # (B, 1)
        return NextCategory(gate * pointer + (1 - gate) * generator, pointer, generator, gate, attention)


def scatter(attention: Tensor, category: Tensor, rows: int) -> Tensor:
    """Attention over positions (B, P') added up by category (B, P') -> (B, rows)."""
    return attention.new_zeros(len(attention), rows).scatter_add(1, category, attention)  # (B, N)


class EncodedUsers(NamedTuple):
    """What is known of users before any category is chosen."""

    pooled: Tensor  # (B, d) p_s
    vectors: Tensor  # (B, d) v_s, unit length
    profile: Tensor  # (B, d) u
    touched: Tensor  # (B, P', d)
    touched_rows: Tensor  # (B, P')


class Network(nn.Module):
    """All that is trained.

    `vectors` below are what `table` gives for U items, which the tokens' `item` points into; `texts` those of texts, (U', d),
    which their `text` points into.
    """

    def __init__(self, config: NetworkConfig, category_rows: int, item_rows: int, widths: Widths) -> None:
        super().__init__()
        self.psu = Psu(config, item_rows, widths)
        self.space = ItemSpace(config.dim)
        self.towers = DualInterest(config, category_rows)
        self.pgin = Pgin(config.dim)
        self.dim = config.dim
        self.popularity = nn.Parameter(torch.zeros(category_rows))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.popularity.device

    def items(self, contents: Contents) -> Tensor:
        """Unit vectors (n, d) of items."""
        return self.space.items(self.psu.items(contents))

    def table(self, vectors: Tensor, rows: np.ndarray) -> Tensor:
        """What histories read of items with vectors (n, d) and rows of their ids (n,): the vectors."""
        return vectors

    def texts(self, words: np.ndarray) -> Tensor:
        """Unit vectors (n, d) of texts from hashed ids (n, W), zeros where one says nothing."""
        return self.space.queries(self.psu.queries(words))

    def coded(self, contents: Contents, coded: Sequence[str]) -> np.ndarray:
        """The vectors of `coded` side by side (n, D) float32: what codes of the items stand for."""
        items = self.psu.items(contents)
        return arrange(coded, self.space.items(items).cpu().numpy(), items.modalities.cpu().numpy())

    def users(self, vectors: Tensor, short: Tokens, touched: TouchedTokens, texts: Tensor) -> EncodedUsers:
        """The state of B users from their newest events and their categories."""
        item, category, kind, gap, text = (tensor.long() for tensor in tensors(short, self.device))  # (B, S) each
        rows, since, count = (tensor.long() for tensor in tensors(touched, self.device))  # (B, P') each
        profile, touched_tokens = self.towers.profile(rows, since, count)  # (B, d), (B, P', d)
        tokens, mask, mine, has_item = self.towers.tokens(vectors[item], category, kind, gap, text, texts)  # (B, S, d), ...
        pooled, vector = self.towers.short(tokens, mask, mine, has_item, profile)  # (B, d), (B, d)
        return EncodedUsers(pooled, vector, profile, touched_tokens, rows)

    def long(self, vectors: Tensor, long: Tokens, texts: Tensor, pooled: Tensor, profile: Tensor, category: Tensor) -> Tensor:
        """v_l, unit length, (R, d) of R sub-sequences: p_s and u (R, d) of their users, row of their category (R,)."""
        item, rows, kind, gap, text = (tensor.long() for tensor in tensors(long, self.device))  # (R, L) each
        tokens, mask, mine, _ = self.towers.tokens(vectors[item], rows, kind, gap, text, texts)  # (R, L, d), ...
        found: Tensor = self.towers.long(tokens, mask, mine, pooled, profile, self.towers.category(category))  # (R, d)
        return found

    def next_category(self, state: EncodedUsers) -> NextCategory:
        """Probabilities over the N rows of categories."""
        table = self.towers.category.weight  # (N, d)
        found: NextCategory = self.pgin(state.profile, state.pooled, state.touched, state.touched_rows, table, self.popularity)
        return found


Builder = Callable[[NetworkConfig, int, int, Widths], Network]  # the arguments of `Network`; ablations pass others
