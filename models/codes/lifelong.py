"""Lifelong attention over codes (SEMINAR): which of a user's whole history a target looks at, by table look-up.

A position of a history is an item. Its score is that of its PQ code: P entries of a table made once a target. The best
`first` positions by that are scored again by the items' vectors, and the best `kept` of these are what attention reads.

A query is what positions are compared with: for (W_Q t).(W_K s_l) it is W_K^T W_Q t, computed once a target and divided by
sqrt(d) where the attention is, so that neither history nor codes are ever projected. A trained model needs no codes of its own.
"""

from typing import Any, NamedTuple, Protocol

import faiss as faiss_library
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from models.codes.codebook import MAX_CENTROIDS, Codebook, Codes, Floats, taken

FIRST = 192  # positions that codes choose; of the exact best 32 of 10,000 these hold .98, 128 hold .94 (bench/lifelong.py)
KEPT = 32  # of these, positions that vectors choose

Rows = NDArray[np.int64]
_FAR = np.float32(-np.inf)


class CodedItems(Protocol):
    """Codes (n, P) and vectors (n, d) of items by number: a `View` of the index, or a `CodeTable`."""

    def codes(self, numbers: NDArray[np.integer]) -> Codes:
        """Codes (n, P)."""
        ...

    def vectors(self, numbers: NDArray[np.integer]) -> Floats:
        """Vectors (n, d)."""
        ...


class CodeTable:
    """Items as plain arrays: codes (n, P) uint8 and vectors (n, d) float32, kept and not copied if they are contiguous."""

    def __init__(self, codes: Codes, vectors: Floats) -> None:
        if len(codes) != len(vectors):
            raise ValueError(f"{len(codes)} codes, {len(vectors)} vectors")
        self._codes = np.ascontiguousarray(codes, dtype=np.uint8)
        self._vectors = np.ascontiguousarray(vectors, dtype=np.float32)

    def codes(self, numbers: NDArray[np.integer]) -> Codes:
        """Codes (n, P) of items by number."""
        return taken(self._codes, numbers)

    def vectors(self, numbers: NDArray[np.integer]) -> Floats:
        """Vectors (n, d) of items by number."""
        return self._vectors.take(numbers, 0)


class CodedHistories(NamedTuple):
    """Histories of B users, one after another: user b has the positions `offsets[b]` to `offsets[b + 1]`.

    A number below 0 (an item that is unknown or gone) and a False of the mask are positions that are not there.
    """

    numbers: NDArray[np.integer]  # (total,) numbers of the items
    offsets: NDArray[np.integer]  # (B + 1,) from 0 to total, ascending
    bias: Floats | None = None  # (total,) added to both scores of a position: ln n of folded events, time
    mask: NDArray[np.bool_] | None = None  # (total,)
    codes: Codes | None = None  # (total, P) where the caller has them; else those of the items


class LifelongHits(NamedTuple):
    """For each target the best positions, best first, ties to the earlier one. Positions count from the start of their history."""

    positions: Rows  # (B, T, kept), -1 where there are no more
    scores: Floats  # (B, T, kept) query . vector + bias, -inf where there are no more

    def weights(self) -> Floats:
        """The softmax of the scores (B, T, kept): what attention weighs the positions with. All 0 for an empty history."""
        here = self.positions >= 0
        top = self.scores.max(axis=-1, keepdims=True, initial=_FAR)
        raised = np.exp(np.where(here, self.scores - np.where(here.any(-1, keepdims=True), top, 0), _FAR))
        found: Floats = raised / np.maximum(raised.sum(axis=-1, keepdims=True), np.finfo(np.float32).tiny)
        return found


