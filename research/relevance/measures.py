"""How well scores order what is relevant: AUC, Spearman, and intervals by a bootstrap over groups (queries or users)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

DRAWS = 200
Statistic = Callable[[np.ndarray], float]  # of the positions drawn (with repetition); NaN where it has no value


class Figure(msgspec.Struct, frozen=True):
    """A figure: its mean over the seeds, the interval of the bootstrap, and its value at each seed."""

    value: float
    low: float
    high: float
    seeds: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Measured(NamedTuple):
    """A statistic of one method: its value at each seed, and the bootstrap's values of its mean over the seeds."""

    values: np.ndarray  # (seeds,)
    draws: np.ndarray  # (draws,)

    def less(self, other: "Measured") -> "Measured":
        """The difference, draw by draw: both were measured on the same samples."""
        return Measured(self.values - other.values, self.draws - other.draws)

    def figure(self) -> Figure:
        """The mean and the 2.5 and 97.5 percentiles."""
        low, high = np.nanpercentile(self.draws, [2.5, 97.5])
        return Figure(float(self.values.mean()), float(low), float(high), tuple(self.values.tolist()))


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1 (n,), ties share their mean rank.

    >>> ranks(np.array([5.0, 1.0, 5.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[group]


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Share of (positive, negative) pairs in which the positive has the higher score; half where equal. NaN without both."""
    count = int(positive.sum())
    if count in (0, len(positive)):
        return float("nan")
    return float((ranks(scores)[positive].sum() - count * (count + 1) / 2) / (count * (len(positive) - count)))


def spearman(scores: np.ndarray, grades: np.ndarray) -> float:
    """Correlation of ranks; NaN where either is constant."""
    a, b = ranks(scores), ranks(grades)
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else float("nan")


def bootstrap(groups: np.ndarray, draws: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Positions (n,) of `draws` samples of whole groups, drawn with repetition; `groups` (n,) are numbers from 0."""
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    return [np.concatenate([members[g] for g in rng.integers(0, len(members), len(members))]) for _ in range(draws)]


def measure(statistics: Sequence[Statistic], samples: Sequence[Sequence[np.ndarray]], sizes: Sequence[int]) -> Measured:
    """A method's statistic at each seed, of all its `sizes[seed]` positions and of the bootstrap's `samples[seed]`.

    The n-th draws of all seeds are averaged: the interval is that of the mean over the seeds.
    """
    values = [statistic(np.arange(size)) for statistic, size in zip(statistics, sizes, strict=True)]
    draws = [[statistic(at) for at in mine] for statistic, mine in zip(statistics, samples, strict=True)]
    return Measured(np.array(values), np.mean(draws, axis=0))
