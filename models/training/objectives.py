"""The three objectives (SEMINAR, pretraining search unit), as functions of vectors. Every one falls as what belongs together draws nearer.

Each is a mean over what takes part in it, and zero where nothing does, so that their weights mean the same for any batch.
"""

from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.network.layers import NEVER
from models.network.psu import Items

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


def alignment(items: Items, temperature: float) -> Tensor:
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