class LifelongSearch:
    """Searches histories under one codebook. Thread-safe: nothing is changed after it is made.

    Codes choose by float32 sums whose last bit may differ between machines, so which of two positions with all but equal
    codes' scores comes into the first may differ too; equal codes are ordered by position.
    """

    def __init__(self, codebook: Codebook, first: int = FIRST, kept: int = KEPT) -> None:
        if not 1 <= kept <= first:
            raise ValueError(f"kept must be 1 to first, got {kept} and {first}")
        self.codebook, self.first, self.kept = codebook, first, kept
        faiss: Any = faiss_library  # its stubs lack what is called here
        self._quantiser = faiss.ProductQuantizer(codebook.dim, codebook.subspaces, 8)
        centroids = np.zeros((codebook.subspaces, MAX_CENTROIDS, codebook.width), dtype=np.float32)
        centroids[:, : codebook.size] = codebook.centroids
        faiss.copy_array_to_vector(centroids.ravel(), self._quantiser.centroids)
        self._starts = torch.arange(codebook.subspaces, dtype=torch.int32) * codebook.size  # (P,) of each table among all

    def search(self, queries: Floats, items: CodedItems, histories: CodedHistories, exact: Floats | None = None) -> LifelongHits:
        """The best positions of B histories for T targets each.

        Args:
            queries: (B, T, D), or (B, D) for one target, in the space of the codebook.
            items: where codes and vectors come from; codes must be those of this codebook's generation.
            histories: of the B users.
            exact: (B, T, d) or (B, d), what vectors are compared with where they live in another space than the codes
                (D: modalities side by side, weighted; d: fused). None: `queries`.

        Raises:
            ValueError: shapes that do not fit, or numbers that are not finite.
        """
        queries, exact = _checked(queries, exact, histories, self.codebook.dim)
        users, targets = queries.shape[:2]
        chosen = np.full((users, targets, self.first), -1, dtype=np.int64)
        for user, first, last in zip(range(users), histories.offsets[:-1].tolist(), histories.offsets[1:].tolist(), strict=True):
            self._choose(queries[user], items, histories, first, last, chosen[user])
        return self._rerank(exact, items, histories, chosen)

    def _choose(self, queries: Floats, items: CodedItems, histories: CodedHistories, first: int, last: int, chosen: Rows) -> None:
        """The best `first` positions of one history for T queries (T, D) into `chosen` (T, first), ascending."""
        numbers = histories.numbers[first:last]
        here = numbers >= 0
        if histories.mask is not None:
            here = here & histories.mask[first:last]
        kept = None if here.all() else np.flatnonzero(here)
        count = len(numbers) if kept is None else len(kept)
        if count <= self.first:
            chosen[:, :count] = np.arange(count) if kept is None else kept
            return
        numbers = numbers if kept is None else numbers[kept]
        if histories.codes is None:
            codes = items.codes(numbers)
        else:
            given = histories.codes[first:last]
            codes = np.ascontiguousarray(given if kept is None else given[kept])
        bias = None if histories.bias is None else histories.bias[first:last]
        best = self._best(queries, codes, bias if bias is None or kept is None else bias[kept])
        chosen[:] = best if kept is None else kept[best]

    def _best(self, queries: Floats, codes: Codes, bias: Floats | None) -> Rows:
        """Rows (T, first), ascending, of the codes (n, P) that score best, n being more than `first`."""
        if len(queries) == 1 and bias is None:
            rows = self._scanned(queries, codes)
            if rows is not None:
                return rows[None]
        scores = self.scores(queries, codes)
        if bias is not None:
            scores += bias
        return np.stack([best(row, self.first) for row in scores])

    def _scanned(self, query: Floats, codes: Codes) -> Rows | None:
        """As `_best` for one query (1, D) in one pass of faiss; None where the last one is a tie, which a heap does not order."""
        faiss: Any = faiss_library
        scores = np.empty((1, self.first + 1), dtype=np.float32)
        rows = np.empty((1, self.first + 1), dtype=np.int64)
        heap = faiss.float_minheap_array_t()
        heap.nh, heap.k = scores.shape
        heap.val, heap.ids = faiss.swig_ptr(scores), faiss.swig_ptr(rows)
        self._quantiser.search_ip(faiss.swig_ptr(query), 1, faiss.swig_ptr(codes), len(codes), heap, True)
        return np.sort(rows[0, :-1]) if scores[0, -2] > scores[0, -1] else None

    def scores(self, queries: Floats, codes: Codes) -> Floats:
        """The scores (T, n) of codes (n, P) for queries (T, D): for each code the sum of its P entries of the tables."""
        tables = torch.from_numpy(self.codebook.tables(queries).reshape(len(queries), -1).T.copy())  # (P C, T)
        entries = torch.from_numpy(codes).to(torch.int32).add_(self._starts)  # (n, P)
        return F.embedding_bag(entries, tables, mode="sum").numpy().T  # (T, n)

    def _rerank(self, exact: Floats, items: CodedItems, histories: CodedHistories, chosen: Rows) -> LifelongHits:
        """The best `kept` of the chosen positions (B, T, first), ascending or -1, by vectors."""
        users, targets, width = chosen.shape
        kept = min(self.kept, width)
        absent = chosen < 0
        found = LifelongHits(np.full((users, targets, kept), -1, np.int64), np.full((users, targets, kept), _FAR, np.float32))
        if absent.all():
            return found
        at = np.minimum(np.where(absent, 0, chosen) + histories.offsets[:-1, None, None], len(histories.numbers) - 1)  # (B, T, first)
        vectors = items.vectors(np.maximum(histories.numbers[at], 0).ravel())  # (B T first, d)
        scores = np.matmul(vectors.reshape(users * targets, width, -1), exact.reshape(users * targets, -1, 1)).reshape(at.shape)
        if histories.bias is not None:
            scores += histories.bias[at]
        scores[absent] = _FAR
        order = np.argsort(-scores, axis=-1, kind="stable")[..., :kept]  # stable: ties keep the order of their positions
        found.positions[:] = np.take_along_axis(chosen, order, -1)
        found.scores[:] = np.take_along_axis(scores, order, -1)
        return found


