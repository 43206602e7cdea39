"""Candidates of all lists put in the order of one model: the last step of the cascade, in serving and in evaluation."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from torch import Tensor

from features.outcomes import Candidate
from features.rows import CategoryRow, UserRow
from models.encoding.inputs import Positions, tensors
from research.reranking.config import RerankConfig
from research.reranking.histories import Numbers, candidates, encode, newest
from research.reranking.model import Reranker
from research.reranking.repeats import RerankBatch

DEPTH = 1.5  # so many times the candidates wanted are merged, and the best of them kept
TOGETHER = 32  # users scored at once
DIGITS = 4  # of a score that count: below is noise of sums in another order, and a tie keeps the order of the merge


class Scoring(NamedTuple):
    """What scores: the model, the vectors (n, d) that positions point into, and its configuration."""

    reranker: Reranker
    vectors: Tensor
    positions: Positions
    config: RerankConfig


def depth(limit: int) -> int:
    """How many candidates are to be merged, so that `limit` are left."""
    return int(np.ceil(DEPTH * limit))


@torch.inference_mode()
def reranked(
    by: Scoring,
    users: Sequence[UserRow],
    rows: Sequence[Mapping[str, CategoryRow]],
    found: Sequence[Sequence[Candidate]],
    limit: int,
) -> list[list[Candidate]]:
    """The best `limit` candidates of each of B users, best first, ties in the order given, with the model's score; paths stay.

    `rows` holds for each user those of the categories that `histories.read_categories` names; one that is missing has no event.

    Raises:
        FloatingPointError: the model gave a score that is not finite.
    """
    ordered = []
    for start in range(0, len(users), TOGETHER):
        chunk = slice(start, start + TOGETHER)
        scores = _scores(by, users[chunk], rows[chunk], found[chunk])
        if not np.isfinite(scores).all():
            raise FloatingPointError("the reranker gave scores that are not finite: roll the bundle back")
        ordered += [_best(mine, row[: len(mine)], limit) for mine, row in zip(found[chunk], scores, strict=True)]
    return ordered


def _scores(
    by: Scoring, users: Sequence[UserRow], rows: Sequence[Mapping[str, CategoryRow]], found: Sequence[Sequence[Candidate]]
) -> np.ndarray:
    """(B, C) float32, C the most candidates of a user."""
    numbers, config = Numbers(by.positions), by.config
    events = [newest(user, mine, config.categories, config.length) for user, mine in zip(users, rows, strict=True)]
    histories = encode(users, events, numbers)
    asked = candidates([[(candidate.item, candidate.category) for candidate in mine] for mine in found], numbers)
    device = by.vectors.device
    scores = by.reranker(by.vectors, RerankBatch(tensors(histories, device), tensors(asked, device)))  # (B, C)
    rounded: np.ndarray = np.round(scores.cpu().numpy(), DIGITS)
    return rounded


def _best(found: Sequence[Candidate], scores: np.ndarray, limit: int) -> list[Candidate]:
    order = np.argsort(-scores, kind="stable")[: max(limit, 0)].tolist()
    return [msgspec.structs.replace(found[at], score=float(scores[at])) for at in order]
