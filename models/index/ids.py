"""Names and their numbers: what lets blocks, searches and compaction work on plain integers."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

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
        return self._names[numbers].tolist()

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
