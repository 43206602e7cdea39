"""The order in which cells are scanned for a query.

Cells are taken in the order of the score that their best item may be expected to have: q.centroid, and more where a cell is wide
and full. By q.centroid alone, the many small categories of a catalogue, whose centroids are items almost, would come before the large
ones that hold what is wanted.
"""

import numpy as np
from numpy.typing import NDArray

from models.codes.codebook import Floats
from models.index.cells import Cells
from models.index.ids import Numbers

_HOPE = 0.7  # of the deviations that the best of a cell's items would lie above its mean if these were normal; tried from 0.3 to 1.4


class Ranking:
    """The order in which cells are scanned."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        self._hope = (_HOPE * cells.spread * np.sqrt(2 * np.log(np.maximum(np.diff(cells.starts), 1)))).astype(np.float32)  # (Z,)

    def first(self, queries: Floats, count: int, begin: int = 0, end: int | None = None) -> tuple[NDArray[np.int64], Floats]:
        """The first cells (R, count), of those from `begin` to `end`, for queries (R, d), and q.centroid of each; in no order."""
        scores = queries @ self._cells.centroids[begin:end].T
        if count >= scores.shape[1]:
            return np.broadcast_to(np.arange(begin, begin + scores.shape[1]), scores.shape), scores
        top = np.argpartition(-self._expected(queries, scores, begin, end), count - 1, axis=1)[:, :count]
        return begin + top, np.take_along_axis(scores, top, axis=1)

    def of_categories(self, queries: Floats, categories: Numbers, limits: NDArray[np.int64]) -> tuple[NDArray[np.int64], Floats]:
        """The first cells of categories (R,) with cells, at most limits (R,): lists (R, most), -1 where there are fewer, and q.centroid.

        A category has one limit in all its rows.
        """
        first, have = self._cells.first[categories], np.diff(self._cells.first)[categories]
        lists = np.full((len(queries), int(np.minimum(have, limits).max())), -1, dtype=np.int64)
        coarse = np.zeros(lists.shape, dtype=np.float32)
        order = np.argsort(categories, kind="stable")
        edges = np.flatnonzero(np.diff(categories[order], prepend=-1, append=-1))
        for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            rows = order[start:end]
            begin, count, limit = int(first[rows[0]]), int(have[rows[0]]), int(limits[rows[0]])
            width = min(count, limit)
            lists[rows, :width], coarse[rows, :width] = self.first(queries[rows], limit, begin, begin + count)
        return lists, coarse

    def places(self, query: Floats, begin: int = 0, end: int | None = None) -> NDArray[np.int64]:
        """For each of the cells from `begin` to `end` how many come before it for a query (d,)."""
        scores = query[None] @ self._cells.centroids[begin:end].T
        order = np.argsort(-self._expected(query[None], scores, begin, end)[0])
        places = np.empty(len(order), dtype=np.int64)
        places[order] = np.arange(len(order))
        return places

    def _expected(self, queries: Floats, scores: Floats, begin: int, end: int | None) -> Floats:
        return scores + np.sqrt(np.einsum("rd,rd->r", queries, queries))[:, None] * self._hope[begin:end]
