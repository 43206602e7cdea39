"""What an index holds at one moment, and the changes that lead to the next: immutable, pure."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.codes.codebook import Codebook, Codes
from models.index.block import Block, build
from models.index.cells import Sizes
from models.index.changes import Where
from models.index.filters import Sieve
from models.index.rows import Numbers, Rows, empty, gather
from models.index.segment import Segment

_SIEVES = 8  # filters that a snapshot remembers


class Snapshot(NamedTuple):
    """A large base, a small segment of what came since, and the rows of the base that are gone or replaced."""

    base: Block
    segment: Segment
    dead: NDArray[np.int64]  # rows of the base, ascending
    alive: NDArray[np.bool_] | None  # (n,) of the base; None where none is dead
    codebooks: Mapping[str, Codebook]  # by generation: those whose codes are held
    generation: str  # the one that serves
    stamp: int  # number of the last change
    sieves: dict[Where | None, Sieve]  # made when first asked for

    def size(self) -> int:
        """Items that are there."""
        return len(self.base) + len(self.segment) - len(self.dead)

    def changes(self) -> int:
        """Items changed since the base was made: what slows a search, and a compaction would fold."""
        return max(len(self.segment), len(self.dead))

    def find(self, numbers: Numbers) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where items are: rows of the base and rows of the segment, -1 for nowhere."""
        fresh = self.segment.find(numbers)
        rows = self.base.find(numbers)
        if self.alive is not None:
            rows[(rows >= 0) & ~self.alive[rows]] = -1
        return rows, fresh

    def sieve(self, where: Where | None) -> Sieve:
        """The rows of the base that a search may return."""
        found = self.sieves.get(where)
        if found is None:
            passing = None if where is None else self.base.passing(where)
            if passing is None:
                mask, before, dead = self.alive, None, self.dead
            else:
                mask = passing.mask if self.alive is None else passing.mask & self.alive
                before, dead = passing.before, self.dead[passing.mask[self.dead]]
            found = Sieve(mask, None if mask is None else np.packbits(mask, bitorder="little"), before, dead)
            if len(self.sieves) >= _SIEVES:
                self.sieves.clear()
            self.sieves[where] = found
        return found


def started(codebook: Codebook, rows: Rows, categories: int, sizes: Sizes) -> Snapshot:
    """The first snapshot, of rows in any order."""
    nothing = empty(rows)
    none = Block(nothing, np.zeros(1, dtype=np.int64), None)
    base = build(none, np.empty(0, dtype=np.int64), rows, categories, sizes)
    return fresh(base, {codebook.generation: codebook}, codebook.generation)


def fresh(base: Block, codebooks: Mapping[str, Codebook], generation: str) -> Snapshot:
    """A base to which nothing was changed yet."""
    segment = Segment(empty(base.rows), np.empty(0, dtype=np.int64))
    return Snapshot(base, segment, np.empty(0, dtype=np.int64), None, codebooks, generation, 0, {})


def changed(now: Snapshot, new: Rows, gone: Numbers) -> Snapshot:
    """The snapshot with some rows new or replaced, and some items gone; the same one where that changes nothing."""
    real = np.flatnonzero(~_so(now, new))
    new = gather(new, None, real)
    touched = np.concatenate([new.numbers, gone])
    replaced = now.base.find(touched)
    replaced = replaced[replaced >= 0]
    if now.alive is not None:
        replaced = replaced[now.alive[replaced]]
    keep = now.segment.without(touched)
    if not new.n and not len(replaced) and len(keep) == len(now.segment):
        return now
    stamp = now.stamp + 1
    dead, alive = now.dead, now.alive
    if len(replaced):
        dead = np.sort(np.concatenate([dead, replaced]))
        alive = np.ones(len(now.base), dtype=np.bool_) if alive is None else alive.copy()
        alive[replaced] = False
    return now._replace(segment=now.segment.joined(keep, new, stamp), dead=dead, alive=alive, stamp=stamp, sieves={})


def compacted(old: Snapshot, now: Snapshot, base: Block) -> Snapshot:
    """The snapshot of a base made of an old snapshot's rows, with what was changed since then on top."""
    later = np.flatnonzero(now.segment.stamps > old.stamp)
    lost = old.segment.rows.numbers[~np.isin(old.segment.rows.numbers, now.segment.rows.numbers)]
    died = old.base.rows.numbers[np.setdiff1d(now.dead, old.dead, assume_unique=True)]
    rows = base.find(np.concatenate([now.segment.rows.numbers[later], lost, died]))
    alive = np.ones(len(base), dtype=np.bool_)
    alive[rows[rows >= 0]] = False
    dead = np.flatnonzero(~alive)
    segment = Segment(gather(now.segment.rows, None, later), now.segment.stamps[later])
    base = base.recoded({generation: codes for generation, codes in base.rows.codes.items() if generation in now.codebooks})
    return now._replace(base=base, segment=segment, dead=dead, alive=alive if len(dead) else None, sieves={})


def folded(old: Snapshot, categories: int, sizes: Sizes) -> Block:
    """A base of all that a snapshot holds."""
    kept = np.arange(len(old.base)) if old.alive is None else np.flatnonzero(old.alive)
    return build(old.base, kept, old.segment.rows, categories, sizes)


def holding(now: Snapshot, codebook: Codebook, base: Codes, segment: Codes) -> Snapshot:
    """The snapshot with codes of one more generation in the rows of its base and its segment."""
    name = codebook.generation
    return _recoded(now, {**now.codebooks, name: codebook}, {**now.base.rows.codes, name: base}, {**now.segment.rows.codes, name: segment})


def without(now: Snapshot, generation: str) -> Snapshot:
    """The snapshot without the codes of a generation, which does not serve."""
    if generation == now.generation:
        raise ValueError(f"generation {generation} serves: let another one serve first")
    kept = {name: codebook for name, codebook in now.codebooks.items() if name != generation}
    return _recoded(now, kept, {name: now.base.rows.codes[name] for name in kept}, {name: now.segment.rows.codes[name] for name in kept})


def _recoded(now: Snapshot, codebooks: Mapping[str, Codebook], base: Mapping[str, Codes], segment: Mapping[str, Codes]) -> Snapshot:
    rows = now.segment.rows._replace(codes=segment)
    return now._replace(base=now.base.recoded(base), segment=Segment(rows, now.segment.stamps), codebooks=codebooks)


def _so(now: Snapshot, new: Rows) -> NDArray[np.bool_]:
    """Which rows (n,) are there already, just so."""
    rows, fresh_rows = now.find(new.numbers)
    same = np.zeros(new.n, dtype=np.bool_)
    for stored, places in ((now.base.rows, rows), (now.segment.rows, fresh_rows)):
        here = np.flatnonzero(places >= 0)
        at = places[here]
        equal = (stored.vectors[at] == new.vectors[here]).all(axis=1)
        for name in ("categories", "prices", "available"):
            equal &= getattr(stored, name)[at] == getattr(new, name)[here]
        for generation, codes in stored.codes.items():
            equal &= (codes[at] == new.codes[generation][here]).all(axis=1)
        if stored.parts is not None and new.parts is not None:
            equal &= (stored.parts[at] == new.parts[here]).all(axis=1)
        same[here] = equal
    return same
