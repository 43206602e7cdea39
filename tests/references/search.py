"""Slow, obvious versions of the codebook and of searching, which the fast ones must equal. For tests; not for serving."""

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from models.codes.codebook import Codebook, Codes, Floats


def encode(codebook: Codebook, vectors: Floats) -> Codes:
    """Codes (n, P): for each part the centroid at the least distance, the lowest number among equals."""
    codes = np.empty((len(vectors), codebook.subspaces), dtype=np.uint8)
    for row, vector in enumerate(np.asarray(vectors, dtype=np.float32)):
        for p, part in enumerate(vector.reshape(codebook.subspaces, codebook.width)):
            found = [_distance(part, centroid) for centroid in codebook.centroids[p]]
            codes[row, p] = found.index(min(found))
    return codes


def score_codes(codebook: Codebook, query: Floats, codes: Codes) -> NDArray[np.float64]:
    """Asymmetric inner products (n,) of a query (d,) with codes (n, P): the query times the decoded vectors."""
    return np.array([float(np.dot(query.astype(np.float64), codebook.decode(code[None])[0])) for code in codes])


def search(
    items: Mapping[str, tuple[str, Floats]], vector: Floats, k: int, category: str | None = None, exclude: Collection[str] = ()
) -> list[tuple[str, float]]:
    """The k best of `items` (item -> category, vector) by inner product, ties by item id; of one category unless None."""
    scored = [
        (item, float(np.dot(vector.astype(np.float64), stored)))
        for item, (where, stored) in items.items()
        if item not in exclude and category in (None, where)
    ]
    return sorted(scored, key=lambda hit: (-hit[1], hit[0]))[:k]


def _distance(left: Floats, right: Floats) -> float:
    total = 0.0
    for a, b in zip(left.tolist(), right.tolist(), strict=True):
        total += (a - b) * (a - b)
    return total
