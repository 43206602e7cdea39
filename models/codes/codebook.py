"""Product quantiser: P sub-spaces of d/P dimensions, C centroids each; an item's code is P bytes (papers, section 2.3).

Codes belong to the item and outlive the process that made them, so `encode` is defined exactly: the nearest centroid by
squared distance in float64, ties to the lower number. Every machine, batch size and BLAS gives the same bytes."""

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from models.codes.lloyd import settle
from models.codes.nearest import Codes as Codes
from models.codes.nearest import Floats as Floats
from models.codes.nearest import Nearest

MAX_CENTROIDS = 256
TRAINING_VECTORS = 65_536
COLD_ROUNDS, WARM_ROUNDS = 25, 5


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
        self._nearest = Nearest(centroids)

    @classmethod
    def train(cls, vectors: Floats, subspaces: int, seed: int, start: "Codebook | None" = None, rounds: int | None = None) -> "Codebook":
        """K-means in each sub-space of `vectors` (n, d); the same vectors, seed and start give the same codebook on every machine.

        Without `start` (cold) up to 256 vectors become centroids themselves (C = n, no error). With one (warm) its
        centroids keep their numbers and move only where that saves more error than chance does, so that most codes stay,
        and all of them where nothing drifted; C never shrinks, and grows with n up to 256. Of more than 65,536 vectors so
        many, drawn by the seed, train. A centroid that none of them is nearest to is put where the error is: codes stay
        dead only where a sub-space has fewer different parts than C. Parts of zeros have a centroid of zeros.

        Args:
            vectors: (n, d) float32.
            subspaces: P.
            seed: of the draw and of the first centroids.
            start: the codebook to start from.
            rounds: of assignment and mean; None: 25 cold, 5 warm.

        Raises:
            ValueError: no vectors, not finite, d is no multiple of `subspaces`, or a start of another P or d.
        """
        vectors = _rows(vectors)
        n, d = vectors.shape
        if n == 0 or subspaces < 1 or d % subspaces:
            raise ValueError(f"cannot cut {n} vectors of {d} dimensions into {subspaces} sub-spaces")
        if start is not None and (start.subspaces, start.dim) != (subspaces, d):
            raise ValueError(f"cannot start {subspaces} sub-spaces of {d} dimensions from {start.subspaces} of {start.dim}")
        if n <= MAX_CENTROIDS and start is None:
            return cls(_cut(vectors, subspaces))
        rng = np.random.default_rng(seed)
        if n > TRAINING_VECTORS:
            vectors = vectors[np.sort(rng.choice(n, TRAINING_VECTORS, replace=False))]
        if start is not None:
            first, rounds = start.centroids, WARM_ROUNDS if rounds is None else rounds
        else:
            first = _cut(vectors[rng.choice(len(vectors), MAX_CENTROIDS, replace=False)], subspaces)
            rounds = COLD_ROUNDS if rounds is None else rounds
        return cls(settle(first, vectors, rounds, min(n, MAX_CENTROIDS), steady=start is not None))

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
        return self._nearest.codes(vectors)

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


def _rows(vectors: Floats, dim: int | None = None) -> Floats:
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if vectors.ndim != 2 or (dim is not None and vectors.shape[1] != dim):
        raise ValueError(f"vectors must be (n, {'d' if dim is None else dim}), got {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise ValueError("vectors must be finite")
    return vectors


def _cut(vectors: Floats, subspaces: int) -> Floats:
    """Vectors (n, d) as centroids (P, n, d/P)."""
    return vectors.reshape(len(vectors), subspaces, -1).transpose(1, 0, 2)


def _name(centroids: Floats) -> str:
    """Sixteen hexadecimal digits that name centroids: their shape and bytes."""
    return blake2b(repr(centroids.shape).encode() + centroids.astype("<f4").tobytes(), digest_size=8).hexdigest()


# a code of 2, 4, 8 or 16 bytes is read as one word, four times faster than byte by byte
_WORDS = {2: np.uint16, 4: np.uint32, 8: np.uint64, 16: np.complex128}


def taken(codes: Codes, rows: NDArray[np.integer]) -> Codes:
    """The codes (m, P) uint8 of rows (m,), none of them negative, of codes (n, P)."""
    word = _WORDS.get(codes.shape[1])
    if word is None or not codes.flags.c_contiguous or codes.ctypes.data % np.dtype(word).alignment:
        return codes.take(rows, 0)
    return codes.view(word)[:, 0].take(rows).view(np.uint8).reshape(len(rows), codes.shape[1])
