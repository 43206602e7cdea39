"""Items as a struct of arrays, one row per item, and the numbers that stand for their names."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.codes.codebook import Codes, Floats

Numbers = NDArray[np.int32]
NONE = -1


class Ids:
    """A registry that only grows: names get the numbers 0, 1, 2, ... in the order in which they come, for ever.

    `find` and `names` need no lock. `add` is called under a lock of the owner's, one call at a time.

    Raises:
        ValueError: a name that comes twice in `names`.
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        self._numbers: dict[str, int] = dict(zip(names, range(len(names)), strict=True))
        if len(self._numbers) != len(names):
            raise ValueError(f"{len(names)} names, {len(self._numbers)} different ones")
        self._names = np.empty(max(1024, len(names) + len(names) // 8), dtype=object)  # an array: the garbage collector passes it by
        self._names[: len(names)] = names

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, name: str) -> int:
        """The number of a name, -1 for an unknown one."""
        return self._numbers.get(name, NONE)

    def find(self, names: Iterable[str]) -> Numbers:
        """The numbers of names, -1 for unknown ones."""
        get = self._numbers.get
        return np.array([get(name, NONE) for name in names], dtype=np.int32)

    def names(self, numbers: NDArray[np.integer]) -> list[str]:
        """The names of numbers that `add` gave out."""
        found: list[str] = self._names[numbers].tolist()
        return found

    def add(self, names: Iterable[str]) -> Numbers:
        """The numbers of names; unknown ones get the next."""
        known, found = self._numbers, []
        for name in names:
            number = known.get(name)
            if number is None:
                number = len(known)
                if number == len(self._names):
                    self._grow()
                self._names[number] = name  # before the number can be found
                known[name] = number
            found.append(number)
        return np.array(found, dtype=np.int32)

    def _grow(self) -> None:
        larger = np.empty(2 * len(self._names), dtype=object)
        larger[: len(self._names)] = self._names
        self._names = larger


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

    def pick(name: str) -> NDArray[Any]:
        return picked(getattr(first, name), None if second is None else getattr(second, name), order)

    codes = {
        generation: picked(codes, None if second is None else second.codes[generation], order) for generation, codes in first.codes.items()
    }
    parts = None if first.parts is None else pick("parts")
    return Rows(pick("numbers"), pick("categories"), pick("vectors"), pick("prices"), pick("available"), codes, parts)


def picked(first: NDArray[Any], second: NDArray[Any] | None, order: Order) -> NDArray[Any]:
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
