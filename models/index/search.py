"""Search of a block: exactly where that is quick, else the scan chooses what to compare exactly."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.codes.codebook import Floats
from models.index import exact
from models.index.block import Block
from models.index.changes import Found
from models.index.filters import Sieve, Struck
from models.index.rows import Ids, Numbers
from models.index.scan import Scan
from models.index.topk import FAR, best, products

_FEW = 2_048  # up to so many rows that pass a filter are compared exactly


class IndexQuery(NamedTuple):
    """What is searched for in a block: vectors (R, d) in categories (R,), or in the whole pool where these are None."""

    vectors: Floats
    categories: Numbers | None
    k: int
    sieve: Sieve
    struck: Struck | None
    ids: Ids


def search(block: Block, query: IndexQuery) -> Found:
    """The k best rows of a block for each vector. Where a scan finds fewer than there are, all are compared."""
    count = len(query.vectors)
    if query.categories is None:
        low, high = np.zeros(count, dtype=np.int64), np.full(count, len(block))
    else:
        low, high = block.bounds(query.categories)
    ranges = exact.Ranges(query.vectors, low, high)
    if block.scan is None:
        return exact.search(block.rows, ranges, query.k, query.sieve, query.struck, query.ids)
    visible, away = query.sieve.visible(low, high), np.zeros(count, dtype=np.int64)
    if query.struck is not None:
        first, last = query.struck.spans(low, high)
        away = last - first
    todo = visible > away
    if query.categories is not None:  # a category of one cell is compared exactly
        todo &= block.scan.cells_of(query.categories) > 1
    if query.sieve.before is not None:  # so are the few that pass a filter
        todo &= visible > _FEW
    effort = block.scan.efforts.pool if query.categories is None else block.scan.efforts.category
    fetch = effort.fetch(query.k) + np.where(away > 0, 1 << np.ceil(np.log2(np.maximum(away, 16))).astype(np.int64), 0)
    found = Found.nothing(count, query.k)
    for width in set(fetch[todo].tolist()):
        chosen = np.flatnonzero(todo & (fetch == width))
        candidates = _candidates(block.scan, query, chosen, (high - low)[chosen] // visible[chosen], width)
        if query.struck is not None and away[chosen].any():
            query.struck.strike(candidates, chosen)
        scores = products(query.vectors[chosen], block.rows.vectors, candidates)
        hits = best(scores, block.rows.numbers[candidates], query.k, query.ids)
        found.numbers[chosen], found.scores[chosen] = hits.numbers, hits.scores
    rest = np.flatnonzero((found.scores > FAR).sum(axis=1) < np.minimum(query.k, visible - away))
    if len(rest):
        struck = None if query.struck is None else query.struck._replace(owner=query.struck.owner[rest])
        hits = exact.search(block.rows, ranges.of(rest), query.k, query.sieve, struck, query.ids)
        found.numbers[rest], found.scores[rest] = hits.numbers, hits.scores
    return found


def _candidates(scan: Scan, query: IndexQuery, chosen: NDArray[np.int64], rarity: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    """Rows (R', width) worth comparing for the chosen queries, -1 where there are no more.

    Of `rarity` (R',) rows one may be returned: where that is few, more cells are scanned.
    """
    vectors = query.vectors[chosen]
    if query.categories is None:
        lists, coarse = scan.ranking.first(vectors, scan.efforts.pool.cells * int(rarity[0]))
    else:
        lists, coarse = scan.ranking.of_categories(vectors, query.categories[chosen], scan.efforts.category.cells * rarity)
    return scan.search(vectors, lists, coarse, width, query.sieve.bits)
