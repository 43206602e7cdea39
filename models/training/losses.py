"""The losses of ULIM: sampled softmax over shared negatives, corrected for sampling frequency (logQ), and the joint loss."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.config import Config
from models.encoding.contents import Contents, trim
from models.encoding.inputs import QUERY, Tokens, ends_with
from models.network.layers import NEVER
from models.network.ulim import Network
from models.training.dataset import Examples
from models.training.pretraining import hide


class SampledCandidates(NamedTuple):
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

    def draw(self, targets: np.ndarray, per_category: int, pool: int, rng: np.random.Generator) -> SampledCandidates:
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
        return SampledCandidates(position, category, np.log(in_category), np.log(in_pool + 1e-12), pooled)


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


def joint_loss(
    network: Network,
    examples: Examples,
    batch: np.ndarray,
    drawn: SampledCandidates,
    table: Contents,
    config: Config,
    rng: np.random.Generator,
) -> Tensor:
    """The joint loss of a batch of examples, a scalar. `table` holds the contents of all V + N positions."""
    short, long = examples.short.take(batch), examples.long.take(batch)
    used, places = np.unique(np.concatenate([short.item.ravel(), long.item.ravel(), drawn.position]), return_inverse=True)
    shown = hide(table.take(used), config.network.item_dropout, rng)
    vectors = network.items(shown)  # (U, d)
    read = network.table(vectors, shown.item)
    at_short, at_long, at_drawn = np.split(places, np.cumsum([short.item.size, long.item.size]))
    told = np.concatenate([[0], short.text.ravel(), long.text.ravel()])  # 0, no text, is 0 among those of the batch too
    texts, inverse = np.unique(told, return_inverse=True)
    numbers = inverse[1:]
    said = network.texts(trim(examples.words[texts]))  # (texts, d)
    short = _local(short, at_short, numbers[: short.text.size])
    long = _local(long, at_long, numbers[short.text.size :])
    weights, temperature = config.training, config.network.temperature
    state = network.users(read, short, examples.touched.take(batch), said)
    category = torch.from_numpy(examples.category[batch]).to(network.device)  # (B,)
    interest = network.long(read, long, said, state.pooled, state.profile, category)  # (B, d)
    chance = network.next_category(state).mixed.gather(1, category[:, None])  # (B, 1)
    to = network.device
    candidates = vectors[torch.from_numpy(at_drawn).to(to)]  # (C, d)
    position, own = (torch.from_numpy(array).to(to) for array in (drawn.position, drawn.category))  # (C,), (C,)
    q_category, q_pool = (torch.from_numpy(q).float().to(to) for q in (drawn.log_q_category, drawn.log_q_pool))
    target = position[: len(batch)]  # (B,)
    same = allow(target, position, own[: len(batch), None] == own[None, :])  # (B, C)
    pool = allow(target, position, torch.from_numpy(drawn.pooled).to(to))  # (B, C)
    live = torch.from_numpy(ends_with(QUERY, short)).to(to)  # (B,): the text of the query that the target may follow, or 0
    live_query, is_live = said[live], (live > 0).float()  # (B, d), (B,)
    asked = (same, q_category) if weights.long_negatives == "category" else (pool, q_pool)
    return (
        weights.alpha * sampled_softmax(interest, candidates, *asked, temperature, weights.log_q)
        + weights.beta * sampled_softmax(state.vectors, candidates, same, q_category, temperature, weights.log_q)
        + weights.pool_weight * sampled_softmax(state.vectors, candidates, pool, q_pool, temperature, weights.log_q)
        + weights.query_weight * sampled_softmax(live_query, candidates, pool, q_pool, temperature, weights.log_q, is_live)
        - weights.gamma * chance.clamp(min=1e-9).log().mean()
    )


def _local(tokens: Tokens, item: np.ndarray, text: np.ndarray) -> Tokens:
    return tokens._replace(item=item.reshape(tokens.item.shape), text=text.reshape(tokens.text.shape))
