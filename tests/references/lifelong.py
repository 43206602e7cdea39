"""A slow, obvious version of lifelong attention over codes, which the fast ones must equal. For tests; not for serving."""

import numpy as np

from models.codes.codebook import Codebook, Codes, Floats


def search(
    codebook: Codebook,
    query: Floats,
    codes: Codes,
    vectors: Floats,
    *,
    bias: Floats | None = None,
    mask: list[bool] | None = None,
    exact: Floats | None = None,
    first: int = 192,
    kept: int = 32,
) -> list[tuple[int, float]]:
    """Positions and scores of one history, codes (L, P) and vectors (L, d), for one query (D): best first, ties by position."""
    extra = np.zeros(len(codes)) if bias is None else bias.astype(np.float64)
    exact = query if exact is None else exact
    here = [position for position in range(len(codes)) if mask is None or mask[position]]
    rough = {position: _dot(query, codebook.decode(codes[position, None])[0]) + extra[position] for position in here}
    chosen = sorted(here, key=lambda position: (-rough[position], position))[:first]
    scores = {position: _dot(exact, vectors[position]) + extra[position] for position in chosen}
    best = sorted(chosen, key=lambda position: (-scores[position], position))[:kept]
    return [(position, scores[position]) for position in best]


def attention(scores: list[float]) -> list[float]:
    """The softmax of scores."""
    raised = [np.exp(score - max(scores)) for score in scores]
    return [value / sum(raised) for value in raised]


def _dot(left: Floats, right: Floats) -> float:
    return float(np.dot(left.astype(np.float64), right.astype(np.float64)))
