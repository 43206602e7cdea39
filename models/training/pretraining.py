"""Pretraining of the search unit: the three objectives of SEMINAR as losses of vectors, and passes over lifelong histories.

Only baskets before the cut are targets, and only the rows before each are read. The same events, seed, machine and thread count give
the same weights. Each objective is a mean over its participants, and zero without any, so that its weight means the same for any batch.
"""

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.config import PretrainingConfig
from models.encoding.contents import Contents, trim
from models.encoding.histories import Histories, HistoryBatch, distinct
from models.encoding.vocabulary import UNKNOWN
from models.network.layers import NEVER
from models.network.psu import ItemVectors, Queries
from models.network.search import NextPairs, Seminar, Steps
from models.training.loop import Run, fit
from models.training.phase import Phase, TrainingProgress

SAME = 1 - 1e-5  # cosine from which on two items cannot be told apart


def next_pair(logits: Tensor, allowed: Tensor, log_q: Tensor) -> Tensor:
    """Mean cross entropy of the first of C candidates: logits (B, C), allowed (B, C), ln of how often each is expected (B, C).

    The first is there for sure, ln 1 = 0; dividing the others by how often they are expected makes their sum an unbiased
    estimate of that over all items.
    """
    if not len(logits):
        return logits.sum()
    corrected = (logits - log_q).masked_fill(~allowed, NEVER)  # (B, C)
    return F.cross_entropy(corrected, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


def alignment(items: ItemVectors, temperature: float) -> Tensor:
    """InfoNCE, both ways, between each two modalities of distinct items; the mean over the pairs of modalities.

    Only items with both modalities take part. Items that are the same in one of the two are no negatives of each other.
    """
    losses = []
    for one, other in combinations(range(items.present.shape[1]), 2):
        both = items.present[:, one] & items.present[:, other]  # (n,)
        a, b = items.modalities[both, one], items.modalities[both, other]  # (k, d), (k, d)
        if len(a) > 1:
            own = torch.eye(len(a), dtype=torch.bool, device=a.device)
            allowed = ~(same(a) | same(b)) | own  # (k, k)
            logits = ((a @ b.T) / temperature).masked_fill(~allowed, NEVER)  # (k, k)
            label = torch.arange(len(a), device=a.device)
            losses.append((F.cross_entropy(logits, label) + F.cross_entropy(logits.T, label)) / 2)
    return torch.stack(losses).mean() if losses else items.modalities.sum() * 0


def apart(text: Tensor, item: Tensor) -> Tensor:
    """Which items (n,) are negatives of which queries (n,), pair i being (text i, item i): (n, n), where no pair is (text i, item j)."""
    same_text, same_item = text[:, None] == text[None, :], item[:, None] == item[None, :]  # (n, n) each
    return same_text.float() @ same_item.float() == 0


def same(vectors: Tensor) -> Tensor:
    """Which of unit vectors (k, d) cannot be told apart, (k, k) bool; in float32, whatever else is computed in half the bytes."""
    with torch.autocast(vectors.device.type, enabled=False):
        return (vectors.float() @ vectors.float().T) >= SAME  # (k, k)


def relevance(queries: Tensor, items: Tensor, negatives: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """-log(exp(cos(q, e) / t) / (exp(cos(q, e) / t) + sum over negatives)), the mean over n pairs by their `weight` (n,).

    Queries and items (n, d) of the same row belong together; `negatives` (n, n) says which items stand against which query.
    """
    cosines = F.normalize(queries, dim=-1) @ F.normalize(items, dim=-1).T  # (n, n)
    own = torch.eye(len(queries), dtype=torch.bool, device=queries.device)
    logits = (cosines / temperature).masked_fill(~(negatives | own), NEVER)  # (n, n)
    each = -logits.log_softmax(1).diagonal()  # (n,)
    return (each * weight).sum() / weight.sum().clamp(min=1e-9)


class SampledItems(NamedTuple):
    """Items sampled for a batch, and ln of how often each was expected among them."""

    items: np.ndarray  # (N,) int64
    log_q: np.ndarray  # (N,) float64


def learn(  # noqa: PLR0913
    model: Seminar,
    histories: Histories,
    table: Contents,
    config: PretrainingConfig,
    phase: str,
    epochs: int,
    rng: np.random.Generator,
    progress: Callable[[TrainingProgress], None],
    run: Run | None = None,
) -> None:
    """`epochs` passes over the examples, each with the joint loss that `config` weighs."""
    likely = np.sqrt(np.bincount(histories.target, minlength=len(table.item)) + 1.0)
    share, examples = likely / likely.sum(), len(histories.target)

    def batches(rng: np.random.Generator) -> Iterator[np.ndarray]:
        order = rng.permutation(examples)
        yield from (order[start : start + config.batch] for start in range(0, examples, config.batch))

    def loss(at: np.ndarray, rng: np.random.Generator) -> Tensor:
        return joint_loss(model, histories.batch(at), histories.words, draw(share, config.negatives, rng), table, config, rng)

    told = Phase(
        phase,
        batches,
        loss,
        -(-examples // config.batch),
        epochs,
        config.learning_rate,
        settings=msgspec.json.encode((model.psu.config, config)).decode(),
        data=(*histories, *table),
        fused=True,
    )
    fit(model, told, rng, progress, run)


def joint_loss(
    model: Seminar,
    batch: HistoryBatch,
    words: np.ndarray,
    drawn: SampledItems,
    table: Contents,
    config: PretrainingConfig,
    rng: np.random.Generator,
) -> Tensor:
    """The weighted sum of the three objectives on a batch, a scalar."""
    candidates = np.concatenate([batch.target[:, None], np.tile(drawn.items, (len(batch.target), 1))], 1)  # (B, C)
    used, (item, chosen) = distinct(batch.item, candidates)
    texts, (text, asked) = distinct(batch.text, batch.asked)
    items = model.psu.items(hide(table.take(used), model.psu.config.item_dropout, rng))
    queries = model.psu.queries(trim(words[texts]))
    loss = items.item.sum() * 0
    if config.next_weight:
        to = model.psu.device
        steps, pairs = (
            Steps(*(torch.from_numpy(array).to(to) for array in (item, text))),
            NextPairs(*(torch.from_numpy(array).to(to) for array in (chosen, asked))),
        )
        allowed = candidates != batch.target[:, None]  # (B, C): a copy of the target is no negative
        allowed[:, 0] = True
        log_q = torch.from_numpy(np.append(0.0, drawn.log_q)).float().to(to).expand(len(candidates), -1)  # (B, C)
        loss = loss + config.next_weight * next_pair(model.logits(items, queries, steps, pairs), torch.from_numpy(allowed).to(to), log_q)
    if config.alignment:
        some = torch.from_numpy(rng.permutation(len(used))[: config.positions]).to(model.psu.device)  # all with all: a batch has thousands
        loss = loss + config.alignment * alignment(items.take(some), config.temperature)
    if config.relevance:
        both = np.concatenate([np.stack([text.ravel(), item.ravel()], 1), np.stack([asked, chosen[:, 0]], 1)])  # (n, 2)
        loss = loss + config.relevance * position_relevance(items, queries, both, config, rng)
    return loss


def draw(share: np.ndarray, count: int, rng: np.random.Generator) -> SampledItems:
    """`count` items, with repetition, each in the `share` (V,) of draws that it has."""
    items = rng.choice(len(share), count, p=share)
    return SampledItems(items, np.log(count * share[items]))


def position_relevance(
    items: ItemVectors, queries: Queries, both: np.ndarray, config: PretrainingConfig, rng: np.random.Generator
) -> Tensor:
    """The relevance objective over at most `positions` distinct pairs (n, 2) of the batch that have a query and an item.

    Another position's item is a negative, unless it follows the same query at any of these positions.
    """
    pairs = np.unique(both[(both >= 0).all(1)], axis=0)  # (n, 2)
    pairs = pairs[rng.permutation(len(pairs))[: config.positions]]
    text, item = (torch.from_numpy(column.copy()).to(items.gates.device) for column in pairs.T)  # (n,) each
    weight = (queries.here[text] & items.here[item]).float()  # (n,)
    negatives = apart(text, item) & (weight > 0)  # (n, n)
    return relevance(queries.query[text], items.item[item], negatives, weight, config.temperature)


def hide(table: Contents, share: float, rng: np.random.Generator) -> Contents:
    """Items with the id of a share of them hidden."""
    return table._replace(item=np.where(rng.random(len(table.item)) < share, UNKNOWN, table.item))