def best(scores: Floats, count: int) -> Rows:
    """Where the `count` best of scores (n,) are, ascending; ties go to the lower. All where there are no more."""
    if len(scores) <= count:
        return np.arange(len(scores))
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    rows = np.flatnonzero(scores >= least)
    if len(rows) == count:
        return rows
    above = scores[rows] > least
    ties = np.flatnonzero(~above)[: count - int(above.sum())]
    above[ties] = True
    found: Rows = rows[above]
    return found


def _checked(queries: Floats, exact: Floats | None, histories: CodedHistories, dim: int) -> tuple[Floats, Floats]:
    """Queries (B, T, D) and what vectors are compared with (B, T, d), contiguous."""
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    exact = queries if exact is None else np.ascontiguousarray(exact, dtype=np.float32)
    if queries.ndim == 2 and exact.ndim == 2:
        queries, exact = queries[:, None], exact[:, None]
    if queries.ndim != 3 or exact.ndim != 3 or queries.shape[:2] != exact.shape[:2] or queries.shape[2] != dim or not queries.shape[1]:
        raise ValueError(f"queries must be (B, T, {dim}) or (B, {dim}), got {queries.shape} and {exact.shape}")
    if not (np.isfinite(queries).all() and np.isfinite(exact).all()):
        raise ValueError("queries must be finite")
    numbers, offsets, total = histories.numbers, histories.offsets, len(histories.numbers)
    if offsets.shape != (len(queries) + 1,) or offsets[0] != 0 or offsets[-1] != total or (np.diff(offsets) < 0).any():
        raise ValueError(f"offsets must ascend from 0 to {total} for {len(queries)} users, got {offsets.shape}")
    for name, array in (("bias", histories.bias), ("mask", histories.mask), ("codes", histories.codes)):
        if array is not None and len(array) != total:
            raise ValueError(f"{len(array)} of {name} for {total} positions")
    if numbers.ndim != 1 or (histories.bias is not None and not np.isfinite(histories.bias).all()):
        raise ValueError("numbers must be (total,), and the bias finite")
    return queries, exact


__all__ = ["FIRST", "KEPT", "CodeTable", "CodedHistories", "CodedItems", "LifelongHits", "LifelongSearch", "best"]
