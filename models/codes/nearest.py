"""The nearest centroid in each sub-space, exactly: by squared distance in float64, ties to the lower number.

BLAS in float32 proposes and a bound on its error says where that cannot tell; only there float64 decides. So every machine,
batch size and BLAS gives the same answer, at the speed of float32.
"""

import numpy as np
from numpy.typing import NDArray

PARTS = 512  # compared with 256 centroids at once: 512 kB of nearness, which a core's own cache holds
ALONE = 1 << 18  # multiply-adds of one product: of more BLAS wakes other threads, which costs more than they save

Floats = NDArray[np.float32]
Codes = NDArray[np.uint8]
Doubles = NDArray[np.float64]


class Nearest:
    """Which of the centroids (P, C, w) float32, all finite, is nearest."""

    def __init__(self, centroids: Floats) -> None:
        self._centroids = centroids
        norms = np.square(centroids, dtype=np.float64).sum(axis=2, keepdims=True)  # (P, C, 1)
        self._longest = np.sqrt(norms.max(axis=1))  # (P, 1)
        with np.errstate(over="ignore"):
            folded = np.concatenate([centroids, (-norms / 2).astype(np.float32)], axis=2)  # (P, C, w + 1)
        self._rows = min(PARTS, max(PARTS // 16, ALONE // (centroids.shape[1] * (centroids.shape[2] + 1))))
        self._folded = np.ascontiguousarray(folded.transpose(0, 2, 1))  # nearness = (x, 1) . (c, -|c|^2 / 2)

    def codes(self, vectors: Floats) -> Codes:
        """Numbers (n, P) of the centroids, up to 256 of them, nearest to the parts of finite vectors (n, P * w)."""
        codes = np.empty((len(vectors), len(self._centroids)), dtype=np.uint8)
        for start in range(0, len(vectors), self._rows):
            codes[start : start + self._rows] = self._find(vectors[start : start + self._rows])
        return codes

    def _find(self, vectors: Floats) -> NDArray[np.intp]:
        """Numbers (m, P) for up to `_rows` vectors."""
        m, (subspaces, _, width) = len(vectors), self._centroids.shape
        parts = np.ones((subspaces, m, width + 1), dtype=np.float32)
        parts[:, :, :width] = vectors.reshape(m, subspaces, width).transpose(1, 0, 2)
        found = np.empty((subspaces, m), dtype=np.intp)
        step = PARTS // m
        with np.errstate(over="ignore", invalid="ignore"):
            doubt = self._doubt(parts[:, :, :width])  # (P, m)
            for p in range(0, subspaces, step):
                here = slice(p, p + step)
                found[here], unsure = _two_best(np.matmul(parts[here], self._folded[here]), doubt[here])
                for at in np.flatnonzero(unsure.any(axis=1)):
                    rows = np.flatnonzero(unsure[at])
                    found[p + at, rows] = distances(parts[p + at, rows, :width], self._centroids[p + at]).argmin(axis=1)
        return found.T

    def _doubt(self, parts: Floats) -> Doubles:
        """How far (P, m) two values of nearness must lie apart to be told apart, for parts (P, m, w)."""
        lengths = np.sqrt(np.einsum("pmw,pmw->pm", parts, parts).astype(np.float64))
        reach = lengths * (1 + 2.0**-16) + self._longest
        error32, error64, underflow = 2.0**-22 * reach * self._longest, 2.0**-50 * reach * reach, 1e-36
        found: Doubles = (parts.shape[2] + 4) * (error32 + error64 + underflow)
        return found


def distances(parts: Floats, centroids: Floats) -> Doubles:
    """Squared distances (n, C) in float64 of parts (n, w) and centroids (C, w), summed in the order of the dimensions."""
    total = np.zeros((len(parts), len(centroids)))
    for column in range(parts.shape[1]):
        total += np.square(parts[:, column, None].astype(np.float64) - centroids[None, :, column])
    return total


def _two_best(nearness: Floats, doubt: Doubles) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """The best (G, m) of nearness (G, m, C), which is overwritten, and where the second best comes too near to tell."""
    groups, rows = np.arange(len(nearness))[:, None], np.arange(nearness.shape[1])
    best = nearness.argmax(axis=2)
    top = nearness[groups, rows, best]
    nearness[groups, rows, best] = -np.inf
    second = nearness[groups, rows, nearness.argmax(axis=2)]
    return best, ~(second < top - doubt)  # what is not a number is unsure too
