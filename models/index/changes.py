"""What goes into an index and what comes out: changes, filters, answers, and the error of codes that do not belong."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.codes.codebook import Codes, Floats


class Upsert(NamedTuple):
    """An item is new or changed: vector (d,) float32, and its code (P,) uint8 under the codebook `generation`.

    `parts` (D,) is what the code stands for where that is not the vector itself (models/codes/modalities.py).
    """

    item: str
    category: str
    vector: Floats
    code: Codes
    generation: str
    price: float = 0.0
    available: bool = True
    parts: Floats | None = None


class Delete(NamedTuple):
    """An item is gone; deleting an unknown one does nothing."""

    item: str


Change = Upsert | Delete


class Where(NamedTuple):
    """Which items a search may return: those with least_price <= price <= most_price, and available where that is asked for."""

    least_price: float | None = None
    most_price: float | None = None
    available: bool = False

    @property
    def all(self) -> bool:
        """Whether it lets every item pass."""
        return self == Where()

    def passes(self, prices: Floats, available: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Mask (n,) of items that pass."""
        mask = available.copy() if self.available else np.ones(len(prices), dtype=np.bool_)
        if self.least_price is not None:
            mask &= prices >= np.float32(self.least_price)
        if self.most_price is not None:
            mask &= prices <= np.float32(self.most_price)
        return mask


class Found(NamedTuple):
    """Hits of R searches, best first, ties by item id: numbers (R, k) int32, -1 for none; scores (R, k) float32, -inf for none."""

    numbers: NDArray[np.int32]
    scores: Floats

    @classmethod
    def nothing(cls, rows: int, k: int) -> "Found":
        """No hit for any of some rows."""
        return cls(np.full((rows, k), -1, dtype=np.int32), np.full((rows, k), -np.inf, dtype=np.float32))
