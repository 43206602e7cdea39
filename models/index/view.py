"""One immutable moment of an index: everything that reads goes through it."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.codes.codebook import Codebook, Codes, Floats, taken
from models.index import search
from models.index.changes import Found, Where
from models.index.filters import Exclude, Excluded
from models.index.rows import Ids, Numbers
from models.index.snapshots import Snapshot


class View:
    """What the index held when `look` was called; it never changes, and its codes are those of its codebook. Any thread may use it.

    Hits say items by number; numbers mean the same in all views of one index. Scores are inner products with the stored vectors, exact
    also where a scan chose what to compare. Hits are ordered by score, ties by item id.
    """

    def __init__(self, snapshot: Snapshot, items: Ids, categories: Ids) -> None:
        self._snapshot, self._items, self._categories = snapshot, items, categories
        self.generation = snapshot.generation
        self.codebook: Codebook = snapshot.codebooks[snapshot.generation]
        self.dim = snapshot.base.rows.vectors.shape[1]

    def __len__(self) -> int:
        return self._snapshot.size()

    def search_categories(
        self, vectors: Floats, categories: Sequence[str], k: int, exclude: Exclude | None = None, where: Where | None = None
    ) -> Found:
        """The k best for each of vectors (R, d) among the items of its category, one category a row.

        Items of `exclude[r]` (ids, or numbers as an array) and items that `where` holds back are not found, and k others are. Fewer than k
        where the category has no more, none for an unknown one.

        Raises:
            ValueError: another d, a vector that is not finite, k < 1, or other numbers of rows.
        """
        vectors = self._queries(vectors, k, categories, exclude)
        return self._search(vectors, self._categories.find(categories), k, exclude, where)

    def search_pool(self, vectors: Floats, k: int, exclude: Exclude | None = None, where: Where | None = None) -> Found:
        """The k best for each of vectors (R, d) among all items; filters and errors as in `search_categories`."""
        return self._search(self._queries(vectors, k, None, exclude), None, k, exclude, where)

    def excluding(self, exclude: Sequence[Collection[str]]) -> list[Numbers]:
        """Exclusions as numbers: what several searches exclude is looked up once by name, which costs more than excluding it."""
        known = {id(items): items for items in exclude}
        found = {key: self._items.find(items) for key, items in known.items()}
        return [found[id(items)] for items in exclude]

    def numbers(self, items: Sequence[str]) -> Numbers:
        """The numbers (n,) of items, -1 for those that are not here."""
        numbers = self._items.find(items)
        rows, fresh = self._snapshot.find(numbers)
        numbers[(rows < 0) & (fresh < 0)] = -1
        return numbers

    def everything(self) -> Numbers:
        """The numbers of all items that are here, ascending."""
        now = self._snapshot
        base = now.base.rows.numbers if now.alive is None else now.base.rows.numbers[now.alive]
        return np.union1d(base, now.segment.rows.numbers)

    def names(self, numbers: NDArray[np.integer]) -> list[str]:
        """The items of numbers (n,), none of them negative."""
        return self._items.names(numbers)

    def category_numbers(self, numbers: Numbers) -> Numbers:
        """The numbers (n,) of the categories of items, -1 for those that are not here."""
        return self._gathered(numbers, "categories", -1)

    def category_name(self, number: int) -> str:
        """The category of a number."""
        return self._categories.names(np.array([number]))[0]

    def category_number(self, name: str) -> int:
        """The number of a category, -1 for an unknown one."""
        return self._categories.number(name)

    def vectors(self, numbers: Numbers) -> Floats:
        """The vectors (n, d) of items, zeros for those that are not here."""
        return self._gathered(numbers, "vectors", 0)

    def passing(self, numbers: Numbers, where: Where | None) -> NDArray[np.bool_]:
        """Which of items (n,) are here and let through by a filter."""
        here = self.category_numbers(numbers) >= 0
        if where is not None:
            here &= where.passes(self._gathered(numbers, "prices", 0), self._gathered(numbers, "available", 0))
        return here

    def codes(self, numbers: Numbers) -> Codes:
        """The codes (n, P) of items under `codebook`, zeros for those that are not here."""
        rows, fresh = self._snapshot.find(numbers)
        return _either(rows, fresh, self._snapshot.base.rows.codes[self.generation], self._snapshot.segment.rows.codes[self.generation], 0)

    def hits(self, found: Found) -> list[list[tuple[str, float]]]:
        """Hits as (item, score), for people and tests."""
        counts = (found.numbers >= 0).sum(axis=1).tolist()
        return [
            list(zip(self.names(numbers[:count]), scores[:count].tolist(), strict=True))
            for numbers, scores, count in zip(found.numbers, found.scores, counts, strict=True)
        ]

    def _search(self, vectors: Floats, categories: Numbers | None, k: int, exclude: Exclude | None, where: Where | None) -> Found:
        now, ids = self._snapshot, self._items
        if where is not None and where.all:
            where = None
        excluded = Excluded.of(exclude, ids)
        sieve = now.sieve(where)
        struck = None if excluded is None else excluded.inside(now.base.find(excluded.numbers), len(now.base), sieve.mask)
        found = search.search(now.base, search.IndexQuery(vectors, categories, k, sieve, struck, ids))
        return now.segment.better(vectors, categories, found, where, excluded, ids) if len(now.segment) else found

    def _gathered(self, numbers: Numbers, name: str, missing: int) -> NDArray[Any]:
        rows, fresh = self._snapshot.find(numbers)
        return _either(rows, fresh, getattr(self._snapshot.base.rows, name), getattr(self._snapshot.segment.rows, name), missing)

    def _queries(self, vectors: Floats, k: int, categories: Sequence[str] | None, exclude: Exclude | None) -> Floats:
        vectors = checked(np.ascontiguousarray(vectors, dtype=np.float32), self.dim)
        for other in (categories, exclude):
            if other is not None and len(other) != len(vectors):
                raise ValueError(f"{len(vectors)} vectors, but {len(other)} categories or exclusions")
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        return vectors


def checked(vectors: Floats, dim: int) -> Floats:
    """Vectors (n, d) as they are.

    Raises:
        ValueError: another d, or not finite.
    """
    if vectors.size and (vectors.ndim != 2 or vectors.shape[1] != dim or not np.isfinite(vectors).all()):
        raise ValueError(f"vectors must be finite and (n, {dim}), got {vectors.shape}")
    return vectors.reshape(len(vectors), dim)


def _either(rows: NDArray[np.int64], fresh: NDArray[np.int64], base: NDArray[Any], segment: NDArray[Any], missing: int) -> NDArray[Any]:
    """For each item what its row of the segment says, else its row of the base, else `missing`."""
    if len(base):
        absent = np.flatnonzero(rows < 0)
        if len(absent):
            rows = np.maximum(rows, 0)
        found = taken(base, rows) if base.dtype == np.uint8 else base.take(rows, axis=0)  # of all, the absent too: several times quicker
        found[absent] = missing
    else:
        found = np.full((len(rows), *base.shape[1:]), missing, dtype=base.dtype)
    here = np.flatnonzero(fresh >= 0)
    found[here] = segment[fresh[here]]
    return found
