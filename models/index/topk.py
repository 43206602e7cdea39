"""The k best of scores, ties by item id: the one place where an order of hits is made."""

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from models.codes.codebook import Floats
from models.index.changes import Found
from models.index.rows import Ids, Numbers

FAR = np.float32(-np.inf)


def best(scores: Floats, numbers: Numbers, k: int, ids: Ids) -> Found:
    """The k best columns of each row of scores (R, m); -inf is no hit. `numbers` (R, m) says which items they are."""
    rows, width = scores.shape
    order = np.argsort(-scores, axis=1)[:, : k + 1]
    values = along(scores, order)
    chosen = along(numbers, order)
    chosen[values == FAR] = -1
    found = Found.nothing(rows, k) if width < k else Found(chosen[:, :k].copy(), values[:, :k].copy())
    if width < k:
        found.numbers[:, :width], found.scores[:, :width] = chosen, values
    tied = ((values[:, 1:] == values[:, :-1]) & (values[:, 1:] > FAR)).any(axis=1)
    for row in np.flatnonzero(tied).tolist():
        least = values[row, min(k, width) - 1]
        among = np.flatnonzero((scores[row] >= least) & (scores[row] > FAR))
        _settle(found, row, scores[row, among], numbers[row, among], ids)
    return found


def _settle(found: Found, row: int, scores: Floats, numbers: Numbers, ids: Ids) -> None:
    """Order one row's hits by score and then by name."""
    hits = sorted(zip((-scores).tolist(), ids.names(numbers), range(len(numbers)), strict=True))
    order = [place for _, _, place in hits[: found.numbers.shape[1]]]
    found.numbers[row, : len(order)] = numbers[order]
    found.scores[row, : len(order)] = scores[order]


def narrowed(scores: Floats, k: int) -> tuple[Floats, NDArray[np.int64]]:
    """Of scores (R, m) those of at least the k-th of their row, and their columns: (R, as many as the fullest row has), -inf after them."""
    if scores.shape[1] <= k:
        return scores, np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    columns = packed((scores >= np.partition(scores, -k, axis=1)[:, -k, None]) & (scores > FAR))
    return np.where(columns < 0, FAR, along(scores, columns)), columns


def along(array: NDArray[Any], columns: NDArray[np.int64]) -> NDArray[Any]:
    """Of each row of an array (R, m) some columns (R, k); of negative ones anything."""
    rows, width = array.shape
    found: NDArray[Any] = array.ravel().take(columns + (np.arange(rows) * width)[:, None], mode="wrap")
    return found


def packed(keep: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The columns that a mask (R, m) keeps, at the left of (R, as many as the fullest row has), -1 after them."""
    rows, columns = np.divmod(np.flatnonzero(keep), keep.shape[1])
    counts = np.bincount(rows, minlength=len(keep))
    found = np.full((len(keep), int(counts.max(initial=0))), -1, dtype=np.int64)
    found[rows, np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)] = columns
    return found


def products(queries: Floats, vectors: Floats, chosen: NDArray[np.int64]) -> Floats:
    """Inner products (R, m) of queries (R, d) with the rows `chosen` (R, m) of vectors; -inf where a row is negative."""
    library: Any = faiss
    scores = np.empty(chosen.shape, dtype=np.float32)
    if chosen.size:
        chosen = np.ascontiguousarray(chosen)
        pointers = [library.swig_ptr(array) for array in (scores, queries, vectors, chosen)]
        library.fvec_inner_products_by_idx(*pointers, queries.shape[1], *chosen.shape)
    return scores
