"""The scan: four-bit codes of all items in faiss FastScan, an inverted list a cell. It chooses what is worth comparing exactly."""

from typing import Any, NamedTuple

import faiss as faiss_library
import numpy as np
from numpy.typing import NDArray

from models.codes.codebook import Codes, Floats
from models.index.cells import Cells
from models.index.ids import Numbers
from models.index.ranking import Ranking
from models.index.scalar_quantizer import LEVELS, Levels

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
