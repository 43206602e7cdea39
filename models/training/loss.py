"""Sampled softmax over shared negatives, corrected for how often each candidate is drawn (logQ)."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.network.layers import NEVER


class Drawn(NamedTuple):
    """C candidates of a batch: the B positives in its order, then sampled ones of its categories, then of the pool."""

    position: np.ndarray  # (C,)
    category: np.ndarray  # (C,)
    log_q_category: np.ndarray  # (C,) ln of how often it is drawn as a candidate of its own category
    log_q_pool: np.ndarray  # (C,) ln of how often it is drawn as a candidate of the pool
    pooled: np.ndarray  # (C,) bool: the positives and those drawn from the pool


class Pool:
    """What negatives are drawn from: the V items of the table, by category, and how often each is a target."""

    def __init__(self, category: np.ndarray, targets: np.ndarray) -> None:
        """`category` (V,) of each item; `targets` (E,) positions of all examples' targets."""
        self._category = category
        self._order = np.argsort(category, kind="stable")
        self._start = np.searchsorted(category[self._order], np.arange(category.max(initial=0) + 2))
        counts = np.bincount(targets, minlength=len(category)).astype(np.float64)
        in_category = np.bincount(category, counts, minlength=len(self._start))
        self._share = counts / max(1.0, counts.sum())
        self._share_in_category = counts / np.maximum(in_category[category], 1)

    def draw(self, targets: np.ndarray, per_category: int, pool: int, rng: np.random.Generator) -> Drawn:
        """Candidates for targets (B,): themselves, `per_category` of each of their categories, `pool` of all items."""
        categories, here = np.unique(self._category[targets], return_counts=True)
        size = self._start[categories + 1] - self._start[categories]
        offset = (rng.random((len(categories), per_category)) * size[:, None]).astype(np.int64)
        same = self._order[self._start[categories][:, None] + offset].reshape(-1)
        everywhere = rng.integers(0, len(self._category), pool)
        position = np.concatenate([targets, same, everywhere])
        category = self._category[position]
        at = np.searchsorted(categories, category).clip(max=len(categories) - 1)
        drawn = pool / len(self._category)  # from the pool, which counts in the category too
        in_category = here[at] * self._share_in_category[position] + per_category / size[at] + drawn
        in_pool = len(targets) * self._share[position] + drawn
        pooled = np.ones(len(position), bool)
        pooled[len(targets) : len(targets) + len(same)] = False
        return Drawn(position, category, np.log(in_category), np.log(in_pool + 1e-12), pooled)


def sampled_softmax(
    queries: Tensor,
    candidates: Tensor,
    allowed: Tensor,
    log_q: Tensor,
    temperature: float,
    correct: str = "negatives",
    weight: Tensor | None = None,
) -> Tensor:
    """Mean cross entropy: (B, d), (C, d), allowed (B, C), ln q (C,); the target of query b is candidate b.

    Each negative is divided by how often it is expected, so that their sum estimates that over all items; the target is there
    for sure, ln 1 = 0. `correct` may also be `all`, the target with them, or `none`. `weight` (B,) says how much each query counts;
    where none does, the loss is 0.
    """
    target = torch.eye(len(queries), len(candidates), dtype=torch.bool, device=queries.device)  # (B, C)
    logits = queries @ candidates.T / temperature  # (B, C)
    if correct != "none":
        logits = logits - (log_q if correct == "all" else log_q.expand_as(logits).masked_fill(target, 0))  # (B, C)
    logits = logits.masked_fill(~allowed, NEVER)  # (B, C)
    label = torch.arange(len(queries), device=queries.device)
    if weight is None:
        return F.cross_entropy(logits, label)
    return (F.cross_entropy(logits, label, reduction="none") * weight).sum() / weight.sum().clamp(min=1e-9)


def allow(target: Tensor, position: Tensor, columns: Tensor) -> Tensor:
    """Which candidates (C,) count for which targets (B,): `columns`, (B, C) or (C,), less copies of the target: (B, C)."""
    own = torch.eye(len(target), len(position), dtype=torch.bool, device=target.device)  # (B, C)
    return (columns & (target[:, None] != position[None, :])) | own
