"""The models of torch-rechub, each brought to one form: histories in, vectors of interests and of items out.

Used of the library: the networks. Not used: its trainer, which prints, leaves a checkpoint in the working directory, knows no
deadline and picks by AUC, and the models' own `forward`, which scores a few given items a user.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_rechub.basic.features import DenseFeature, SequenceFeature, SparseFeature
from torch_rechub.basic.initializers import RandomNormal
from torch_rechub.models.matching import MIND, SINE, ComirecSA, GRU4Rec, SASRec, YoutubeDNN

from research.baselines.configuration import Configuration

SPREAD = 0.05  # of the embeddings at the start; the library's 1e-4 takes epochs to get away from zero


class Encoder(nn.Module):
    """One model of the library. Item 0 is padding; histories are right-aligned, newest last."""

    network: Any

    def __init__(self, network: nn.Module, table: nn.Embedding, settings: Configuration) -> None:
        super().__init__()
        self.network = network
        self.table = table
        self.settings = settings

    def items(self, positions: Tensor | None = None) -> Tensor:
        """Vectors of items (n,), or of all V + 1: (n, d)."""
        vectors = self.table.weight if positions is None else self.table(positions)
        return F.normalize(vectors, dim=-1) if self.settings.cosine else vectors

    def interests(self, items: Tensor, categories: Tensor) -> Tensor:
        """(B, S) items and their categories -> the user's I vectors (B, I, d)."""
        vectors = self.network.user_tower(self._inputs(items, categories))
        return F.normalize(vectors.reshape(len(items), -1, self.settings.dim), dim=-1)

    def _inputs(self, items: Tensor, categories: Tensor) -> dict[str, Tensor]:
        if not isinstance(self.network, MIND | SINE):  # which take no other length than they were made for
            longest = max(1, int((items != 0).sum(1).max()))
            items, categories = items[:, -longest:], categories[:, -longest:]
        return {"history": items, "categories": categories, "nothing": torch.zeros(len(items), 1)}


class Stepwise(Encoder, ABC):
    """A model that gives a vector after each event, so that one pass over a sequence is asked for every next item."""

    def interests(self, items: Tensor, categories: Tensor) -> Tensor:
        """See Encoder."""
        lengths = (items != 0).sum(1)  # (B,)
        everywhere = self.steps(left_aligned(items, lengths))  # (B, longest, d)
        return everywhere[torch.arange(len(items)), (lengths - 1).clamp(min=0)].unsqueeze(1)

    def steps(self, items: Tensor) -> Tensor:
        """Left-aligned items (B, S) -> the vector after each event (B, longest, d)."""
        longest = max(1, int((items != 0).sum(1).max()))
        vectors = self._run(items[:, :longest])
        return F.normalize(vectors, dim=-1) if self.settings.cosine else vectors

    @abstractmethod
    def _run(self, items: Tensor) -> Tensor:
        """Left-aligned items (B, S) -> vectors (B, S, d), not yet scaled."""


class Gru(Stepwise):
    """GRU4Rec. Its `user_tower` gives the last step only; its user network is left out, as in the paper."""

    def _run(self, items: Tensor) -> Tensor:
        vectors = F.dropout(self.table(items), self.settings.dropout, self.training)
        found: Tensor = self.network.gru(vectors)[0]
        return found


class Attention(Stepwise):
    """SASRec. The library loses axes of size 1."""

    def _run(self, items: Tensor) -> Tensor:
        rows, longest = items.shape
        inputs = {"seq": F.pad(items, (0, 1 if longest == 1 else 0, 0, 1 if rows == 1 else 0))}
        vectors = self.network.seq_forward(inputs, self.network.item_emb(inputs, self.network.features[:1])[:, 0])
        found: Tensor = vectors[:rows, :longest]
        return found


def left_aligned(items: Tensor, lengths: Tensor) -> Tensor:
    """Right-aligned rows (B, S), of which `lengths` (B,) are not padding, moved to the left."""
    at = torch.arange(items.shape[1]) + (items.shape[1] - lengths)[:, None]  # (B, S)
    return items.gather(1, at.clamp(max=items.shape[1] - 1)) * (at < items.shape[1])


