"""What an index holds at one moment, and the changes that lead to the next: immutable, pure."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.blocks import Block, Rows, Scan
from models.codebook import Codes, Floats


class Upsert(NamedTuple):
    """An item is new or changed: vector (d,) float32, and its code (P,) uint8 under the codebook `generation`."""

    item: str
    category: str
    vector: Floats
    code: Codes
    generation: str


class Delete(NamedTuple):
    """An item is gone; deleting an unknown one does nothing."""

    item: str


Change = Upsert | Delete


class Snapshot(NamedTuple):
    """A large base, a small segment of what came since, and the rows of the base that were deleted or replaced, ascending."""

    base: Block
    scan: Scan | None  # none while every search of the base is exact
    dead: Rows
    segment: Block

    def size(self) -> int:
        """Items that are there."""
        return len(self.base) + len(self.segment) - len(self.dead)

    def changes(self) -> int:
        """Items changed since the base was made: what a compaction would fold."""
        return len(self.segment) + len(self.dead)

    def alive(self) -> NDArray[np.bool_]:
        """Mask over the rows of the base."""
        alive = np.ones(len(self.base), dtype=np.bool_)
        alive[self.dead] = False
        return alive

    def find(self, item: str) -> tuple[Block, int] | None:
        """Block and row of an item; None where it is not there."""
        row = self.segment.rows.get(item)
        if row is not None:
            return self.segment, row
        row = self.base.rows.get(item)
        if row is None:
            return None
        at = int(np.searchsorted(self.dead, row))
        return None if at < len(self.dead) and self.dead[at] == row else (self.base, row)


def changed(now: Snapshot, latest: Mapping[str, Change]) -> Snapshot:
    """The snapshot with the last change of each item made; the same one where that changes nothing."""
    real = [change for change in latest.values() if not _is_so(now, change)]
    if not real:
        return now
    touched = [change.item for change in real]
    new = [change for change in real if isinstance(change, Upsert)]
    old = now.segment
    keep = np.ones(len(old), dtype=np.bool_)
    keep[old.find(touched)] = False
    segment = Block(
        [*old.items[keep].tolist(), *(change.item for change in new)],
        [*old.categories(keep), *(change.category for change in new)],
        np.concatenate([old.vectors[keep], *(change.vector[None] for change in new)]),
        np.concatenate([old.codes[keep], *(change.code[None] for change in new)]),
    )
    return now._replace(dead=np.union1d(now.dead, now.base.find(touched)), segment=segment)


def _is_so(now: Snapshot, change: Change) -> bool:
    found = now.find(change.item)
    if found is None or isinstance(change, Delete):
        return found is None and isinstance(change, Delete)
    block, row = found
    same = block.category(row) == change.category and np.array_equal(block.vectors[row], change.vector)
    return bool(same and np.array_equal(block.codes[row], change.code))


def merged(now: Snapshot) -> Block:
    """All living items of a snapshot in one block."""
    alive, base, new = now.alive(), now.base, now.segment
    return Block(
        [*base.items[alive].tolist(), *new.items.tolist()],
        [*base.categories(alive), *new.categories(np.ones(len(new), dtype=np.bool_))],
        np.concatenate([base.vectors[alive], new.vectors]),
        np.concatenate([base.codes[alive], new.codes]),
    )
