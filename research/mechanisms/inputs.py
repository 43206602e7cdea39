"""Inputs of the towers left out or replaced: arrays of tokens are changed just before the network reads them.

The parameters are those of `Network`, so a row that uses one of these differs from the default in its input alone.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from models.config import NetworkConfig
from models.encoding.contents import Widths
from models.encoding.inputs import KIND_ROWS, QUERY, Tokens, TouchedTokens
from models.network.psu import Psu, Queries
from models.network.ulim import EncodedUsers, Network

Change = Callable[[Tokens], Tokens]
CLICK = 1  # the kind that stands for every behaviour
FOLDED = KIND_ROWS - 1  # the kind of an event whose item and text are not read


def unchanged(tokens: Tokens) -> Tokens:
    """The tokens as they are."""
    return tokens


def without_gap(tokens: Tokens) -> Tokens:
    """All tokens with the same age."""
    return tokens._replace(gap=np.zeros_like(tokens.gap))


def one_kind(tokens: Tokens) -> Tokens:
    """All behaviours as clicks; queries stay queries."""
    return tokens._replace(kind=np.where(_behaviours(tokens), CLICK, tokens.kind))


def without_paired_text(tokens: Tokens) -> Tokens:
    """Events without the text of the query that they followed; a query keeps its own."""
    return tokens._replace(text=np.where(_behaviours(tokens), 0, tokens.text))


def newest_half(tokens: Tokens) -> Tokens:
    """The newest half of the events of each sequence, rounded up; the older ones are masked where they stand."""
    here = tokens.kind > 0  # (B, T)
    count = here.sum(1, keepdims=True)  # (B, 1)
    older = np.arange(here.shape[1]) < count - (count + 1) // 2  # (B, T)
    return tokens._replace(kind=np.where(older, 0, tokens.kind))


def folded(tokens: Tokens, newest: int, buckets: int) -> Tokens:
    """The `newest` events of each sequence as they are, and the older ones as `buckets` of about equal size (TWIN V2).

    All events of a bucket become the same token: a kind of its own, the age of the newest of them, no item, category or text.
    Under a softmax, n equal tokens are one token whose score has + ln n, which is how TWIN V2 counts the events of a cluster.
    """
    here = tokens.kind > 0  # (B, T)
    older = np.maximum(here.sum(1, keepdims=True) - newest, 0)  # (B, 1)
    column = np.arange(here.shape[1])
    is_older = column < older  # (B, T)
    bucket = np.minimum(column * buckets // np.maximum(older, 1), buckets - 1)  # (B, T)
    last = np.minimum(-((bucket + 1) * older // -buckets), older) - 1  # (B, T) column of the newest event of the bucket
    gap = np.take_along_axis(tokens.gap, np.maximum(last, 0), 1)
    nothing = {name: np.where(is_older, 0, getattr(tokens, name)) for name in ("item", "category", "text")}
    return tokens._replace(kind=np.where(is_older, FOLDED, tokens.kind), gap=np.where(is_older, gap, tokens.gap), **nothing)


class ChangedInputs(Network):
    """The network on other tokens: `short` and `long` say what becomes of those of the two towers."""

    def __init__(
        self,
        config: NetworkConfig,
        category_rows: int,
        item_rows: int,
        widths: Widths,
        *,
        short: Change = unchanged,
        long: Change = unchanged,
    ) -> None:
        super().__init__(config, category_rows, item_rows, widths)
        self._short, self._long = short, long

    def users(self, vectors: Tensor, short: Tokens, touched: TouchedTokens, texts: Tensor) -> EncodedUsers:
        """The state of B users, as `Network.users` returns it, from the changed tokens."""
        return super().users(vectors, self._short(short), touched, texts)

    def long(self, vectors: Tensor, long: Tokens, texts: Tensor, pooled: Tensor, profile: Tensor, category: Tensor) -> Tensor:
        """v_l (R, d), as `Network.long` returns it, from the changed tokens."""
        return super().long(vectors, self._long(long), texts, pooled, profile, category)


class SilentPsu(Psu):
    """A search unit for which every query is missing."""

    def queries(self, words: np.ndarray, given: np.ndarray | None = None) -> Queries:
        """n queries, zeros (n, d), none of them present."""
        zeros = self.gate.new_zeros(len(words), self.config.dim)
        return Queries(zeros, torch.zeros(len(words), dtype=torch.bool, device=self.device))


def without_queries(config: NetworkConfig, category_rows: int, item_rows: int, widths: Widths) -> Network:
    """The network with a `SilentPsu`; its weights start as those of `Network` do."""
    network = Network(config, category_rows, item_rows, widths)
    with torch.random.fork_rng(devices=[]):
        silent = SilentPsu(config, item_rows, widths)
    silent.load_state_dict(network.psu.state_dict())
    network.psu = silent
    return network


NO_GAP = partial(ChangedInputs, short=without_gap, long=without_gap)
ONE_KIND = partial(ChangedInputs, short=one_kind, long=one_kind)
NO_PAIRED_TEXT = partial(ChangedInputs, short=without_paired_text, long=without_paired_text)
NEWEST_HALF = partial(ChangedInputs, long=newest_half)
FOLDS = partial(ChangedInputs, long=partial(folded, newest=4, buckets=4))


def _behaviours(tokens: Tokens) -> np.ndarray:
    """Which tokens (B, T) are events with an item."""
    return (tokens.kind > 0) & (tokens.kind < QUERY)
