"""Product quantiser: P sub-spaces of d/P dimensions, C centroids each; an item's code is P bytes (papers, section 2.3).

Codes belong to the item and outlive the process that made them, so `encode` is defined exactly: the nearest centroid by
squared distance in float64, ties to the lower number. Every machine, batch size and BLAS gives the same bytes.
"""

from hashlib import blake2b

import faiss
import numpy as np
from numpy.typing import NDArray

MAX_CENTROIDS = 256
TRAINING_VECTORS = 65_536
_CHUNK = 16_384

Floats = NDArray[np.float32]
Codes = NDArray[np.uint8]


class Codebook:
    """Centroids (P, C, d/P) float32, C <= 256, never changed. `generation` names them: equal centroids, equal name.

    Raises:
        ValueError: centroids of another rank or type, more than 256 a sub-space, or not finite.
    """

    def __init__(self, centroids: Floats) -> None:
        centroids = np.array(centroids, dtype=np.float32, order="C")
        if centroids.ndim != 3 or 0 in centroids.shape or centroids.shape[1] > MAX_CENTROIDS:
            raise ValueError(f"centroids must be (P, C <= {MAX_CENTROIDS}, d/P), got {centroids.shape}")
        if not np.isfinite(centroids).all():
            raise ValueError("centroids must be finite")
        centroids.setflags(write=False)
        self.centroids = centroids  # (P, C, d/P) float32
        self.subspaces, self.size, self.width = centroids.shape
        self.dim = self.subspaces * self.width
        self.generation = _name(centroids)
        self._norms = np.square(centroids, dtype=np.float64).sum(axis=2)  # (P, C)

    @classmethod
    def train(cls, vectors: Floats, subspaces: int, seed: int) -> "Codebook":
        """K-means in each sub-space of `vectors` (n, d); the same vectors and seed give the same codebook.

        Up to 256 vectors become centroids themselves (C = n, no error); of more, at most 65,536 drawn by the seed train.

        Raises:
            ValueError: no vectors, not finite, or d is no multiple of `subspaces`.
        """
        vectors = _rows(vectors)
        n, d = vectors.shape
        if n == 0 or subspaces < 1 or d % subspaces:
            raise ValueError(f"cannot cut {n} vectors of {d} dimensions into {subspaces} sub-spaces")
        if n <= MAX_CENTROIDS:
            return cls(vectors.reshape(n, subspaces, -1).transpose(1, 0, 2))
        if n > TRAINING_VECTORS:
            vectors = vectors[np.sort(np.random.default_rng(seed).choice(n, TRAINING_VECTORS, replace=False))]
        quantiser = faiss.ProductQuantizer(d, subspaces, 8)
        quantiser.cp.seed = seed
        quantiser.cp.min_points_per_centroid = 1
        quantiser.cp.max_points_per_centroid = TRAINING_VECTORS
        quantiser.train(vectors)
        return cls(faiss.vector_to_array(quantiser.centroids).reshape(subspaces, MAX_CENTROIDS, -1))

    @classmethod
    def from_centroids(cls, centroids: Floats) -> "Codebook":
        """The codebook of stored centroids (P, C, d/P); `train` and this give the same generation for the same centroids."""
        return cls(centroids)

    def encode(self, vectors: Floats) -> Codes:
        """Codes (n, P) uint8 of vectors (n, d).

        Raises:
            ValueError: another d, or a vector that is not finite.
        """
        vectors = _rows(vectors, self.dim)
        codes = np.empty((len(vectors), self.subspaces), dtype=np.uint8)
        for start in range(0, len(vectors), _CHUNK):
            chunk = vectors[start : start + _CHUNK].reshape(-1, self.subspaces, self.width)
            for p in range(self.subspaces):
                codes[start : start + _CHUNK, p] = self._nearest(p, chunk[:, p])
        return codes

    def decode(self, codes: Codes) -> Floats:
        """The vectors (n, d) float32 that codes (n, P) stand for.

        Raises:
            ValueError: another P, or a code beyond C.
        """
        codes = np.asarray(codes)
        if codes.ndim != 2 or codes.shape[1] != self.subspaces or (codes.size and int(codes.max()) >= self.size):
            raise ValueError(f"codes must be (n, {self.subspaces}) below {self.size}, got {codes.shape}")
        return self.centroids[np.arange(self.subspaces), codes].reshape(len(codes), self.dim)

    def tables(self, queries: Floats) -> Floats:
        """Asymmetric inner-product tables (B, P, C) of queries (B, d): a code's score is the sum of its P entries."""
        queries = _rows(queries, self.dim).reshape(-1, self.subspaces, self.width)
        return np.ascontiguousarray(np.matmul(queries.transpose(1, 0, 2), self.centroids.transpose(0, 2, 1)).transpose(1, 0, 2))

    def _nearest(self, p: int, parts: Floats) -> NDArray[np.intp]:
        """Nearest centroids (n,) of parts (n, d/P): by BLAS in float32, in float64 where that cannot tell."""
        centroids, norms = self.centroids[p], self._norms[p]
        nearness = parts @ centroids.T - (norms / 2).astype(np.float32)  # (n, C)
        best = nearness.argmax(axis=1)
        longest = float(np.sqrt(norms.max()))
        lengths = np.sqrt(np.square(parts, dtype=np.float64).sum(axis=1))
        reach = lengths + longest
        error32, error64, underflow = 2.0**-22 * reach * longest, 2.0**-50 * reach * reach, 1e-36
        doubt = (self.width + 4) * (error32 + error64 + underflow)
        top = nearness[np.arange(len(parts)), best]
        unsure = np.flatnonzero((nearness >= (top - doubt)[:, None]).sum(axis=1) != 1)
        if len(unsure):
            best[unsure] = distances(parts[unsure], centroids).argmin(axis=1)
        return best


def distances(parts: Floats, centroids: Floats) -> NDArray[np.float64]:
    """Squared distances (n, C) in float64 of parts (n, w) and centroids (C, w), summed in the order of the dimensions."""
    total = np.zeros((len(parts), len(centroids)))
    for column in range(parts.shape[1]):
        total += np.square(parts[:, column, None].astype(np.float64) - centroids[None, :, column])
    return total


def _rows(vectors: Floats, dim: int | None = None) -> Floats:
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if vectors.ndim != 2 or (dim is not None and vectors.shape[1] != dim):
        raise ValueError(f"vectors must be (n, {'d' if dim is None else dim}), got {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise ValueError("vectors must be finite")
    return vectors


def _name(centroids: Floats) -> str:
    """Sixteen hexadecimal digits that name centroids: their shape and bytes."""
    return blake2b(repr(centroids.shape).encode() + centroids.astype("<f4").tobytes(), digest_size=8).hexdigest()
