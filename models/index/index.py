"""Index of items: search in chosen categories, or in the whole pool, while items come, change and go.

What a search sees is one immutable snapshot: a large base block, a small fresh segment of what changed since, and the rows
of the base that are dead. A change makes a new snapshot and swaps one reference; compaction folds the segment into a new base.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock

import numpy as np

from models.codes.codebook import Codebook, Codes, Floats
from models.index import generations, snapshots
from models.index import persistence as stored
from models.index import validation as incoming
from models.index.cells import Sizes
from models.index.changes import Change, Delete, Upsert
from models.index.rows import Ids, Rows
from models.index.snapshots import Snapshot
from models.index.view import View, checked


class ItemIndex:
    """Items by category, with codes of one or more generations; all methods may be called by any thread at any time.

    A `look` sees every change whose `apply` returned before it, and no half of one.

    Args:
        codebook: the generation that serves; its d is that of the vectors, or that of `parts`.
        vectors: (n, d).
        item_ids: n of them, all different.
        categories: of each item.
        codes: (n, P) under the codebook; None: they are made here.
        prices: (n,), else 0.
        available: (n,), else true.
        parts: (n, D), what codes stand for where that is not the vectors.
        sizes: thresholds.

    Raises:
        ValueError: arrays that differ in number or width, an id that comes twice, or a vector that is not finite.
    """

    _snapshot: Snapshot  # replaced as a whole, never changed

    def __init__(  # noqa: PLR0913
        self,
        codebook: Codebook,
        vectors: Floats,
        item_ids: Sequence[str],
        categories: Sequence[str],
        codes: Codes | None = None,
        prices: Floats | None = None,
        available: Sequence[bool] | None = None,
        parts: Floats | None = None,
        *,
        sizes: Sizes | None = None,
    ) -> None:
        n = len(item_ids)
        if not len(vectors) == n == len(categories):
            raise ValueError(f"{len(vectors)} vectors, {n} ids, {len(categories)} categories")
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        vectors = checked(vectors, codebook.dim if vectors.ndim != 2 or parts is None else vectors.shape[1])
        if parts is not None:
            parts = checked(np.ascontiguousarray(parts, dtype=np.float32), codebook.dim)
        codes = codebook.encode(vectors if parts is None else parts) if codes is None else np.asarray(codes, dtype=np.uint8)
        if codes.shape != (n, codebook.subspaces):
            raise ValueError(f"codes must be ({n}, {codebook.subspaces}), got {codes.shape}")
        items, lists, sizes = Ids(item_ids), Ids(), sizes or Sizes()
        rows = Rows(
            np.arange(n, dtype=np.int32),
            lists.add(categories),
            vectors,
            incoming.filled(prices, n, 0.0, np.float32),
            incoming.filled(available, n, True, np.bool_),
            {codebook.generation: codes},
            parts,
        )
        self._start(snapshots.started(codebook, rows, len(lists), sizes), items, lists, sizes)

    def look(self) -> View:
        """What is held at this moment."""
        return View(self._snapshot, self._items, self._categories)

    def __len__(self) -> int:
        return self._snapshot.size()

    def __contains__(self, item: object) -> bool:
        return isinstance(item, str) and self.category_of(item) is not None

    @property
    def dim(self) -> int:
        """d of the vectors."""
        return int(self._snapshot.base.rows.vectors.shape[1])

    @property
    def generation(self) -> str:
        """The generation of codes that serves."""
        return self._snapshot.generation

    @property
    def codebook(self) -> Codebook:
        """The codebook that serves."""
        now = self._snapshot
        return now.codebooks[now.generation]

    @property
    def held(self) -> tuple[str, ...]:
        """The generations of codes that are held, in the order in which they came."""
        return tuple(self._snapshot.codebooks)

    @property
    def codebooks(self) -> Mapping[str, Codebook]:
        """The codebooks of the generations that are held, by generation."""
        return self._snapshot.codebooks

    @property
    def coded_apart(self) -> bool:
        """Whether codes stand for parts that are not the vectors."""
        return self._snapshot.base.rows.parts is not None

    @property
    def categories(self) -> list[str]:
        """Categories that have an item, ascending."""
        now = self._snapshot
        base = now.base.rows.categories if now.alive is None else now.base.rows.categories[now.alive]
        return sorted(self._categories.names(np.union1d(base, now.segment.rows.categories)))

    @property
    def changes(self) -> int:
        """Items changed since the last compaction."""
        return self._snapshot.changes()

    @property
    def compaction_due(self) -> bool:
        """Whether changes since the last compaction begin to slow searches: call `compact` in a thread of your own."""
        return self._snapshot.changes() > self._sizes.segment

    def category_of(self, item: str) -> str | None:
        """The category of an item, None for an unknown one."""
        view = self.look()
        number = int(view.category_numbers(self._items.find([item]))[0])
        return None if number < 0 else view.category_name(number)

    def apply(self, changes: Sequence[Change]) -> None:
        """Make changes, in their order, visible at once to every look after this returns.

        Costs a copy of the segment: give batches. What is already so is no change. Codes of other generations that are held are made here.
        Where nobody compacts, this does in the end.

        Raises:
            GenerationError: a code of a generation that is not held; ValueError: a vector, code, parts or price of another shape, or not
                finite. Nothing is applied then.
        """
        latest = {change.item: change for change in changes}
        new = [change for change in latest.values() if isinstance(change, Upsert)]
        gone = [change.item for change in latest.values() if isinstance(change, Delete)]
        with self._changing:
            rows = incoming.accepted(self._snapshot, new, self._items, self._categories)
            numbers = self._items.find(gone)
            now = snapshots.changed(self._snapshot, rows, numbers[numbers >= 0])
            now.sieve(None)  # made here, so that no search has to
            self._snapshot = now
            overdue = now.changes() > self._sizes.overdue * max(self._sizes.segment, len(now.base) // 32)
        if overdue:
            self.compact()

    def compact(self) -> None:
        """Fold all changes so far into a new base. Searches and `apply` go on meanwhile; a second call waits for the first."""
        with self._rebuilding:
            old = self._snapshot
            if old.changes():
                base = snapshots.folded(old, len(self._categories), self._sizes)
                with self._changing:
                    self._snapshot = snapshots.compacted(old, self._snapshot, base)

    def hold(self, codebook: Codebook, changed: Mapping[str, Codes] | None = None, unchanged_from: str | None = None) -> None:
        """Have codes of all items under another codebook too. Searches and `apply` go on meanwhile; what serves stays.

        Args:
            codebook: the generation to hold; one that is held already is built again.
            changed: codes (P,) by item that are known; unknown items are passed over.
            unchanged_from: a generation held, whose codes all other items keep; None: they are encoded here.

        Raises:
            GenerationError: `unchanged_from` is not held; ValueError: a codebook for vectors of another d.
        """
        with self._rebuilding:
            known = generations.given(changed or {}, self._items, codebook)
            base = generations.codes(self._snapshot, self._snapshot.base.rows, codebook, known, unchanged_from)
            with self._changing:
                fresh = generations.codes(self._snapshot, self._snapshot.segment.rows, codebook, known, unchanged_from)
                self._snapshot = snapshots.holding(self._snapshot, codebook, base, fresh)

    def serve(self, generation: str) -> None:
        """Let a generation that is held serve from now on, at once; going back is the same call.

        Raises:
            GenerationError: it is not held.
        """
        with self._changing:
            generations.check(self._snapshot, "the codebook to serve", generation)
            self._snapshot = self._snapshot._replace(generation=generation)

    def drop(self, generation: str) -> None:
        """Hold a generation no longer; nothing happens where it is not held.

        Raises:
            ValueError: it serves.
        """
        with self._changing:
            self._snapshot = snapshots.without(self._snapshot, generation)

    def save(self, directory: Path, extra: bytes = b"") -> None:
        """Write all that is held, and `extra`, into a directory; one that stood there is replaced at the end. Compacts first.

        What was applied before the call is in it; what is applied during it may not be.
        """
        self.compact()
        now = self._snapshot
        stored.save(stored.SavedBase(now.base, now.codebooks, now.generation, extra), directory, self._items, self._categories)

    @classmethod
    def load(cls, directory: Path, sizes: Sizes | None = None) -> tuple["ItemIndex", bytes]:
        """A saved index, without clustering or encoding anything again, and the `extra` that was saved with it.

        Raises:
            SnapshotError: a file is missing or changed, or parts do not belong together.
        """
        found, items, categories = stored.load(directory)
        index = object.__new__(cls)
        index._start(snapshots.fresh(found.base, found.codebooks, found.generation), items, categories, sizes)
        return index, found.extra

    def _start(self, snapshot: Snapshot, items: Ids, categories: Ids, sizes: Sizes | None) -> None:
        self._items, self._categories, self._sizes = items, categories, sizes or Sizes()
        self._changing = Lock()  # held for the moment of a change
        self._rebuilding = Lock()  # held for as long as a compaction, or making codes of another generation, takes
        self._snapshot = snapshot
