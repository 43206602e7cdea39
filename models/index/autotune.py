"""A trial of the scan on the items themselves: how many cells to scan, and how much to compare, for the recall that is asked for.

How far the vectors of a model let cells and codes tell near from far is not known beforehand: with clustered vectors a hundredth of the
cells is enough, with others a tenth is not.
"""

import numpy as np
from numpy.typing import NDArray

from models.codes.codebook import Floats
from models.index.cells import Cells
from models.index.scan import Effort, Efforts, Scan

_TRIALS = 64
_HITS = 100
_MOST = 4  # compared for each hit wanted, at most
_ALL = 1 << 30
_MIXES = np.array([[1, 0.3, 0], [1, 1, 0], [1, 1, 1]], dtype=np.float32)  # a query is such a sum of three items
_PIECE = 32_768  # rows compared at once

Places = NDArray[np.int64]


def tried(scan: Scan, vectors: Floats, recall: float, seed: int = 0) -> Efforts:
    """What it takes to find the share `recall` of the hits of queries that lie between random items; all above a share of 1.

    `vectors` (n, d) are in the order of the cells. Queries of a category lie between items of its own.
    """
    rng, cells, n = np.random.default_rng(seed), scan.cells, len(vectors)
    queries = np.stack([_MIXES[trial % 3] @ vectors[rng.integers(0, n, 3)] for trial in range(_TRIALS)])
    every = np.array([[0, len(cells.centroids)]] * _TRIALS)
    pool = _effort(scan, queries, every, list(_best_of_all(queries, vectors)), recall)
    many, bounds = np.flatnonzero(np.diff(cells.first) > 1), cells.starts[cells.first]
    if not len(many):
        return Efforts(Effort(1, 1.0), pool)
    sizes, wanted = np.diff(bounds)[many], list[Places]()
    drawn = rng.choice(many, _TRIALS, p=sizes / sizes.sum())
    for trial, category in enumerate(drawn.tolist()):
        low, high = int(bounds[category]), int(bounds[category + 1])
        queries[trial] = _MIXES[trial % 3] @ vectors[rng.integers(low, high, 3)]
        wanted.append(low + _best(vectors[low:high] @ queries[trial]))
    own = np.stack([cells.first[drawn], cells.first[drawn + 1]], axis=1)
    return Efforts(_effort(scan, queries, own, wanted, recall), pool)


def _effort(scan: Scan, queries: Floats, among: NDArray[np.int64], wanted: list[Places], recall: float) -> Effort:
    """The effort for queries (R, d) that search the cells from among[r, 0] to among[r, 1] and want these rows."""
    if recall > 1:
        return Effort(_ALL, float(_MOST))
    places = [
        scan.ranking.places(query, begin, end)[_cells_of(scan.cells, rows) - begin]
        for query, (begin, end), rows in zip(queries, among.tolist(), wanted, strict=True)
    ]
    most = int((among[:, 1] - among[:, 0]).max())
    cells = _needed(places, (1 + recall) / 2, most)  # cells lose one half of what may be lost, codes the other
    ranks = []
    for query, (begin, end), rows in zip(queries, among.tolist(), wanted, strict=True):
        lists, coarse = scan.ranking.first(query[None], cells, begin, end)
        found = scan.search(query[None], lists, coarse, _MOST * len(rows), None)[0]
        rank = np.full(len(rows), _MOST * _HITS)
        hit, place = np.nonzero(rows[:, None] == found)
        rank[hit] = place * _HITS // len(rows)
        ranks.append(rank)
    return Effort(cells, _needed(ranks, recall, _MOST * _HITS) / _HITS)


def _best_of_all(queries: Floats, vectors: Floats) -> Places:
    """The best rows (R, hits) for queries (R, d), found a piece at a time."""
    scores, rows = [], []
    for start in range(0, len(vectors), _PIECE):
        part = queries @ vectors[start : start + _PIECE].T
        top = np.stack([_best(row) for row in part])
        scores.append(np.take_along_axis(part, top, axis=1))
        rows.append(start + top)
    top = np.stack([_best(row) for row in np.concatenate(scores, axis=1)])
    return np.take_along_axis(np.concatenate(rows, axis=1), top, axis=1)


def _best(scores: Floats) -> Places:
    return np.argpartition(-scores, _HITS)[:_HITS] if len(scores) > _HITS else np.arange(len(scores))


def _cells_of(cells: Cells, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.searchsorted(cells.starts, rows, side="right") - 1


def _needed(places: list[Places], share: float, most: int) -> int:
    """How many of the first places it takes to have a share of all; at most `most`."""
    every = np.concatenate(places)
    reached = np.cumsum(np.bincount(every, minlength=most)) / len(every)
    return min(int(np.searchsorted(reached, share)) + 1, most)
