"""Index of items: search in chosen categories, or in the whole pool, while items come, change and go.

What a search sees is one immutable snapshot: a large base block, a small fresh segment of what changed since, and the rows
of the base that are dead. A change makes a new snapshot and swaps one reference; compaction folds the segment into a new base.
"""

from collections.abc import Collection, Iterable, Sequence
from threading import Lock

import numpy as np

from models.blocks import (
    EXACT,
    EXACT_ROWS,
    MIN_FETCH,
    NO_ROWS,
    RERANK,
    Block,
    Hidden,
    Hit,
    Rows,
    Scan,
    best_first,
    within,
)
from models.codebook import Codebook, Codes, Floats
from models.snapshots import Change, Delete, Snapshot, Upsert, changed, merged

SEGMENT_MIN = 4_096
SEGMENT_SHARE = 32  # compaction is due when changes exceed 1/32 of the base (and SEGMENT_MIN)
OVERDUE = 4  # at so many times that, `apply` compacts itself


class GenerationMismatch(ValueError):
    """A code made under another codebook than the index's: encode the vector again, or wait for the other bundle."""

    def __init__(self, item: str, given: str, expected: str) -> None:
        super().__init__(f"item {item!r} has a code of generation {given}, the index holds {expected}")
        self.given = given
        self.expected = expected


