"""Blocks: items ordered by category, never changed once made, so that any thread may search them without a lock.

A category is a contiguous range of rows. A short range is searched exactly; a long one by its PQ codes in faiss, whose
inverted lists are the categories, followed by an exact re-rank of what that finds.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import faiss as faiss_library
import numpy as np
from numpy.typing import NDArray

from models.codebook import MAX_CENTROIDS, Codebook, Codes, Floats

Hit = tuple[str, float]  # item, inner product
Rows = NDArray[np.int64]

EXACT = 200_000  # up to so many items a range is searched exactly (131,072 x 64: exact 1.4 ms, codes 1.8 ms, fewer: exact wins)
EXACT_ROWS = 4  # from so many queries of one range on, exact wins at any size (400,000 x 64, 8 queries: 1.6 against 3.9 ms each)
RERANK = 16  # vectors compared exactly for each hit wanted
MIN_FETCH = 512
_SCORES = 1 << 24  # scores held at once, 64 MiB

NO_ROWS: Rows = np.empty(0, dtype=np.int64)
_FAR = np.float32(-np.inf)


class Hidden(NamedTuple):
    """Rows of a block that a search must not return: `dead` (ascending) for all queries, `excluded[r]` for query r."""

    dead: Rows
    excluded: Sequence[Rows]


class Block:
    """Items with category, vector (n, d) and code (n, P), ordered by category. Arrays are kept, not copied again."""

    def __init__(self, items: Sequence[str], categories: Sequence[str], vectors: Floats, codes: Codes) -> None:
        self.numbers: dict[str, int] = {}
        lists = np.fromiter((self.numbers.setdefault(c, len(self.numbers)) for c in categories), np.int64, len(categories))
        order = np.argsort(lists, kind="stable")
        self.labels = list(self.numbers)
        self.offsets = np.concatenate(([0], np.cumsum(np.bincount(lists, minlength=len(self.labels))))).astype(np.int64)
        self.items = np.empty(len(items), dtype=object)
        self.items[:] = items
        self.items = self.items[order]
        self.vectors = np.ascontiguousarray(vectors[order])
        self.codes = np.ascontiguousarray(codes[order])
        self.rows: dict[str, int] = {}
        for start in range(0, len(order), 65_536):  # in pieces: other threads may run between them
            piece = self.items[start : start + 65_536].tolist()
            self.rows.update(zip(piece, range(start, start + len(piece)), strict=True))

    def __len__(self) -> int:
        return len(self.items)

    def category(self, row: int) -> str:
        """The category of the item in a row."""
        return self.labels[int(np.searchsorted(self.offsets, row, side="right")) - 1]

    def categories(self, keep: NDArray[np.bool_]) -> list[str]:
        """The categories of the rows of a mask (n,), in the order of the rows."""
        lists = np.repeat(np.arange(len(self.labels)), np.diff(self.offsets))
        return [self.labels[number] for number in lists[keep].tolist()]

    def bounds(self, category: str) -> tuple[int, int]:
        """First row and row after the last of a category; (0, 0) for an unknown one."""
        number = self.numbers.get(category)
        return (0, 0) if number is None else (int(self.offsets[number]), int(self.offsets[number + 1]))

    def find(self, items: Sequence[str]) -> Rows:
        """Rows of those of the items that are in the block, ascending."""
        found = [row for row in map(self.rows.get, items) if row is not None]
        return np.array(sorted(found), dtype=np.int64)

    def search(self, vectors: Floats, k: int, hidden: Hidden, bounds: tuple[int, int] | None = None) -> list[list[Hit]]:
        """The k best rows of a range (the whole block unless given) for each of vectors (R, d), exactly."""
        first, last = bounds or (0, len(self))
        if first == last:
            return [[] for _ in vectors]
        dead = within(hidden.dead, first, last) - first
        step = max(1, _SCORES // (last - first))
        found = []
        for start in range(0, len(vectors), step):
            scores = vectors[start : start + step] @ self.vectors[first:last].T
            scores[:, dead] = _FAR
            for row, excluded in zip(scores, hidden.excluded[start : start + step], strict=True):
                row[within(excluded, first, last) - first] = _FAR
                found.append(self._best(row, None, first, k))
        return found

    def rerank(self, vector: Floats, rows: Rows, k: int, excluded: Rows) -> list[Hit]:
        """The k best of some rows for one vector (d,), exactly; negative rows are none."""
        rows = rows[rows >= 0]
        if len(excluded):
            rows = rows[~np.isin(rows, excluded)]
        return self._best(self.vectors[rows] @ vector, rows, 0, k) if len(rows) else []

    def _best(self, scores: Floats, rows: Rows | None, first: int, k: int) -> list[Hit]:
        """The k best by (score, item id), of rows or of those from `first` on; -inf is no hit."""
        least = np.partition(scores, len(scores) - k)[len(scores) - k] if len(scores) > k else _FAR
        kept = np.flatnonzero((scores >= least) & (scores > _FAR))
        kept = kept[np.argsort(-scores[kept])]
        values = scores[kept]
        names = self.items[kept + first if rows is None else rows[kept]]
        hits = list(zip(names.tolist(), values.tolist(), strict=True))
        if (values[1:] == values[:-1]).any():
            hits.sort(key=best_first)
        return hits[:k]


class Scan:
    """The codes of a block in faiss: an inverted list a category, no residuals, assigned by us and never by faiss.

    Thread-safe: nothing is changed after it is made, and every parameter goes in with the call.
    """

    def __init__(self, codebook: Codebook, block: Block) -> None:
        faiss: Any = faiss_library  # its stubs lack what is called here
        self._quantiser = faiss.IndexFlatIP(codebook.dim)  # asked for by the constructor, empty and never searched
        lists = len(block.labels)
        self._ivf = faiss.IndexIVFPQ(self._quantiser, codebook.dim, lists, codebook.subspaces, 8, faiss.METRIC_INNER_PRODUCT)
        self._ivf.by_residual = False
        centroids = np.zeros((codebook.subspaces, MAX_CENTROIDS, codebook.width), dtype=np.float32)
        centroids[:, : codebook.size] = codebook.centroids
        faiss.copy_array_to_vector(centroids.ravel(), self._ivf.pq.centroids)
        self._ivf.is_trained = True
        ids = np.arange(len(block), dtype=np.int64)  # in a variable: faiss keeps no reference while it copies
        for number in range(lists):
            first, last = block.offsets[number], block.offsets[number + 1]
            part, codes = ids[first:last], block.codes[first:last]
            self._ivf.invlists.add_entries(number, len(part), faiss.swig_ptr(part), faiss.swig_ptr(codes))
        self._ivf.ntotal = len(block)
        self.all_lists = np.arange(lists, dtype=np.int64)

    def search(self, vectors: Floats, lists: Rows, fetch: int, dead: Rows) -> Rows:
        """Rows (R, fetch) with the best codes for vectors (R, d) in lists (R, n) of row r; -1 where there are no more."""
        faiss: Any = faiss_library
        vectors, lists = np.ascontiguousarray(vectors), np.ascontiguousarray(lists)
        scores = np.empty((len(vectors), fetch), dtype=np.float32)
        rows = np.empty((len(vectors), fetch), dtype=np.int64)
        coarse = np.zeros(lists.shape, dtype=np.float32)
        parameters = faiss.IVFPQSearchParameters(nprobe=lists.shape[1])
        if len(dead):
            alive = np.ones(self._ivf.ntotal, dtype=np.bool_)
            alive[dead] = False
            bits = np.packbits(alive, bitorder="little")
            selector = faiss.IDSelectorBitmap(bits)  # both in variables: they must outlive the search
            parameters = faiss.IVFPQSearchParameters(nprobe=lists.shape[1], sel=selector)
        pointers = [faiss.swig_ptr(array) for array in (vectors, lists, coarse, scores, rows)]
        self._ivf.search_preassigned_c(len(vectors), pointers[0], fetch, *pointers[1:], False, parameters)
        return rows


def best_first(hit: Hit) -> tuple[float, str]:
    """The order of hits: best score first, ties by item id."""
    return -hit[1], hit[0]


def within(rows: Rows, first: int, last: int) -> Rows:
    """Those of ascending rows that lie in a range."""
    if not len(rows):
        return rows
    low, high = np.searchsorted(rows, (first, last))
    return rows[low:high]
