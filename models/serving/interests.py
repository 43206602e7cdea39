"""A user's stored interests: which of them still hold after new events, and how they are packed."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from features.outcomes import InterestsRow
from models.codes.codebook import Floats
from models.serving.recommender import Recommender


def packed(categories: Sequence[str], long: Floats, short: Floats, generation: str) -> InterestsRow:
    """The row of K long interests (K, d) and the short interest (d,), whose category is the empty one."""
    vectors = np.concatenate([long.reshape(-1, len(short)), short[None]]).astype("<f4", copy=False)  # (K+1, d)
    return InterestsRow(categories=[*categories, ""], vectors=vectors.tobytes(), dim=len(short), generation=generation)


def without(row: InterestsRow, touched: Collection[str]) -> InterestsRow | None:
    """The interests without those of the touched categories, which nobody computed; None where nothing is to be removed."""
    kept = [n for n, category in enumerate(row.categories) if category not in touched]
    if len(kept) == len(row.categories):
        return None
    vectors = np.frombuffer(row.vectors, "<f4").reshape(len(row.categories), row.dim)[kept]
    return InterestsRow(categories=[row.categories[n] for n in kept], vectors=vectors.tobytes(), dim=row.dim, generation=row.generation)


def usable(row: InterestsRow, touched: Collection[str], recommender: Recommender) -> Mapping[str, Floats]:
    """Long interests (d,) of the recommender's generation whose category is not touched, by category."""
    if row.generation != recommender.generation or row.dim != recommender.dim:
        return {}
    vectors = np.frombuffer(row.vectors, "<f4").reshape(len(row.categories), row.dim)
    return {category: vector for category, vector in zip(row.categories, vectors, strict=True) if category and category not in touched}
