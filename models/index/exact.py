"""Exact search: every row of a range is compared. Queries that share a range are compared in one multiplication."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.codes.codebook import Floats
from models.index.changes import Found
from models.index.filters import Sieve, Struck
from models.index.rows import Ids, Order, Rows, gather
from models.index.topk import FAR, best, narrowed

_SCORES = 1 << 23  # scores held at once, 32 MiB
_SPARSE = 4  # where fewer than a quarter of a range may be returned, those rows are gathered first
_FEW = 1 << 16
_NARROW = 128  # ranges up to so wide are compared as one


class Ranges(NamedTuple):
    """Queries (R, d) and the range of rows that each searches, from `low` (R,) up to `high` (R,)."""

    queries: Floats
    low: NDArray[np.int64]
    high: NDArray[np.int64]

    def of(self, chosen: NDArray[np.int64]) -> "Ranges":
        """Those of some queries."""
        return Ranges(self.queries[chosen], self.low[chosen], self.high[chosen])


def search(rows: Rows, ranges: Ranges, k: int, sieve: Sieve, struck: Struck | None, ids: Ids) -> Found:
    """The k best rows of each range for its query. Ranges overlap only where they are equal."""
    found = Found.nothing(len(ranges.queries), k)
    order = np.argsort(ranges.low, kind="stable")
    order = order[ranges.high[order] > ranges.low[order]]
    widths = (ranges.high - ranges.low)[order]
    visible = sieve.visible(ranges.low, ranges.high)[order]
    sparse = (visible * _SPARSE < widths) & (widths > _NARROW)
    doubling = np.ceil(np.log2(np.maximum(widths, _NARROW))).astype(np.int64)  # ranges up to twice as wide as others are compared as one
    if len(order) * int(widths.max(initial=0)) <= _FEW:
        doubling[:] = doubling.max(initial=0)  # all of them, where that is not much
    for level in set(doubling.tolist()):
        same = order[(doubling == level) & ~sparse]
        step = max(1, _SCORES >> level)
        for start in range(0, len(same), step):
            _compare(found, rows, ranges, same[start : start + step], sieve, struck, ids)
    _compare_few(found, rows, ranges, order[sparse], sieve, struck, ids)
    return found


def _compare(found: Found, rows: Rows, ranges: Ranges, chosen: Order, sieve: Sieve, struck: Struck | None, ids: Ids) -> None:
    """Fill in what the chosen queries find, which are in the order of their ranges."""
    low, high = ranges.low[chosen], ranges.high[chosen]
    queries, hidden = ranges.queries[chosen], sieve.visible(low, high) < high - low
    scores = np.full((len(chosen), int((high - low).max(initial=0))), FAR, dtype=np.float32)
    for start, end in _equal(low):
        first, last = int(low[start]), int(high[start])
        part = scores[start:end, : last - first]
        part[:] = queries[start:end] @ rows.vectors[first:last].T
        if hidden[start] and sieve.mask is not None:
            part[:, ~sieve.mask[first:last]] = FAR
    if struck is not None:
        query, row = struck.pairs(chosen, low, high)
        scores[query, row - low[query]] = FAR
    scores, columns = narrowed(scores, found.numbers.shape[1])
    hits = best(scores, rows.numbers.take(low[:, None] + columns, mode="clip"), found.numbers.shape[1], ids)
    found.numbers[chosen], found.scores[chosen] = hits.numbers, hits.scores


def _compare_few(found: Found, rows: Rows, ranges: Ranges, chosen: Order, sieve: Sieve, struck: Struck | None, ids: Ids) -> None:
    """The same where few of the rows of a range may be returned: those are gathered, as rows of their own."""
    for start, end in _equal(ranges.low[chosen]):
        own = chosen[start:end]
        low, high = int(ranges.low[own[0]]), int(ranges.high[own[0]])
        places = low + np.flatnonzero(sieve.mask[low:high]) if sieve.mask is not None else np.arange(low, high)
        gathered = gather(rows._replace(codes={}, parts=None), None, places)
        step = max(1, _SCORES // max(1, len(places)))
        for first in range(0, len(own), step):
            mine = own[first : first + step]
            scores = ranges.queries[mine] @ gathered.vectors.T
            if struck is not None:
                query, row = struck.pairs(mine, ranges.low[mine], ranges.high[mine])
                scores[query, np.searchsorted(places, row)] = FAR
            scores, columns = narrowed(scores, found.numbers.shape[1])
            hits = best(scores, gathered.numbers.take(columns, mode="clip"), found.numbers.shape[1], ids)
            found.numbers[mine], found.scores[mine] = hits.numbers, hits.scores


def _equal(values: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Where runs of equal values begin and end."""
    edges = np.flatnonzero(np.diff(values, prepend=-1, append=-1)).tolist() if len(values) else []
    return list(pairwise(edges))
