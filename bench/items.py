"""Items and users for the benchmarks of the index: drawn by a seed, so that every way is measured on the same million.

Categories have Zipf sizes: category r holds a share of 1/r, and none is empty. Vectors are of unit length:
- `clustered`: a centre of the category, a group inside it (about 100 items each), and noise of the length of the two. So are
  learned item vectors, and it is the kind that cells and graphs are good at.
- `loose`: the same without groups: inside a category nothing but noise, so that no cell holds one neighbourhood.
- `trained`: item vectors that a bundle learned, drawn again and again with a little noise where there are fewer than asked for.
A user's vector for a category is the mean of three of its items and noise; the short vector is the mean of two of these.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

DIM = 64
CATEGORIES = 5_000
GROUP = 100
GROUP_PART = 0.7
NOISE = 0.7
JITTER = 0.35  # length of the noise on a trained vector of length 1 that is drawn again


class Items:
    """Vectors (n, d) float32 of unit length and the number of each item's category (n,). Item i is called `i<i>`, category c `c<c>`."""

    def __init__(self, name: str, vectors: np.ndarray, category: np.ndarray) -> None:
        self.name, self.vectors, self.category = name, vectors, category
        self.sizes = np.bincount(category)
        self.order = np.argsort(category, kind="stable")  # items by category
        self.offsets = np.concatenate(([0], np.cumsum(self.sizes)))

    def __len__(self) -> int:
        return len(self.vectors)

    @cached_property
    def ids(self) -> list[str]:
        """What the items are called."""
        return [f"i{number}" for number in range(len(self))]

    @cached_property
    def categories(self) -> list[str]:
        """What their categories are called."""
        names = [f"c{number}" for number in range(len(self.sizes))]
        return [names[number] for number in self.category.tolist()]

    def of(self, category: int) -> np.ndarray:
        """The items of a category."""
        return self.order[self.offsets[category] : self.offsets[category + 1]]


class Users(NamedTuple):
    """What B users ask: K categories each, a vector for each of them, and one for the whole pool."""

    categories: np.ndarray  # (B, K)
    long: np.ndarray  # (B, K, d) float32
    short: np.ndarray  # (B, d) float32

    def names(self) -> list[list[str]]:
        """The names of the categories."""
        return [[f"c{number}" for number in mine] for mine in self.categories.tolist()]


def draw(kind: str, count: int, seed: int = 0) -> Items:
    """`count` items, `clustered` or `loose`, of 5,000 categories (fewer where there are fewer than 20 items for each)."""
    rng = np.random.default_rng(seed)
    number = max(1, min(CATEGORIES, count // 20))
    shares = 1 / np.arange(1, number + 1)
    category = np.concatenate((np.arange(number), rng.choice(number, count - number, p=shares / shares.sum())))
    rng.shuffle(category)
    sizes = np.bincount(category)
    vectors = unit(rng.standard_normal((number, DIM), dtype=np.float32))[category]
    if kind == "clustered":
        groups = np.maximum(1, sizes // GROUP)
        first = np.concatenate(([0], np.cumsum(groups)))
        directions = unit(rng.standard_normal((int(first[-1]), DIM), dtype=np.float32))
        vectors += GROUP_PART * directions[first[category] + (rng.random(count) * groups[category]).astype(np.int64)]
    vectors += NOISE / DIM**0.5 * rng.standard_normal((count, DIM), dtype=np.float32)
    return Items(kind, unit(vectors), category)


def again(vectors: np.ndarray, categories: Sequence[str], count: int, seed: int = 0) -> Items:
    """`count` items drawn from trained vectors (V, d): each once first, then again with noise of length 0.35."""
    rng = np.random.default_rng(seed)
    names = {name: number for number, name in enumerate(sorted({*categories}))}
    category = np.array([names[name] for name in categories])
    at = np.concatenate((rng.permutation(len(vectors)), rng.integers(0, len(vectors), max(0, count - len(vectors)))))[:count]
    drawn = vectors[at].copy()
    dim = vectors.shape[1]
    drawn[len(vectors) :] += JITTER / dim**0.5 * rng.standard_normal((len(drawn[len(vectors) :]), dim), dtype=np.float32)
    _, category = np.unique(category[at], return_inverse=True)
    return Items("trained", unit(drawn), category)


def users(items: Items, count: int, k: int = 8, seed: int = 1, by_size: bool = True) -> Users:
    """`count` users; their k categories are drawn by the number of items in them, else evenly."""
    rng = np.random.default_rng(seed)
    k = min(k, len(items.sizes))
    categories = np.empty((count, k), dtype=np.int64)
    for row in categories:
        shares = items.sizes / len(items) if by_size else None
        row[:] = rng.choice(len(items.sizes), k, replace=False, p=shares)
    three = rng.random((count, k, 3)) * items.sizes[categories][..., None]
    liked = items.vectors[items.order[items.offsets[categories][..., None] + three.astype(np.int64)]]  # (B, K, 3, d)
    dim = items.vectors.shape[1]
    long = unit(liked.mean(2) + 0.3 / dim**0.5 * rng.standard_normal((count, k, dim), dtype=np.float32))
    return Users(categories, long, unit(long[:, :2].mean(1)))


def unit(vectors: np.ndarray) -> np.ndarray:
    """The vectors at length one, float32."""
    return np.ascontiguousarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), dtype=np.float32)
