"""The base of an index: items ordered by category and cell, never changed once made, so that any thread may search it without a lock."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.codes.codebook import Codes
from models.index import cells as cutting
from models.index.autotune import tried
from models.index.cells import Cells, Counts, Sizes
from models.index.changes import Where
from models.index.rows import Numbers, Order, Rows, gather, picked
from models.index.scan import Levels, Scan, sample

_CHUNK = 65_536
_FILTERS = 4  # filters whose rows a block remembers


class Passing(NamedTuple):
    """The rows of a block that pass a filter: mask (n,), and how many of the first i do (n + 1,)."""

    mask: NDArray[np.bool_]
    before: Numbers


class Block:
    """Rows ordered by category (and cell, where there is a scan). A row is where an item lies; a number is which item it is."""

    def __init__(self, rows: Rows, starts: Counts, scan: Scan | None, place: Numbers | None = None) -> None:
        self.rows, self.starts, self.scan = rows, starts, scan  # starts (N + 1,): first row of each category
        if place is None:
            place = np.full(int(rows.numbers.max(initial=-1)) + 1, -1, dtype=np.int32)
            place[rows.numbers] = np.arange(rows.n, dtype=np.int32)
        self._place = place
        self._passing: dict[Where, Passing] = {}

    def __len__(self) -> int:
        return self.rows.n

    def find(self, numbers: Numbers) -> NDArray[np.int64]:
        """The rows of items, -1 for those that are not here."""
        if numbers.min(initial=0) >= 0 and numbers.max(initial=-1) < len(self._place):
            return self._place.take(numbers).astype(np.int64)
        known = (numbers >= 0) & (numbers < len(self._place))
        return np.where(known, self._place[np.where(known, numbers, 0)] if len(self._place) else -1, -1).astype(np.int64)

    def bounds(self, categories: Numbers) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First row, and row after the last, of categories; 0 and 0 for unknown ones."""
        known = (categories >= 0) & (categories < len(self.starts) - 1)
        numbers = np.where(known, categories, 0)
        if len(self.starts) == 1:
            return np.zeros(len(categories), dtype=np.int64), np.zeros(len(categories), dtype=np.int64)
        return np.where(known, self.starts[numbers], 0), np.where(known, self.starts[numbers + 1], 0)

    def passing(self, where: Where) -> Passing:
        """The rows that pass a filter; the last few filters are remembered."""
        found = self._passing.get(where)
        if found is None:
            mask = where.passes(self.rows.prices, self.rows.available)
            found = Passing(mask, np.concatenate(([0], np.cumsum(mask, dtype=np.int32)), dtype=np.int32))
            if len(self._passing) >= _FILTERS:
                self._passing = {}
            self._passing[where] = found
        return found

    def recoded(self, codes: Mapping[str, Codes]) -> "Block":
        """The same block with other codes in its rows."""
        return Block(self.rows._replace(codes=codes), self.starts, self.scan, self._place)


def build(old: Block, kept: Order, new: Rows, categories: int, sizes: Sizes) -> Block:
    """A block of the `kept` rows of an old block and of new rows. Encodes only new rows and categories whose cells are rebuilt."""
    order = np.concatenate([kept, len(old) + np.arange(new.n)])
    lists = picked(old.rows.categories, new.categories, order)
    counts = np.bincount(lists, minlength=categories)
    starts = np.concatenate(([0], np.cumsum(counts)))
    if len(order) <= (sizes.exact if old.scan is None else sizes.exact // 2):
        return Block(gather(old.rows, new, order[np.argsort(lists, kind="stable")]), starts, None)
    return _scanned(old, order, new, starts, sizes)


def _scanned(old: Block, order: Order, new: Rows, starts: Counts, sizes: Sizes) -> Block:
    dim, categories, counts = new.vectors.shape[1], len(starts) - 1, np.diff(starts)
    before = (Cells.none(dim) if old.scan is None else old.scan.cells).widened(categories)
    joined = before.joined + np.bincount(new.categories, minlength=categories)
    again = cutting.outgrown(before, counts, joined, sizes.cell)
    have = np.where(again, cutting.wanted(counts, sizes.cell), np.where(counts > 0, np.diff(before.first), 0))
    first = np.concatenate(([0], np.cumsum(have)))
    shift = (first - before.first)[:-1]
    kept = order[: len(order) - new.n]
    lists = picked(old.rows.categories, new.categories, order)
    cell = np.empty(len(order), dtype=np.int64)
    cell[: len(kept)] = before.of_rows()[kept] if old.scan is not None else 0
    stay = ~again[new.categories]
    cell[len(kept) :][stay] = cutting.joining(before, new.categories[stay], new.vectors[stay])
    cell = np.where(again[lists], first[lists], cell + shift[lists])

    by_cell = np.argsort(cell, kind="stable")
    order = order[by_cell]
    rows = gather(old.rows, new, order)
    stale = (order >= len(old)) | again[rows.categories]
    owner = np.repeat(np.arange(categories), have)
    same = np.flatnonzero(~again[owner])
    centroids, spread = np.empty((int(first[-1]), dim), dtype=np.float32), np.empty(int(first[-1]), dtype=np.float32)
    came = same - shift[owner[same]]
    centroids[same], spread[same] = before.centroids[came], before.spread[came]
    filled = np.bincount(cell, minlength=len(centroids))
    for category in np.flatnonzero(again).tolist():
        low, high = int(starts[category]), int(starts[category + 1])
        own = slice(int(first[category]), int(first[category + 1]))
        centroids[own], spread[own], piece = cutting.cut(rows.vectors[low:high], int(have[category]))
        filled[own] = np.bincount(piece, minlength=int(have[category]))
        _reorder(rows, low, high, np.argsort(piece, kind="stable"))
    cut, joined = np.where(again, counts, before.cut), np.where(again, 0, joined)
    cells = Cells(first, np.concatenate(([0], np.cumsum(filled))), centroids, spread, cut, joined)
    return Block(rows, starts, _encoded(old.scan, cells, rows, order, stale, sizes))


def _reorder(rows: Rows, low: int, high: int, order: Order) -> None:
    """Put a range of rows that nobody has seen yet in another order."""
    if high - low > 1:
        for array in (*rows[:5], *rows.codes.values(), *(() if rows.parts is None else (rows.parts,))):
            array[low:high] = array[low:high][order]


def _encoded(old: Scan | None, cells: Cells, rows: Rows, order: Order, stale: NDArray[np.bool_], sizes: Sizes) -> Scan:
    """The scan of rows: codes of the old one where they hold, others made here; all of them, with new levels, once a third is new."""
    of_rows = cells.of_rows()
    age = int(np.count_nonzero(stale)) + (0 if old is None else old.age)
    if old is None or 3 * age > rows.n:
        chosen = sample(rows.n)
        levels = Levels.train(rows.vectors[chosen] - cells.centroids[of_rows[chosen]])
        codes = np.empty((rows.n, (rows.vectors.shape[1] + 1) // 2), dtype=np.uint8)
        todo, age, efforts = np.arange(rows.n), 0, None
    else:
        levels, efforts = old.levels, old.efforts
        codes = picked(old.codes, None, order)  # rows beyond the old ones are clipped, and encoded below
        todo = np.flatnonzero(stale)
    for start in range(0, len(todo), _CHUNK):
        part = todo[start : start + _CHUNK]
        codes[part] = levels.encode(rows.vectors[part] - cells.centroids[of_rows[part]])
    scan = Scan(cells, levels, codes, age)
    scan.efforts = tried(scan, rows.vectors, sizes.recall) if efforts is None else efforts
    return scan
