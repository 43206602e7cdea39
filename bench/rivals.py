"""The ways to search that the index is compared with, on the same items: exact, IVFPQ with learned lists, and a graph.

Each answers `categories` (B, K, 100) and `pool` (B, 100) with numbers of items, -1 for none. All hold the items ordered by category,
so that a category is a range of their ids: the cheapest filter there is. What codes or graphs find is re-ranked by exact vectors.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import faiss
import numpy as np

from bench.items import Items, Users

HITS = 100
Found = np.ndarray


class Effort(NamedTuple):
    """How hard a way tries: lists probed or candidates kept, and how many are taken for re-ranking or filtering."""

    breadth: int
    fetch: int


class Way(Protocol):
    """One way to search a set of items."""

    name: str
    built_s: float
    bytes_an_item: float

    def categories(self, users: Users) -> Found: ...
    def pool(self, users: Users) -> Found: ...


class Ordered:
    """Items by category, as all rivals hold them."""

    def __init__(self, items: Items) -> None:
        self.order, self.offsets = items.order, items.offsets
        self.vectors = np.ascontiguousarray(items.vectors[items.order])
        self.count, self.dim = self.vectors.shape

    def numbers(self, rows: np.ndarray) -> Found:
        return np.where(rows >= 0, self.order[np.maximum(rows, 0)], -1)

    def searches(self, users: Users) -> Iterator[tuple[int, int, int, int]]:
        """User, place, first and last row of each category asked for."""
        for user, mine in enumerate(users.categories.tolist()):
            for place, category in enumerate(mine):
                yield user, place, int(self.offsets[category]), int(self.offsets[category + 1])

    def best(self, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The 100 best of rows (R, F), -1 for none, by exact products."""
        rows = np.ascontiguousarray(rows)
        scores = np.empty(rows.shape, np.float32)
        pointers = [faiss.swig_ptr(array) for array in (scores, np.ascontiguousarray(queries), self.vectors, rows)]
        faiss.fvec_inner_products_by_idx(*pointers, self.dim, *rows.shape)
        scores[rows < 0] = -np.inf
        order = np.argsort(-scores, axis=1)[:, :HITS]
        return np.take_along_axis(rows, order, 1)


class Flat:
    """faiss, every vector compared: the truth."""

    name = "faiss Flat"

    def __init__(self, ordered: Ordered) -> None:
        began = time.perf_counter()
        self._ordered = ordered
        self._pool: Any = faiss.IndexFlatIP(ordered.dim)
        self._pool.add(ordered.vectors)
        self.built_s = time.perf_counter() - began
        self.bytes_an_item = 4.0 * ordered.dim + 8

    def categories(self, users: Users) -> Found:
        found = np.full((*users.categories.shape, HITS), -1, np.int64)
        for user, place, first, last in self._ordered.searches(users):
            k = min(HITS, last - first)
            query, part = users.long[user, place, None], self._ordered.vectors[first:last]
            _, rows = faiss.knn(query, part, k, metric=faiss.METRIC_INNER_PRODUCT)
            found[user, place, :k] = rows[0] + first
        return self._ordered.numbers(found)

    def pool(self, users: Users) -> Found:
        return self._ordered.numbers(self._pool.search(users.short, min(HITS, self._ordered.count))[1])


class IvfPq:
    """faiss IVFPQ, lists learned over all items. A category is filtered after the search, or in it by a selector."""

    def __init__(self, ordered: Ordered) -> None:
        began = time.perf_counter()
        self._ordered = ordered
        self.lists = int(max(16, min(4096, ordered.count / 240)))
        self._quantiser = faiss.IndexFlatIP(ordered.dim)
        self._index: Any = faiss.IndexIVFPQ(self._quantiser, ordered.dim, self.lists, 16, 8, faiss.METRIC_INNER_PRODUCT)
        self._index.cp.niter = 10
        self._index.cp.max_points_per_centroid = 64
        self._index.cp.min_points_per_centroid = 1
        sample = np.random.default_rng(0).choice(ordered.count, min(ordered.count, 1 << 18), replace=False)
        self._index.train(ordered.vectors[sample])
        self._index.add(ordered.vectors)
        self.built_s = time.perf_counter() - began
        self.bytes_an_item = 16 + 8 + 4.0 * ordered.dim
        self.select = False
        self.in_category = self.in_pool = Effort(64, 400)

    @property
    def name(self) -> str:
        """With what it was tuned to."""
        kind = "selector in the search" if self.select else "category filtered afterwards"
        tuned = (f"nprobe {effort.breadth}, best {effort.fetch:,} re-ranked" for effort in (self.in_category, self.in_pool))
        return f"faiss IVFPQ, {self.lists:,} learned lists, {kind}; {'; pool '.join(tuned)}"

    def categories(self, users: Users) -> Found:
        found = np.full((*users.categories.shape, HITS), -1, np.int64)
        if not self.select:
            rows = self._search(users.long.reshape(-1, self._ordered.dim), self.in_category)
            return filtered(self._ordered, users, rows, found)
        for user, place, first, last in self._ordered.searches(users):
            query = users.long[user, place, None]
            rows = self._search(query, self.in_category, faiss.IDSelectorRange(first, last, True))  # the ids of a list ascend
            best = self._ordered.best(query, rows)
            found[user, place, : best.shape[1]] = best[0]
        return self._ordered.numbers(found)

    def pool(self, users: Users) -> Found:
        return self._ordered.numbers(self._ordered.best(users.short, self._search(users.short, self.in_pool)))

    def _search(self, queries: np.ndarray, effort: Effort, selector: Any = None) -> np.ndarray:
        parameters = faiss.IVFPQSearchParameters(nprobe=effort.breadth, **({"sel": selector} if selector else {}))
        return self._index.search(np.ascontiguousarray(queries), min(effort.fetch, self._ordered.count), params=parameters)[1]


