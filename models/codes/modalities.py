"""What an item's code stands for: its fused vector, the vectors of its modalities, or several of them side by side.

Vectors side by side (n, D) have one codebook with sub-spaces of their own: it is one codebook a modality in one array.
A fused query q scores the weighted sum of parts, score = q . sum_j w_j k_j (papers, section 2.3). Its tables are those of
the row of blocks (w_1 q, w_2 q, ...): `codebook.tables(weighted(queries, coded, weights))`. A part that an item lacks is
zero, is coded as zero (models.codes.lloyd) and scores zero.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from models.codes.nearest import Floats
from models.errors import UnknownModalityError

FUSED = "fused"
MODALITIES = ("id", "text", "image", "attributes")  # M: those of SEMINAR's search unit


def choose(coded: Sequence[str]) -> tuple[str, ...]:
    """The choice, checked.

    Raises:
        UnknownModalityError: it is none.
    """
    known = (FUSED, *MODALITIES)
    if not coded or len(set(coded)) != len(coded) or not set(coded) <= set(known):
        raise UnknownModalityError(f"codes stand for some of {', '.join(known)}, each once, got {', '.join(coded) or 'none'}")
    return tuple(coded)


def only_fused(coded: Sequence[str]) -> bool:
    """Whether codes stand for the fused vector and nothing else, so that no parts need be kept beside it."""
    return tuple(coded) == (FUSED,)


def slices(coded: Sequence[str], dim: int) -> dict[str, slice]:
    """Which columns of (n, D) are those of each vector of `dim` dimensions; D is len(coded) * dim."""
    return {name: slice(at * dim, (at + 1) * dim) for at, name in enumerate(choose(coded))}


def arrange(coded: Sequence[str], vectors: Floats, parts: Floats) -> Floats:
    """The chosen vectors side by side (n, D), of fused vectors (n, d) and the parts of all modalities (n, M, d)."""
    blocks = [vectors if name == FUSED else parts[:, MODALITIES.index(name)] for name in choose(coded)]
    return np.ascontiguousarray(np.concatenate(blocks, axis=1), dtype=np.float32)


def weighted(queries: Floats, coded: Sequence[str], weights: Mapping[str, float]) -> Floats:
    """Queries (B, d) as rows of blocks (B, D), each scaled by the weight of its vector; one without a weight counts nothing."""
    queries = np.asarray(queries, dtype=np.float32)
    scales = np.array([weights.get(name, 0.0) for name in choose(coded)], dtype=np.float32)  # (J,)
    return np.ascontiguousarray((scales[None, :, None] * queries[:, None, :]).reshape(len(queries), -1))
