"""Cells: a large category is cut into pieces of about a thousand items that lie near each other, a small one is one cell."""

from typing import NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from models.codes.codebook import Floats
from models.index.ids import Numbers

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
    """Categories (N,) to be cut anew: new ones, much grown or shrunk ones, and those of which more than half was replaced."""
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
