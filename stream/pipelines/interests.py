"""Which of a user's stored interests still hold after a request: those whose category it does not name."""

from collections.abc import Collection

import numpy as np

from features.outcomes import InterestsRow
from models.serving.recommender import Recommender


def without(row: InterestsRow, touched: Collection[str]) -> InterestsRow | None:
    """The interests less those of the touched categories, which nobody computed; None where nothing is to be removed."""
    kept = [n for n, category in enumerate(row.categories) if category not in touched]
    if len(kept) == len(row.categories):
        return None
    vectors = np.frombuffer(row.vectors, "<f4").reshape(len(row.categories), row.dim)[kept]
    return InterestsRow(categories=[row.categories[n] for n in kept], vectors=vectors.tobytes(), dim=row.dim, generation=row.generation)


def usable(row: InterestsRow, touched: Collection[str], recommender: Recommender) -> dict[str, np.ndarray]:
    """Long interests (d,) of the recommender's generation that no event of the request touched, by category."""
    if row.generation != recommender.generation or row.dim != recommender.dim:
        return {}
    vectors = np.frombuffer(row.vectors, "<f4").reshape(len(row.categories), row.dim)
    return {category: vector for category, vector in zip(row.categories, vectors, strict=True) if category and category not in touched}
