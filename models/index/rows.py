"""Items as a struct of arrays, one row each: what blocks hold, and how rows are put in another order."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.codes.codebook import Codes, Floats
from models.index.ids import Numbers

Order = NDArray[np.int64]


class Rows(NamedTuple):
    """Arrays of equal length n, never changed once made. `parts` is there only in an index whose codes stand for other vectors."""

    numbers: Numbers  # (n,) int32: which item
    categories: Numbers  # (n,) int32
    vectors: Floats  # (n, d) float32
    prices: Floats  # (n,) float32
    available: NDArray[np.bool_]  # (n,)
    codes: Mapping[str, Codes]  # of each generation held: (n, P) uint8
    parts: Floats | None  # (n, D) float32

    @property
    def n(self) -> int:
        """How many."""
        return len(self.numbers)

    @property
    def coded(self) -> Floats:
        """What codes stand for: the parts where there are any, else the vectors."""
        return self.vectors if self.parts is None else self.parts


def empty(like: Rows) -> Rows:
    """No rows, of the same widths."""
    return gather(like, None, np.empty(0, dtype=np.int64))


def gather(first: Rows, second: Rows | None, order: Order) -> Rows:
    """Rows of `first` followed by `second`, in another order, some left out. Makes one copy and holds no lock of Python's for long."""

    def pick(name: str) -> NDArray:
        return picked(getattr(first, name), None if second is None else getattr(second, name), order)

    codes = {
        generation: picked(codes, None if second is None else second.codes[generation], order) for generation, codes in first.codes.items()
    }
    parts = None if first.parts is None else pick("parts")
    return Rows(pick("numbers"), pick("categories"), pick("vectors"), pick("prices"), pick("available"), codes, parts)


def picked(first: NDArray, second: NDArray | None, order: Order) -> NDArray:
    """Rows of two arrays, one after the other, in another order."""
    found = np.empty((len(order), *first.shape[1:]), dtype=first.dtype)
    if second is None or not len(second):
        return np.take(first, order, axis=0, out=found, mode="clip") if len(order) else found
    if not len(first):
        return np.take(second, order, axis=0, out=found, mode="clip")
    np.take(first, order, axis=0, out=found, mode="clip")
    new = np.flatnonzero(order >= len(first))
    found[new] = second[order[new] - len(first)]
    return found
