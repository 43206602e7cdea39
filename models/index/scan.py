"""The scan: four-bit codes of all items in faiss FastScan, one inverted list per cell. It selects the items to compare exactly.

A scalar quantizer makes the codes: 16 levels per dimension describe where an item lies around the centre of its cell.
"""

from typing import Any, NamedTuple

import faiss as faiss_library
import numpy as np
from numpy.typing import NDArray

from models.codes.codebook import Codes, Floats
from models.index.cells import Cells, Ranking
from models.index.rows import Numbers

LEVELS = 16
TRAINING = 65_536
_ROUNDS = 12
_CHUNK = 1_024


class Levels:
    """`values` (d, 16) float32, ascending in each dimension. A code of d dimensions takes (d + 1) // 2 bytes, the first in the low bits."""

    def __init__(self, values: Floats) -> None:
        self.values = np.ascontiguousarray(values, dtype=np.float32)
        self._middles = np.ascontiguousarray(((self.values[:, 1:] + self.values[:, :-1]) / 2).T)  # (15, d)

    @classmethod
    def train(cls, residuals: Floats) -> "Levels":
        """Lloyd's algorithm in each dimension of residuals (n, d), from quantiles; the same residuals give the same levels."""
        ordered = np.sort(residuals, axis=0).astype(np.float64)  # (n, d)
        n, dim = ordered.shape
        values = np.zeros((dim, LEVELS))
        if n:
            values = ordered[((np.arange(LEVELS) + 0.5) * n / LEVELS).astype(np.int64)].T.copy()
            sums = np.concatenate([np.zeros((1, dim)), np.cumsum(ordered, axis=0)])
            for column in range(dim):
                for _ in range(_ROUNDS):
                    middles = (values[column, 1:] + values[column, :-1]) / 2
                    edges = np.concatenate(([0], np.searchsorted(ordered[:, column], middles, side="right"), [n]))
                    counts = np.diff(edges)
                    some = counts > 0
                    values[column, some] = np.diff(sums[edges, column])[some] / counts[some]
                    values[column].sort()
        return cls(values.astype(np.float32))

    def encode(self, residuals: Floats) -> Codes:
        """Codes (n, (d + 1) // 2) uint8 of residuals (n, d): the nearest level of each dimension."""
        n, dim = residuals.shape
        codes = np.zeros((n, dim + dim % 2), dtype=np.uint8)
        for start in range(0, n, _CHUNK):
            part, chunk = codes[start : start + _CHUNK, :dim], residuals[start : start + _CHUNK]
            for middle in self._middles:
                part += chunk > middle
        found: Codes = codes[:, ::2] | (codes[:, 1::2] << 4)
        return found

    def decode(self, codes: Codes) -> Floats:
        """The residuals (n, d) that codes stand for."""
        pairs = np.stack([codes & 15, codes >> 4], axis=2).reshape(len(codes), -1)[:, : len(self.values)]
        return self.values[np.arange(len(self.values)), pairs]


def sample(n: int, seed: int = 0) -> NDArray[np.int64]:
    """At most `TRAINING` of n rows, ascending, drawn by the seed."""
    if n <= TRAINING:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, TRAINING, replace=False))


_SPARE = 24


class Effort(NamedTuple):
    """How many cells are scanned, and how many items are compared exactly for each hit wanted."""

    cells: int
    compared: float

    def fetch(self, k: int) -> int:
        """How many of the best by code are compared exactly for k hits."""
        return max(k + _SPARE, int(k * self.compared))


class Efforts(NamedTuple):
    """What is spent on a search of a category that has more than one cell, and on one of the whole pool."""

    category: Effort
    pool: Effort


class Scan:
    """Codes (n, (d + 1) // 2) of the rows of a block by what is left of them around the centroid of their cell.

    Thread-safe: nothing is changed after it is made (`efforts` before anybody else sees it), and every parameter goes in with the call.
    """

    efforts: Efforts

    def __init__(self, cells: Cells, levels: Levels, codes: Codes, age: int) -> None:
        faiss: Any = faiss_library  # its stubs lack what is called here
        self.cells, self.levels, self.codes = cells, levels, codes
        self.age = age  # rows encoded since the levels were trained and the efforts tried
        self.ranking = Ranking(cells)
        dim, lists = cells.centroids.shape[1], len(cells.centroids)
        self._quantiser = faiss.IndexFlatIP(dim)  # asked for by the constructor, empty and never searched
        ivf = faiss.IndexIVFPQ(self._quantiser, dim, lists, dim, 4, faiss.METRIC_INNER_PRODUCT)
        ivf.by_residual = True
        faiss.copy_array_to_vector(np.ascontiguousarray(levels.values.reshape(dim * LEVELS)), ivf.pq.centroids)
        ivf.is_trained = True
        ivf.add_sa_codes(_listed(cells, codes, ivf.coarse_code_size()))
        self._fast = faiss.IndexIVFPQFastScan(ivf)

    def cells_of(self, categories: Numbers) -> NDArray[np.int64]:
        """How many cells categories (R,) have, 0 for unknown ones."""
        known = (categories >= 0) & (categories < len(self.cells.first) - 1)
        return np.where(known, np.diff(self.cells.first)[np.where(known, categories, 0)], 0)

    def search(self, queries: Floats, lists: NDArray[np.int64], coarse: Floats, fetch: int, bits: Codes | None) -> NDArray[np.int64]:
        """Rows (R, fetch) with the best codes for queries (R, d) in lists (R, P) with q.centroid `coarse`; -1 where there are no more.

        `bits`: a bit a row, the first in the low bits, set where the row may be found; None: all may.
        """
        faiss: Any = faiss_library
        queries, lists, coarse = np.ascontiguousarray(queries), np.ascontiguousarray(lists), np.ascontiguousarray(coarse)
        scores = np.empty((len(queries), fetch), dtype=np.float32)
        rows = np.empty((len(queries), fetch), dtype=np.int64)
        selector = None if bits is None else faiss.IDSelectorBitmap(bits)  # in a variable: it must outlive the search
        parameters = faiss.IVFSearchParameters(nprobe=lists.shape[1], sel=selector)
        pointers = [faiss.swig_ptr(array) for array in (queries, lists, coarse, scores, rows)]
        self._fast.search_preassigned_c(len(queries), pointers[0], fetch, *pointers[1:], False, parameters)
        return rows


def _listed(cells: Cells, codes: Codes, width: int) -> Codes:
    """Codes (n, width + m) with the number of their list before each, as faiss takes them all in one call.

    A call a list would hand Python's lock over thousands of times, and so would each search that runs beside it.
    """
    lists = cells.of_rows().astype("<i8").view(np.uint8).reshape(len(codes), 8)
    return np.concatenate([lists[:, :width], codes], axis=1)
