"""K-means in every sub-space at once, the same on every machine: exact assignment, means in float64, no random number.

A centroid that nothing is nearest to is put on a training part: those are picked evenly along the running sum of the
squared errors, so that a badly fitted cluster gets more of them, and one odd vector seldom gets one.
"""

import numpy as np
from numpy.typing import NDArray

from models.codes.nearest import Codes, Doubles, Floats, Nearest

REVIVALS = 16  # rounds that end dead centroids after the last mean
WORTH = 0.02  # of a cluster's squared error: a steady centroid stays where its mean would save less
CHANCE = 4.0  # times what a mean of so few parts saves by chance: a steady centroid stays there too
SURE = 0.5  # of the error: worth it however few they are


def settle(centroids: Floats, vectors: Floats, rounds: int, size: int, steady: bool = False) -> Floats:
    """Centroids (P, C, w) after `rounds` rounds over vectors (n, P * w); of those beyond C, up to `size`, the errors decide.

    Numbers are kept. None of the result is dead, unless a sub-space has fewer different parts than centroids. `steady`
    ones move only where that saves more error than chance does: where nothing drifted, all codes stay. A sub-space with
    parts of zeros, of vectors that lack a modality, has a centroid of zeros: what is missing scores nothing.
    """
    centroids = _grown(centroids, vectors, size)
    before = None
    for _ in range(rounds):
        codes = Nearest(centroids).codes(vectors)
        if before is not None and np.array_equal(before, codes):
            break
        centroids, before = _revived(_moved(centroids, vectors, codes, steady), vectors, codes), codes
    centroids = _anchored(centroids, vectors)
    for _ in range(REVIVALS):
        revived = _revived(centroids, vectors, Nearest(centroids).codes(vectors))
        if revived is centroids:
            break
        centroids = revived
    return centroids


def _moved(centroids: Floats, vectors: Floats, codes: Codes, steady: bool) -> Floats:
    """The mean of what is nearest to each centroid; where nothing is, or a steady one need not move, the centroid as it was."""
    moved = centroids.copy()
    size = centroids.shape[1]
    for p, numbers in enumerate(codes.T.astype(np.intp)):
        parts = _parts(vectors, p, centroids)
        counts = np.bincount(numbers, minlength=size)
        sums = np.stack([np.bincount(numbers, weights=column, minlength=size) for column in parts.T], axis=1)  # (C, w)
        means = sums / np.maximum(counts, 1)[:, None]
        go = counts > 0
        if steady:
            errors = np.bincount(numbers, weights=_errors(centroids[p], parts, numbers), minlength=size)  # (C,)
            saved = counts * np.square(means - centroids[p]).sum(axis=1)
            go &= saved > errors * np.clip(CHANCE / np.maximum(counts, 1), WORTH, SURE)
        moved[p, go] = means[go]
    return moved


def _anchored(centroids: Floats, vectors: Floats) -> Floats:
    """The centroids, with the one nearest to zero at zero where a part of zeros is among the vectors."""
    anchored = centroids.copy()
    for p in range(len(centroids)):
        if (_parts(vectors, p, centroids) == 0).all(axis=1).any():
            anchored[p, np.square(centroids[p], dtype=np.float64).sum(axis=1).argmin()] = 0
    return anchored


def _revived(centroids: Floats, vectors: Floats, codes: Codes) -> Floats:
    """The centroids with those that `codes` never names put where the error is; the same object where none is dead."""
    revived = centroids
    for p, numbers in enumerate(codes.T):
        dead = np.flatnonzero(np.bincount(numbers, minlength=centroids.shape[1]) == 0)
        if len(dead) and len(seeds := _seeds(centroids[p], _parts(vectors, p, centroids), numbers, len(dead))):
            if revived is centroids:
                revived = centroids.copy()
            revived[p, dead[: len(seeds)]] = seeds
    return revived


def _grown(centroids: Floats, vectors: Floats, size: int) -> Floats:
    """The centroids followed by new ones up to `size`; where a sub-space has no error left, its last one again."""
    subspaces, old, _ = centroids.shape
    if size <= old:
        return centroids
    grown = np.concatenate([centroids, np.repeat(centroids[:, -1:], size - old, axis=1)], axis=1)
    codes = Nearest(centroids).codes(vectors)
    for p in range(subspaces):
        seeds = _seeds(centroids[p], _parts(vectors, p, centroids), codes[:, p], size - old)
        grown[p, old : old + len(seeds)] = seeds
    return grown


def _seeds(centroids: Floats, parts: Floats, numbers: Codes, count: int) -> Floats:
    """Up to `count` different parts (n, w), picked evenly along the running sum of squared errors; none where there is no error."""
    running = np.cumsum(_errors(centroids, parts, numbers))
    if not running[-1] > 0:
        return parts[:0]
    rows = np.searchsorted(running, (np.arange(count) + 0.5) / count * running[-1])
    return np.unique(parts[rows], axis=0)


def _errors(centroids: Floats, parts: Floats, numbers: NDArray[np.integer]) -> Doubles:
    """Squared distances (n,) of parts (n, w) from the centroids (C, w) of their numbers."""
    found: Doubles = np.square(parts.astype(np.float64) - centroids[numbers]).sum(axis=1)
    return found


def _parts(vectors: Floats, p: int, centroids: Floats) -> Floats:
    width = centroids.shape[2]
    return vectors[:, p * width : (p + 1) * width]