def build(name: str, items: int, categories: int, settings: Configuration) -> Encoder:
    """A fresh model for so many items and categories, padding not counted. Draws from torch's global generator."""
    if name == "sasrec":
        return _sasrec(items, settings)
    if name == "sine":
        return _sine(items, settings)
    user, history, item = _features(items, categories, settings)
    network: Any
    if name == "youtubednn":
        pooled = [SequenceFeature("history", items + 1, settings.dim, "mean", "item", 0)]
        network = YoutubeDNN(pooled + user, [item], [], _layers(settings, at_least=len(user)), settings.temperature)
    elif name == "gru4rec":
        network = GRU4Rec(_nothing(), [history], [item], [], {"dims": []}, settings.temperature)
    elif name == "mind":
        network = MIND(user or _nothing(), [history], [item], [], settings.length, settings.temperature, settings.interests)
    elif name == "comirec":
        network = ComirecSA(user or _nothing(), [history], [item], [], settings.temperature, settings.interests)
    _start(network, settings.dim)
    return (Gru if name == "gru4rec" else Encoder)(network, network.embedding.embed_dict["item"], settings)


def _sasrec(items: int, settings: Configuration) -> Encoder:
    sequence = SequenceFeature("seq", items + 1, settings.dim, "concat", None, 0, RandomNormal(0, SPREAD))
    network = SASRec([sequence], max(2, settings.length), settings.dropout, settings.blocks, settings.heads)
    nn.init.normal_(network.position_emb.weight, 0, SPREAD)  # the library's 1 drowns the items
    if settings.copying:
        for layer in network.attention_layers:
            with torch.no_grad():
                layer.in_proj_weight[-settings.dim :] = torch.eye(settings.dim)
                layer.out_proj.weight.copy_(torch.eye(settings.dim))
    return Attention(network, network.item_emb.embed_dict["seq"], settings)


def _sine(items: int, settings: Configuration) -> Encoder:
    network = SINE(
        ["history"], ["item"], [], items + 1, settings.dim, 2 * settings.dim, 64, settings.interests, settings.length,
        temperature=settings.temperature,
    )  # fmt: skip
    _start(network, settings.dim)
    for table in (network.item_embedding, network.concept_embedding, network.position_embedding):
        nn.init.normal_(table.weight, 0, SPREAD)
    return Encoder(network, network.item_embedding, settings)


def _features(items: int, categories: int, settings: Configuration) -> tuple[list[Any], Any, Any]:
    item = SparseFeature("item", items + 1, settings.dim, None, 0, RandomNormal(0, SPREAD))
    history = SequenceFeature("history", items + 1, settings.dim, "concat", "item", 0)
    user = [SequenceFeature("categories", categories + 1, settings.dim, "mean", None, 0, RandomNormal(0, SPREAD))]
    return (user if settings.categories else []), history, item


def _nothing() -> list[Any]:
    return [DenseFeature("nothing")]


def _layers(settings: Configuration, at_least: int) -> dict[str, Any]:
    """The user network: as many layers as wanted, one where a feature must be mixed in. PReLU, as vectors have negative parts."""
    dims = [settings.dim] * max(settings.layers, at_least)
    return {"dims": dims, "activation": "prelu", "dropout": settings.dropout}


def _start(network: nn.Module, dim: int) -> None:
    """First values of bare matrices, which the library draws from 0 to 1 so that all interests begin as one.

    `convert_user_weight` (features + d, d), which the papers do not have, begins by passing the interests through.
    """
    for name, weight in network.named_parameters():
        if name == "convert_user_weight":
            nn.init.normal_(weight, 0, 0.01)
            with torch.no_grad():
                weight[-dim:] += torch.eye(dim)
        elif name.split(".")[-1].lower().startswith("w") and "weight" not in name:
            nn.init.xavier_normal_(weight)