class Graph:
    """usearch, HNSW over full vectors. Its Python has no filter: a category is filtered after the search."""

    def __init__(self, ordered: Ordered) -> None:
        from usearch.index import Index

        began = time.perf_counter()
        self._ordered, self._threads = ordered, os.cpu_count() or 1
        self._index = Index(ndim=ordered.dim, metric="ip", dtype="f32", connectivity=16, expansion_add=128, enable_key_lookups=False)
        self._index.add(np.arange(ordered.count), ordered.vectors, threads=self._threads)
        self.built_s = time.perf_counter() - began
        self.bytes_an_item = self._index.serialized_length / ordered.count
        self.in_category = self.in_pool = Effort(128, HITS)

    @property
    def name(self) -> str:
        """With what it was tuned to."""
        efforts = f"best {self.in_category.fetch:,}, ef {self.in_category.breadth:,}; pool ef {self.in_pool.breadth:,}"
        return f"usearch HNSW, f32, M 16, category filtered afterwards; {efforts}"

    def categories(self, users: Users) -> Found:
        found = np.full((*users.categories.shape, HITS), -1, np.int64)
        rows = self._search(users.long.reshape(-1, self._ordered.dim), self.in_category)
        return filtered(self._ordered, users, rows, found, ranked=True)

    def pool(self, users: Users) -> Found:
        return self._ordered.numbers(self._search(users.short, self.in_pool))

    def _search(self, queries: np.ndarray, effort: Effort) -> np.ndarray:
        self._index.expansion_search = effort.breadth
        keys = self._index.search(np.ascontiguousarray(queries), min(effort.fetch, self._ordered.count), threads=1).keys
        return np.atleast_2d(keys).astype(np.int64)


def filtered(ordered: Ordered, users: Users, rows: np.ndarray, found: Found, ranked: bool = False) -> Found:
    """What of rows (B K, F) lies in the category asked for, the 100 best of it, into `found` (B, K, 100)."""
    chosen = users.categories.ravel()
    first, last = ordered.offsets[chosen, None], ordered.offsets[chosen + 1, None]
    rows = np.where((rows >= first) & (rows < last), rows, -1)
    if ranked:
        rows = np.take_along_axis(rows, np.argsort(rows < 0, axis=1, kind="stable")[:, :HITS], 1)
    else:
        rows = ordered.best(users.long.reshape(len(rows), -1), rows)
    found.reshape(len(rows), -1)[:, : rows.shape[1]] = rows
    return ordered.numbers(found)


def graph(ordered: Ordered) -> Graph | None:
    """None where usearch is not installed (extra `bench`)."""
    with suppress(ImportError):
        return Graph(ordered)
    return None


def recall(found: Found, wanted: Found) -> float:
    """The mean share of what should be found (..., 100), -1 for none, that is."""
    found, wanted = found.reshape(-1, found.shape[-1]), wanted.reshape(-1, wanted.shape[-1])
    shares = [len(np.intersect1d(f[f >= 0], w[w >= 0])) / (w >= 0).sum() for f, w in zip(found, wanted, strict=True)]
    return float(np.mean(shares))


def tuned(way: Any, part: str, efforts: Sequence[Effort], search: Callable[[], Found], wanted: Found, least: float) -> None:
    """Set `part` of the way to the first of the efforts, cheap ones first, with which it has that recall; the last if none has."""
    for effort in efforts:
        setattr(way, part, effort)
        if recall(search(), wanted) >= least:
            return
