"""The pretraining search unit (SEMINAR, arXiv 2407.10714): queries, items of several modalities, and pairs of both, as vectors.

Declared choices (docs/adr/0008): modalities and queries are L2-normalised before they are mixed, so that the gate and
`query_share` weigh directions; what a pair lacks gives its share to what it has.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.codes.modalities import MODALITIES
from models.config import NetworkConfig
from models.encoding.contents import Contents, Widths
from models.encoding.inputs import tensors
from models.encoding.vocabulary import UNKNOWN
from models.network.layers import NEVER, mean_words


class ItemVectors(NamedTuple):
    """n items as vectors. `item` = sum over m of gates x modalities; it is zeros where every modality is missing."""

    modalities: Tensor  # (n, M, d) unit length, zeros where missing
    gates: Tensor  # (n, M) sums to 1, exactly 0 where missing
    present: Tensor  # (n, M) bool

    @property
    def item(self) -> Tensor:
        """e_item (n, d)."""
        return (self.gates.unsqueeze(-1) * self.modalities).sum(1)  # (n, d)

    def take(self, at: Tensor) -> "ItemVectors":
        """The items at the given positions (m,)."""
        return ItemVectors(self.modalities[at], self.gates[at], self.present[at])

    @property
    def here(self) -> Tensor:
        """Which items are anything at all (n,) bool."""
        return self.present.any(1)


class Queries(NamedTuple):
    """n queries as vectors, zeros where there is none."""

    query: Tensor  # (n, d) unit length
    here: Tensor  # (n,) bool


class Psu(nn.Module):
    """The tables and projections; `items` serves the catalogue, `queries` a live query, `pair` a step of a history."""

    def __init__(self, config: NetworkConfig, item_rows: int, widths: Widths) -> None:
        super().__init__()
        self.config = config
        self.widths = widths
        self.id = nn.Embedding(item_rows, config.dim)
        self.words = nn.Embedding(config.buckets, config.dim, padding_idx=0)
        self.attributes = nn.Embedding(config.attribute_buckets, config.dim, padding_idx=0)
        self.image = nn.Linear(widths.image, config.dim, bias=False)
        self.text = nn.Linear(widths.text, config.dim, bias=False)
        self.gate = nn.Parameter(torch.zeros(len(MODALITIES), config.dim))
        self.preference = nn.Parameter(torch.zeros(len(MODALITIES)))
        for table in (self.id, self.words, self.attributes):
            nn.init.normal_(table.weight, std=config.dim**-0.5)
        with torch.no_grad():
            self.words.weight[0] = self.attributes.weight[0] = 0

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.gate.device

    def items(self, contents: Contents) -> ItemVectors:
        """The modalities of n items and how the gate weighs them."""
        rows, title, attributes, image, text = tensors(contents, self.device)
        said, has_text = self.said(title, text)  # (n, d), (n,)
        told = F.normalize(mean_words(self.attributes, attributes), dim=-1)  # (n, d)
        parts = [F.normalize(self.id(rows), dim=-1), said, F.normalize(self.image(image), dim=-1), told]
        here = [rows > UNKNOWN, has_text, (image != 0).any(1), (attributes != 0).any(1)]
        present = torch.stack(here, 1)  # (n, M)
        modalities = torch.stack(parts, 1) * present.unsqueeze(-1)  # (n, M, d)
        scores = (modalities * self.gate).sum(-1) + self.preference  # (n, M)
        gates = scores.masked_fill(~present, NEVER).softmax(1) * present  # (n, M)
        return ItemVectors(modalities, gates, present)

    def queries(self, words: np.ndarray, given: np.ndarray | None = None) -> Queries:
        """Queries from hashed ids (n, W) and, where a sentence encoder gave them, vectors (n, Dt)."""
        vectors = given if given is not None else np.zeros((len(words), self.text.in_features), np.float32)
        return Queries(*self.said(*tensors((words, vectors), self.device)))

    def said(self, words: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        """A text in the space that titles and queries share: hashed ids (n, W), given (n, Dt) -> unit (n, d), (n,)."""
        if self.training and self.config.word_dropout:
            words = words * (torch.rand(words.shape, device=words.device) >= self.config.word_dropout)  # (n, W)
        has_words, is_given = (words != 0).any(1), (given != 0).any(1)  # (n,) each
        mean = F.normalize(mean_words(self.words, words), dim=-1)  # (n, d)
        text = F.normalize(self.text(given), dim=-1) * is_given.unsqueeze(-1)  # (n, d) no gradient of a zero's direction
        return F.normalize(mean + text, dim=-1), has_words | is_given


def pair(query: Tensor, has_query: Tensor, item: Tensor, has_item: Tensor, share: float) -> Tensor:
    """s = a q + (1 - a) e: vectors (..., d), masks (...) -> (..., d). One that is missing leaves its share to the other."""
    ask, offer = share * has_query, (1 - share) * has_item  # (...)
    total = (ask + offer).clamp(min=1e-9)  # (...)
    return (ask / total).unsqueeze(-1) * query + (offer / total).unsqueeze(-1) * item  # (..., d)