class ItemIndex:
    """Items by category under one codebook; all methods may be called by any thread at any time.

    Scores are inner products with the stored vectors, exact also where codes chose what to compare. Hits are ordered by
    score, ties by item id. A search sees every change whose `apply` returned before it began, and no half of one.

    A category or pool of up to `exact` items, or asked for by `exact_rows` queries at once, is compared exactly: that is
    faster there. Others are scanned by codes first.

    Raises:
        ValueError: vectors (n, d), ids and categories differ in number, an id comes twice, or a vector is not finite.
    """

    def __init__(
        self,
        codebook: Codebook,
        vectors: Floats,
        item_ids: Sequence[str],
        categories: Sequence[str],
        *,
        codes: Codes | None = None,
        exact: int = EXACT,
        exact_rows: int = EXACT_ROWS,
    ) -> None:
        if not len(vectors) == len(item_ids) == len(categories) or len(set(item_ids)) != len(item_ids):
            raise ValueError(f"{len(vectors)} vectors, {len(item_ids)} ids (unique?), {len(categories)} categories")
        self.codebook = codebook
        self._exact, self._exact_rows = exact, exact_rows
        vectors = _checked(np.asarray(vectors, dtype=np.float32), codebook.dim)
        codes = codebook.encode(vectors) if codes is None else np.asarray(codes, dtype=np.uint8)
        if codes.shape != (len(vectors), codebook.subspaces):
            raise ValueError(f"codes must be ({len(vectors)}, {codebook.subspaces}), got {codes.shape}")
        self._changing = Lock()  # held for the moment of a change
        self._compacting = Lock()  # held for as long as a compaction takes
        self._missed: dict[str, Change] | None = None  # what changed while a compaction runs
        self._snapshot = self._based(Block(item_ids, categories, vectors, codes))

    def __len__(self) -> int:
        return self._snapshot.size()

    def __contains__(self, item: object) -> bool:
        return isinstance(item, str) and self._snapshot.find(item) is not None

    @property
    def generation(self) -> str:
        """The generation of codes that the index holds."""
        return self.codebook.generation

    @property
    def categories(self) -> list[str]:
        """Categories that have an item, ascending."""
        now = self._snapshot
        return sorted({*now.base.categories(now.alive()), *now.segment.labels})

    @property
    def compaction_due(self) -> bool:
        """Whether changes since the last compaction begin to slow searches: call `compact` in a thread of your own."""
        return self._snapshot.changes() > self._limit()

    def category_of(self, item: str) -> str | None:
        """The category of an item, None for an unknown one."""
        found = self._snapshot.find(item)
        return found[0].category(found[1]) if found else None

    def apply(self, changes: Sequence[Change]) -> None:
        """Make changes, in their order, visible at once to every search that starts after this returns.

        Costs a copy of the segment: give batches. What is already so is no change. Where nobody compacts, this does in the end.

        Raises:
            GenerationMismatch: a code of another codebook; ValueError: a vector or code of another shape, or not finite.
                Nothing is applied then.
        """
        latest = {change.item: self._accept(change) for change in changes}
        with self._changing:
            if self._missed is not None:
                self._missed.update(latest)
            self._snapshot = changed(self._snapshot, latest)
            overdue = self._snapshot.changes() > OVERDUE * self._limit()
        if overdue:
            self.compact()

    def compact(self) -> None:
        """Fold all changes so far into a new base. Searches and `apply` go on meanwhile; a second call waits for the first."""
        with self._compacting:
            missed: dict[str, Change] = {}
            with self._changing:
                old = self._snapshot
                self._missed = missed
            fresh = old
            try:
                if old.changes():
                    fresh = self._based(merged(old))
            finally:
                with self._changing:
                    self._missed = None
                    if fresh is not old:
                        self._snapshot = changed(fresh, missed)

    def search_categories(
        self, vectors: Floats, categories: Sequence[str], k: int, exclude: Sequence[Collection[str]] | None = None
    ) -> list[list[Hit]]:
        """The k best (item, score) for each of vectors (R, d) among the items of its category, one category a row.

        Items of `exclude[r]` are not returned, and k others are. Fewer than k where the category has no more, none for an unknown one.

        Raises:
            ValueError: another d, a vector that is not finite, k < 1, or other numbers of rows.
        """
        now, vectors = self._snapshot, _queries(vectors, self.codebook.dim, k, categories, exclude)
        groups: dict[str, list[int]] = {}
        for row, category in enumerate(categories):
            groups.setdefault(category, []).append(row)
        found: list[list[Hit]] = [[] for _ in vectors]
        for block, scan, hidden in _parts(now, exclude, len(vectors)):
            for category, rows in groups.items():
                first, last = block.bounds(category)
                if first == last:
                    continue
                own = Hidden(hidden.dead, [within(hidden.excluded[row], first, last) for row in rows])
                if scan is None or last - first <= self._exact or len(rows) >= self._exact_rows:
                    hits = block.search(vectors[rows], k, own, (first, last))
                else:
                    lists = np.full((len(rows), 1), block.numbers[category])
                    hits = _scanned(block, scan, vectors[rows], lists, k, own)
                for row, more in zip(rows, hits, strict=True):
                    found[row] = _joined(found[row], more, k)
        return found

    def search_pool(self, vectors: Floats, k: int, exclude: Sequence[Collection[str]] | None = None) -> list[list[Hit]]:
        """The k best (item, score) for each of vectors (R, d) among all items; `exclude` and errors as in `search_categories`."""
        now, vectors = self._snapshot, _queries(vectors, self.codebook.dim, k, None, exclude)
        found: list[list[Hit]] = [[] for _ in vectors]
        for block, scan, hidden in _parts(now, exclude, len(vectors)):
            if scan is None or len(vectors) >= self._exact_rows:
                hits = block.search(vectors, k, hidden)
            else:
                hits = _scanned(block, scan, vectors, np.tile(scan.all_lists, (len(vectors), 1)), k, hidden)
            found = [_joined(mine, more, k) for mine, more in zip(found, hits, strict=True)]
        return found

    def _limit(self) -> int:
        return max(SEGMENT_MIN, len(self._snapshot.base) // SEGMENT_SHARE)

    def _based(self, base: Block) -> Snapshot:
        scan = Scan(self.codebook, base) if len(base) > self._exact else None
        d, p = self.codebook.dim, self.codebook.subspaces
        return Snapshot(base, scan, NO_ROWS, Block([], [], np.empty((0, d), np.float32), np.empty((0, p), np.uint8)))

    def _accept(self, change: Change) -> Change:
        if isinstance(change, Delete):
            return change
        if change.generation != self.generation:
            raise GenerationMismatch(change.item, change.generation, self.generation)
        vector = _checked(np.array(change.vector, dtype=np.float32, ndmin=2), self.codebook.dim)[0]
        code = np.array(change.code, dtype=np.uint8)
        if code.shape != (self.codebook.subspaces,):
            raise ValueError(f"the code of item {change.item!r} must be ({self.codebook.subspaces},), got {code.shape}")
        return Upsert(change.item, change.category, vector, code, change.generation)


def _parts(
    now: Snapshot, exclude: Sequence[Collection[str]] | None, rows: int
) -> Iterable[tuple[Block, Scan | None, Hidden]]:
    for block, scan, dead in ((now.base, now.scan, now.dead), (now.segment, None, NO_ROWS)):
        if len(block):
            excluded = [NO_ROWS] * rows
            if exclude is not None:
                known = {id(items): items for items in exclude}
                found = {key: block.find(list(items)) if items else NO_ROWS for key, items in known.items()}
                excluded = [found[id(items)] for items in exclude]
            yield block, scan, Hidden(dead, excluded)


def _scanned(block: Block, scan: Scan, vectors: Floats, lists: Rows, k: int, hidden: Hidden) -> list[list[Hit]]:
    """Hits by codes and exact re-rank; enough is fetched that k are left when the excluded are taken out."""
    crowd = max(len(rows) for rows in hidden.excluded)
    fetch = min(max(RERANK * k, MIN_FETCH) + crowd, len(block))
    rows = scan.search(vectors, lists, fetch, hidden.dead)
    return [
        block.rerank(vector, mine, k, excluded)
        for vector, mine, excluded in zip(vectors, rows, hidden.excluded, strict=True)
    ]


def _joined(hits: list[Hit], more: list[Hit], k: int) -> list[Hit]:
    return sorted([*hits, *more], key=best_first)[:k] if hits and more else hits or more


def _checked(vectors: Floats, dim: int) -> Floats:
    if vectors.size and (vectors.ndim != 2 or vectors.shape[1] != dim or not np.isfinite(vectors).all()):
        raise ValueError(f"vectors must be finite and (n, {dim}), got {vectors.shape}")
    return vectors.reshape(len(vectors), dim)


def _queries(
    vectors: Floats, dim: int, k: int, categories: Sequence[str] | None, exclude: Sequence[Collection[str]] | None
) -> Floats:
    vectors = _checked(np.ascontiguousarray(vectors, dtype=np.float32), dim)
    for other in (categories, exclude):
        if other is not None and len(other) != len(vectors):
            raise ValueError(f"{len(vectors)} vectors, but {len(other)} categories or exclusions")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return vectors


__all__ = ["Change", "Delete", "GenerationMismatch", "ItemIndex", "Upsert"]
