"""Sixteen levels a dimension: four bits say where an item lies around the centre of its cell. Made for faiss FastScan."""

import numpy as np
from numpy.typing import NDArray

from models.codes.codebook import Codes, Floats

LEVELS = 16
TRAINING = 65_536
_ROUNDS = 12
_CHUNK = 1_024


class Levels:
    """`values` (d, 16) float32, ascending in each dimension. A code of d dimensions takes (d + 1) // 2 bytes, the first in the low bits."""

    def __init__(self, values: Floats) -> None:
        self.values = np.ascontiguousarray(values, dtype=np.float32)
        self._middles = np.ascontiguousarray(((self.values[:, 1:] + self.values[:, :-1]) / 2).T)  # (15, d)

    @classmethod
    def train(cls, residuals: Floats) -> "Levels":
        """Lloyd's algorithm in each dimension of residuals (n, d), from quantiles; the same residuals give the same levels."""
        ordered = np.sort(residuals, axis=0).astype(np.float64)  # (n, d)
        n, dim = ordered.shape
        values = np.zeros((dim, LEVELS))
        if n:
            values = ordered[((np.arange(LEVELS) + 0.5) * n / LEVELS).astype(np.int64)].T.copy()
            sums = np.concatenate([np.zeros((1, dim)), np.cumsum(ordered, axis=0)])
            for column in range(dim):
                for _ in range(_ROUNDS):
                    middles = (values[column, 1:] + values[column, :-1]) / 2
                    edges = np.concatenate(([0], np.searchsorted(ordered[:, column], middles, side="right"), [n]))
                    counts = np.diff(edges)
                    some = counts > 0
                    values[column, some] = np.diff(sums[edges, column])[some] / counts[some]
                    values[column].sort()
        return cls(values.astype(np.float32))

    def encode(self, residuals: Floats) -> Codes:
        """Codes (n, (d + 1) // 2) uint8 of residuals (n, d): the nearest level of each dimension."""
        n, dim = residuals.shape
        codes = np.zeros((n, dim + dim % 2), dtype=np.uint8)
        for start in range(0, n, _CHUNK):
            part, chunk = codes[start : start + _CHUNK, :dim], residuals[start : start + _CHUNK]
            for middle in self._middles:
                part += chunk > middle
        return codes[:, ::2] | (codes[:, 1::2] << 4)

    def decode(self, codes: Codes) -> Floats:
        """The residuals (n, d) that codes stand for."""
        pairs = np.stack([codes & 15, codes >> 4], axis=2).reshape(len(codes), -1)[:, : len(self.values)]
        return self.values[np.arange(len(self.values)), pairs]


def sample(n: int, seed: int = 0) -> NDArray[np.int64]:
    """At most `TRAINING` of n rows, ascending, drawn by the seed."""
    if n <= TRAINING:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, TRAINING, replace=False))
