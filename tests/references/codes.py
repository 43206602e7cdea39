"""Slow, obvious versions of what codes are scored with, which the fast ones must equal. For tests; not for serving."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from models.codes.codebook import Codebook, Codes, Floats
from models.codes.modalities import slices


def weighted_score(query: Floats, coded: Sequence[str], weights: Mapping[str, float], row: Floats) -> float:
    """q . sum_j w_j k_j of a query (d,) and one item's vectors side by side (D,): papers, section 2.3."""
    total = np.zeros(len(query))
    for name, columns in slices(coded, len(query)).items():
        total += weights.get(name, 0.0) * row[columns].astype(np.float64)
    return float(query.astype(np.float64) @ total)


def scores(codebook: Codebook, queries: Floats, codes: Codes) -> NDArray[np.float64]:
    """Asymmetric inner products (B, n): the queries times the decoded vectors."""
    return queries.astype(np.float64) @ codebook.decode(codes).astype(np.float64).T
