"""A bounded sample of the newest vectors of items, on which drift is measured."""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from math import log
from typing import NamedTuple

import numpy as np

from models.codes.nearest import Floats


class ReservoirSample(NamedTuple):
    """Items in the order of their ids, and the vectors (m, D) float32 that their codes stand for."""

    items: list[str]
    vectors: Floats


class Reservoir:
    """Up to `capacity` items, each with its newest vector; who is in it follows from seed, ids and order of arrival alone.

    An item's lot is a number drawn from its id by the seed; the smallest lots stay (bottom-k sampling, the order-free form
    of algorithm R). So each item that was ever put counts once, however often its vector changed, a newer vector replaces
    the older, and the sample is a uniform one of the catalogue: a bad fit of a twentieth of the items weighs a twentieth.
    With `half_life` an item whose newest vector came that many vectors ago is half as likely to be in the sample as
    one that came now (forward decay of the weights): it then answers for what is new rather than for all.

    Not thread-safe.

    Raises:
        ValueError: a capacity or half-life that is not positive.
    """

    def __init__(self, capacity: int = 16_384, seed: int = 0, half_life: float | None = None) -> None:
        if capacity < 1 or (half_life is not None and half_life <= 0):
            raise ValueError(f"capacity and half-life must be positive, got {capacity} and {half_life}")
        self._capacity = capacity
        self._key = seed.to_bytes(8, "little", signed=True)
        self._aging = 0.0 if half_life is None else log(2) / half_life
        self._arrived = 0
        self._lots: dict[str, float] = {}
        self._vectors: dict[str, Floats] = {}
        self._bar = np.inf  # a lot beyond it is not among the smallest

    def __len__(self) -> int:
        return min(len(self._lots), self._capacity)

    def put(self, items: Sequence[str], vectors: Floats) -> None:
        """Take the newest vectors (n, D) of items, in the order of their arrival; one that is not finite is left out.

        Raises:
            ValueError: another number of vectors than of items.
        """
        vectors = np.array(vectors, dtype=np.float32, ndmin=2)
        if len(vectors) != len(items):
            raise ValueError(f"{len(items)} items cannot have {len(vectors)} vectors")
        finite = np.asarray(np.isfinite(vectors).all(axis=1))
        for item, vector, good in zip(items, vectors, finite.tolist(), strict=True):
            self._arrived += 1
            lot = self._lot(item)
            if not good or (lot > self._bar and item not in self._lots):
                continue
            self._lots[item], self._vectors[item] = lot, vector.copy()
            if len(self._lots) >= 2 * self._capacity:
                self._prune()

    def drop(self, items: Iterable[str]) -> None:
        """Forget deleted items: the sample shrinks as the catalogue does, and stays uniform."""
        for item in items:
            if self._lots.pop(item, None) is not None:
                del self._vectors[item]

    def sample(self) -> ReservoirSample:
        """What is in it now."""
        self._prune()
        items = sorted(self._lots)
        return ReservoirSample(items, np.stack([self._vectors[item] for item in items]) if items else np.zeros((0, 0), np.float32))

    def _lot(self, item: str) -> float:
        """The logarithm of an exponential variate of the item, less what newer arrivals are preferred by."""
        digest = blake2b(item.encode(), digest_size=8, key=self._key).digest()
        uniform = (int.from_bytes(digest, "little") + 1) / 2.0**64
        return log(-log(uniform) + 1e-300) - self._aging * self._arrived

    def _prune(self) -> None:
        if len(self._lots) <= self._capacity:
            return
        items, lots = list(self._lots), np.fromiter(self._lots.values(), np.float64, len(self._lots))
        keep = np.argsort(lots, kind="stable")[: self._capacity]
        self._bar = float(lots[keep[-1]])
        kept = [items[at] for at in keep.tolist()]
        self._lots = {item: self._lots[item] for item in kept}
        self._vectors = {item: self._vectors[item] for item in kept}
