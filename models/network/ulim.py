"""The network: SEMINAR's search unit, ULIM's towers and PGIN, from arrays to vectors and probabilities."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from models.codes.modalities import arrange
from models.config import NetworkConfig
from models.encoding.arrays import tensors
from models.encoding.contents import Contents, Widths
from models.encoding.inputs import Tokens, TouchedTokens
from models.network.items import ItemSpace
from models.network.pgin import NextCategory, Pgin
from models.network.psu import Psu
from models.network.towers import DualInterest
from models.rescoring.model import Rescorer


class UserState(NamedTuple):
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
        self.towers = DualInterest(config, category_rows, item_rows)
        self.pgin = Pgin(config.dim)
        self.dim = config.dim
        self.popularity = nn.Parameter(torch.zeros(category_rows))
        self.rescorer = None if config.rescore == "none" else Rescorer(config)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.popularity.device

    def items(self, contents: Contents) -> Tensor:
        """Unit vectors (n, d) of items."""
        return self.space.items(self.psu.items(contents))

    def table(self, vectors: Tensor, rows: np.ndarray) -> Tensor:
        """What histories read of items: their vectors (n, d), beside them the attention table's of their ids, `rows` (n,)."""
        if self.towers.attention is None:
            return vectors
        return self.towers.attention.beside(vectors, torch.from_numpy(rows).to(self.device))  # (n, d + a)

    def texts(self, words: np.ndarray) -> Tensor:
        """Unit vectors (n, d) of texts from hashed ids (n, W), zeros where one says nothing."""
        return self.space.queries(self.psu.queries(words))

    def coded(self, contents: Contents, coded: Sequence[str]) -> np.ndarray:
        """The vectors of `coded` side by side (n, D) float32: what codes of the items stand for."""
        items = self.psu.items(contents)
        return arrange(coded, self.space.items(items).cpu().numpy(), items.modalities.cpu().numpy())

    def users(self, vectors: Tensor, short: Tokens, touched: TouchedTokens, texts: Tensor) -> UserState:
        """The state of B users from their newest events and their categories."""
        item, category, kind, gap, text, _ = (tensor.long() for tensor in tensors(short, self.device))  # (B, S) each
        rows, since, count = (tensor.long() for tensor in tensors(touched, self.device))  # (B, P') each
        profile, touched_tokens = self.towers.profile(rows, since, count)  # (B, d), (B, P', d)
        read = vectors[item][..., : self.dim]  # (B, S, d)
        tokens, mask, mine, has_item = self.towers.tokens(read, category, kind, gap, text, texts)  # (B, S, d), ...
        pooled, vector = self.towers.short(tokens, mask, mine, has_item, profile)  # (B, d), (B, d)
        return UserState(pooled, vector, profile, touched_tokens, rows)

    def long(self, vectors: Tensor, long: Tokens, texts: Tensor, pooled: Tensor, profile: Tensor, category: Tensor) -> Tensor:
        """v_l, unit length, (R, d) of R sub-sequences: p_s and u (R, d) of their users, row of their category (R,)."""
        item, rows, kind, gap, text = (tensor.long() for tensor in tensors(long[:5], self.device))  # (R, L) each
        weight = tensors(long[5:], self.device)[0].float()  # (R, L)
        read = vectors[item]  # (R, L, d) or (R, L, d + a)
        tokens, mask, mine, has_item = self.towers.tokens(read[..., : self.dim], rows, kind, gap, text, texts)  # (R, L, d), ...
        keyed = None
        if self.towers.attention is not None:
            keyed = self.towers.attention(read[..., self.dim :], has_item, rows, tokens)  # (R, L, a)
        return self.towers.long(tokens, mask, weight, mine, pooled, profile, self.towers.category(category), keyed)  # (R, d)

    def next_category(self, state: UserState) -> NextCategory:
        """Probabilities over the N rows of categories."""
        table = self.towers.category.weight  # (N, d)
        return self.pgin(state.profile, state.pooled, state.touched, state.touched_rows, table, self.popularity)
