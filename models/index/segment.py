"""The fresh segment: what changed since the base was made, a few thousand rows, searched exactly."""

import numpy as np
from numpy.typing import NDArray

from models.codes.codebook import Floats
from models.index import exact
from models.index.changes import Found, Where
from models.index.filters import Excluded, Sieve, Struck
from models.index.rows import Ids, Numbers, Order, Rows, gather
from models.index.topk import FAR, along, best, packed, products

_NARROW = 512  # categories with more rows in the segment are searched by multiplication
_SCORES = 1 << 24  # scores held at once, 64 MiB
_NO_ROWS = np.empty(0, dtype=np.int64)


class Segment:
    """Rows ordered by category, with the number of the change that made each; never changed once made."""

    def __init__(self, rows: Rows, stamps: NDArray[np.int64]) -> None:
        self.rows, self.stamps = rows, stamps
        self._by_number = np.argsort(rows.numbers)
        self._numbers = rows.numbers[self._by_number]

    def __len__(self) -> int:
        return self.rows.n

    def find(self, numbers: Numbers) -> NDArray[np.int64]:
        """The rows of items, -1 for those that are not here."""
        if not len(self):
            return np.full(len(numbers), -1, dtype=np.int64)
        place = np.minimum(np.searchsorted(self._numbers, numbers), len(self) - 1)
        return np.where(self._numbers[place] == numbers, self._by_number[place], -1)

    def without(self, numbers: Numbers) -> Order:
        """The rows of all items but some."""
        keep = np.ones(len(self), dtype=np.bool_)
        rows = self.find(numbers)
        keep[rows[rows >= 0]] = False
        return np.flatnonzero(keep)

    def joined(self, keep: Order, new: Rows, stamp: int) -> "Segment":
        """The segment of the kept rows and new ones."""
        order = np.concatenate([keep, len(self) + np.arange(new.n)])
        stamps = np.concatenate([self.stamps[keep], np.full(new.n, stamp)])
        lists = np.concatenate([self.rows.categories[keep], new.categories])
        by_category = np.argsort(lists, kind="stable")
        return Segment(gather(self.rows, new, order[by_category]), stamps[by_category])

    def better(
        self, vectors: Floats, categories: Numbers | None, found: Found, where: Where | None, excluded: Excluded | None, ids: Ids
    ) -> Found:
        """What is found with the hits of this segment among it, as many as before."""
        mask = None if where is None else where.passes(self.rows.prices, self.rows.available)
        struck = None if excluded is None else excluded.inside(self.find(excluded.numbers), len(self), mask)
        if categories is None:
            step = max(1, _SCORES // len(self))
            for start in range(0, len(vectors), step):
                part = np.arange(start, min(start + step, len(vectors)))
                scores = vectors[part] @ self.rows.vectors.T
                if mask is not None:
                    scores[:, ~mask] = FAR
                self._merge(found, part, scores, None, struck, ids)
            return found
        low, high = (np.searchsorted(self.rows.categories, categories, side=side) for side in ("left", "right"))
        some = np.flatnonzero((high > low) & (high - low <= _NARROW))
        if len(some):
            rows = low[some, None] + np.arange(int((high - low)[some].max()))
            rows[rows >= high[some, None]] = -1
            if mask is not None:
                rows[~mask[rows]] = -1
            self._merge(found, some, products(vectors[some], self.rows.vectors, rows), rows, struck, ids)
        wide = np.flatnonzero(high - low > _NARROW)
        if len(wide):
            own = None if struck is None else struck._replace(owner=struck.owner[wide])
            ranges = exact.Ranges(vectors, low, high).of(wide)
            hits = exact.search(self.rows, ranges, found.numbers.shape[1], Sieve(mask, None, None, _NO_ROWS), own, ids)
            self._merge(found, wide, hits.scores, self.find(hits.numbers.ravel()).reshape(hits.numbers.shape), None, ids)
        return found

    def _merge(self, found: Found, into: Order, scores: Floats, rows: Order | None, struck: Struck | None, ids: Ids) -> None:
        """Put those of rows (R', m), or of all, that are among the best with their scores (R', m) into what is found."""
        good = (scores >= found.scores[into, -1:]) & (scores > FAR)
        some = np.flatnonzero(good.any(axis=1))
        if not len(some):
            return
        into, columns = into[some], packed(good[some])
        scores = along(scores[some], columns)
        rows = columns.copy() if rows is None else along(rows[some], columns)
        rows[columns < 0] = -1
        if struck is not None:
            struck.strike(rows, into)
        scores[rows < 0] = FAR
        k = found.numbers.shape[1]
        numbers = np.concatenate([found.numbers[into], self.rows.numbers[rows]], axis=1)
        hits = best(np.concatenate([found.scores[into], scores], axis=1), numbers, k, ids)
        found.numbers[into], found.scores[into] = hits.numbers, hits.scores
