"""BM25 over words, by the library bm25s (Lucene's variant, k1 1.5, b 0.75): what every learned text score must beat."""

from collections.abc import Sequence

import bm25s
import numpy as np

from features.text import words


class Bm25:
    """An index of documents (n)."""

    def __init__(self, documents: Sequence[str]) -> None:
        self._count = len(documents)
        self._index = bm25s.BM25()
        self._index.index([words(document) for document in documents], show_progress=False)

    def scores(self, query: str) -> np.ndarray:
        """The score (n,) of each document, 0 where no word of the query is in it."""
        asked = words(query)
        return self._index.get_scores(asked) if asked else np.zeros(self._count, np.float32)
