"""What a search must not return: dead rows, rows that a filter holds back, and items that one of its queries excludes."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.codes.codebook import Codes
from models.index.rows import Ids, Numbers

Exclude = Sequence[Collection[str] | Numbers]


class Sieve(NamedTuple):
    """The rows of a block that a search may return. `mask` (n,) and `bits` (a bit a row) are None where all may.

    `before` (n + 1,) counts the rows that pass the filter, None without one; `dead` are those of them that are gone, ascending.
    """

    mask: NDArray[np.bool_] | None
    bits: Codes | None
    before: Numbers | None
    dead: NDArray[np.int64]

    def visible(self, low: NDArray[np.int64], high: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many rows of each range may be returned."""
        passing = high - low if self.before is None else self.before[high].astype(np.int64) - self.before[low]
        if not len(self.dead):
            return passing
        return passing - np.searchsorted(self.dead, high) + np.searchsorted(self.dead, low)


class Excluded(NamedTuple):
    """Items that queries exclude: those of set s are `numbers` where `sets` is s; query r has the set owner[r]."""

    owner: NDArray[np.int64]  # (R,)
    sets: NDArray[np.int64]  # (E,)
    numbers: Numbers  # (E,)

    @classmethod
    def of(cls, exclude: Exclude | None, ids: Ids) -> "Excluded | None":
        """From a collection of item ids (or an array of numbers) for each query; queries may share one. None where nothing is excluded."""
        if exclude is None:
            return None
        known: dict[int, int] = {}
        owner = np.fromiter((known.setdefault(id(items), len(known)) for items in exclude), np.int64, len(exclude))
        distinct = {id(items): items for items in exclude}
        found = [items.astype(np.int32) if isinstance(items, np.ndarray) else ids.find(items) for items in distinct.values()]
        if not any(len(numbers) for numbers in found):
            return None
        return cls(owner, np.repeat(np.arange(len(found)), [len(numbers) for numbers in found]), np.concatenate(found))

    def inside(self, rows: NDArray[np.int64], n: int, mask: NDArray[np.bool_] | None) -> "Struck":
        """The same for a block of n rows; `rows` (E,) says where each number lies, -1 for nowhere. Only rows of the mask are kept."""
        here = rows >= 0
        if mask is not None:
            here &= mask[np.where(here, rows, 0)] if len(mask) else False
        keys = np.sort(self.sets[here] * (n + 1) + rows[here])
        return Struck(self.owner, keys[np.diff(keys, prepend=-1) > 0], n + 1)


class Struck(NamedTuple):
    """Rows of one block that queries exclude: `keys` ascending, set * stride + row."""

    owner: NDArray[np.int64]  # (R,)
    keys: NDArray[np.int64]
    stride: int

    def spans(self, low: NDArray[np.int64], high: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each query the keys of its set within its range of rows: first, and after the last."""
        base = self.owner * self.stride
        return np.searchsorted(self.keys, base + low), np.searchsorted(self.keys, base + high)

    def pairs(
        self, queries: NDArray[np.int64], low: NDArray[np.int64], high: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Each row that one of `queries` (R',) excludes in its range, as (place among these queries, row)."""
        base = self.owner[queries] * self.stride
        first, last = np.searchsorted(self.keys, base + low), np.searchsorted(self.keys, base + high)
        counts = last - first
        place = np.repeat(np.arange(len(queries)), counts)
        return place, self.keys[np.arange(len(place)) + np.repeat(first - np.cumsum(counts) + counts, counts)] % self.stride

    def strike(self, candidates: NDArray[np.int64], queries: NDArray[np.int64]) -> None:
        """Replace by -1 each candidate (R', m) of `queries` (R',) that it excludes; none is below -1.

        A table of hashes passes over nearly all candidates, so that only a few are looked up.
        """
        bits = max(10, (16 * len(self.keys)).bit_length())
        seen = np.zeros(1 << bits, dtype=np.bool_)
        seen[_hashed(self.keys, bits)] = True
        keys = candidates + (self.owner[queries] * self.stride)[:, None]  # that of -1 is no row's key: a stride is one longer than a block
        suspects = np.flatnonzero(seen[_hashed(keys.ravel(), bits)])
        wanted = keys.ravel()[suspects]
        place = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        candidates.ravel()[suspects[self.keys[place] == wanted]] = -1


def _hashed(keys: NDArray[np.int64], bits: int) -> NDArray[np.uint64]:
    return (keys.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - bits)
