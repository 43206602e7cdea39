"""Cells: a large category is cut into pieces of about a thousand similar items, a small one is one cell.

With the thresholds of an index, the memory an item takes, and the order in which the cells of a category are searched for a query.
"""

from typing import NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from models.codes.codebook import Floats
from models.index.rows import Numbers


class Sizes(NamedTuple):
    """Thresholds. The defaults are those measured for a million items of 64 dimensions (docs/adr/0009-cells-and-fastscan.md)."""

    exact: int = 25_000  # up to so many items everything is compared exactly
    cell: int = 1_024  # items a cell of a category aims at; a category of one cell is compared exactly
    recall: float = 0.975  # share of the true hits that a trial of the scan must find; above 1: all cells are scanned
    segment: int = 4_096  # changed items from which on a compaction is due
    overdue: int = 4  # at so many times that, `apply` compacts itself


def bytes_per_item(
    dim: int, subspaces: int, generations: int = 1, parts: int = 0, exact: bool = False, cell: int = 1_024
) -> dict[str, float]:
    """Bytes that an item takes in the arrays of an index, by array, for vectors of `dim` dimensions, codes of `subspaces` bytes.

    A name costs a Python string (49 bytes and its characters; here 12), a place in the array of names with an eighth to spare, and an
    entry with its integer in the dictionary (at worst two thirds empty). While a compaction runs, all arrays but names are there twice.
    """
    nibbles = (dim + 1) // 2
    arrays = {
        "vectors": 4.0 * dim,
        "parts": 4.0 * parts,
        "codes": float(subspaces * generations),
        "numbers, categories, places": 12.0,
        "prices, available, alive": 6.125,
        "names": 49 + 12 + 9 + 32 + 80.0,
    }
    if not exact:
        arrays["scan codes, ordered and packed"] = 2.0 * nibbles
        arrays["scan rows"] = 8.0
        arrays["centroids"] = 2 * 4.0 * dim / cell
    return arrays


Counts = NDArray[np.int64]

_ROUNDS = 6
_POINTS = 128  # training points a cell


class Cells(NamedTuple):
    """Cells ordered by category: category c has cells first[c] up to first[c + 1], cell z has rows starts[z] up to starts[z + 1]."""

    first: Counts  # (N + 1,)
    starts: Counts  # (Z + 1,)
    centroids: Floats  # (Z, d)
    spread: Floats  # (Z,) how far its items lay around the centroid when it was cut, a standard deviation of one dimension
    cut: Counts  # (N,) items of a category when it was cut
    joined: Counts  # (N,) items that were put into its cells since

    @classmethod
    def none(cls, dim: int) -> "Cells":
        """No category, no cell."""
        zero = np.zeros(0, dtype=np.int64)
        none = np.zeros(1, dtype=np.int64)
        return cls(none, none, np.empty((0, dim), dtype=np.float32), np.empty(0, dtype=np.float32), zero, zero)

    def of_rows(self) -> NDArray[np.int64]:
        """The cell of each row (n,)."""
        return np.repeat(np.arange(len(self.centroids)), np.diff(self.starts))

    def widened(self, categories: int) -> "Cells":
        """The same cells with places for more categories, which have none."""
        more = categories - len(self.cut)
        first = np.concatenate([self.first, np.full(more, self.first[-1])])
        return self._replace(first=first, cut=np.pad(self.cut, (0, more)), joined=np.pad(self.joined, (0, more)))


def wanted(counts: Counts, cell: int) -> Counts:
    """How many cells categories of so many items should have."""
    return np.where(counts > 0, np.maximum(1, np.rint(counts / cell)), 0).astype(np.int64)


def outgrown(cells: Cells, counts: Counts, joined: Counts, cell: int) -> NDArray[np.bool_]:
    """Categories (N,) whose cells must be rebuilt: new, much grown or shrunk, or with more than half of the items replaced."""
    had, target = np.diff(cells.first), wanted(counts, cell)
    grown = (2 * target > 3 * had) | (2 * target < had)
    return (counts > 0) & (grown | (2 * joined > cells.cut))


def cut(vectors: Floats, pieces: int) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Centroids (pieces, d) and spread (pieces,) of vectors (n, d), and the piece of each (n,)."""
    if pieces == 1:
        centroids, piece = vectors.mean(axis=0, keepdims=True), np.zeros(len(vectors), dtype=np.int64)
    else:
        kmeans = faiss.Kmeans(
            vectors.shape[1], pieces, niter=_ROUNDS, max_points_per_centroid=_POINTS, min_points_per_centroid=1, seed=0, verbose=False
        )
        kmeans.train(vectors)
        centroids = np.asarray(kmeans.centroids, dtype=np.float32)
        piece = nearest(vectors, centroids)
    squares = np.bincount(piece, np.square(vectors - centroids[piece]).sum(axis=1), minlength=pieces)
    spread = np.sqrt(squares / np.maximum(np.bincount(piece, minlength=pieces), 1) / vectors.shape[1])
    return centroids, spread.astype(np.float32), piece


def nearest(vectors: Floats, centroids: Floats) -> NDArray[np.int64]:
    """The nearest centroid (n,) of each of vectors (n, d)."""
    index = faiss.IndexFlatL2(centroids.shape[1])
    index.add(centroids)
    return index.search(vectors, 1)[1][:, 0]


def joining(cells: Cells, categories: Numbers, vectors: Floats) -> NDArray[np.int64]:
    """The cell (n,) for new items of categories that have cells: the nearest of their category."""
    found = cells.first[categories]
    for category in np.unique(categories[np.diff(cells.first)[categories] > 1]).tolist():
        rows = np.flatnonzero(categories == category)
        first, last = cells.first[category], cells.first[category + 1]
        found[rows] = first + nearest(vectors[rows], cells.centroids[first:last])
    return found


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
        found: Floats = scores + np.sqrt(np.einsum("rd,rd->r", queries, queries))[:, None] * self._hope[begin:end]
        return found
