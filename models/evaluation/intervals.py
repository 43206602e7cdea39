"""Intervals by a bootstrap over users: users are drawn with replacement, and all their moments with them.

One `Bootstrap` draws the same users for every contender, so that differences of its means are paired.
"""

import numpy as np

PERCENTILES = (2.5, 97.5)
DRAWS = 1000
_MOST_WEIGHTS = 20_000_000


class Bootstrap:
    """Resamples of the users that Q moments belong to. `owners` (Q,) int64 from 0."""

    def __init__(self, owners: np.ndarray, seed: int, draws: int = DRAWS) -> None:
        self._owners = owners
        self.users = int(owners.max(initial=-1)) + 1
        draws = max(100, min(draws, _MOST_WEIGHTS // max(1, self.users)))
        rng = np.random.default_rng(seed)
        drawn = (rng.integers(0, self.users, self.users) for _ in range(draws)) if self.users else ()
        self._weights = np.array([np.bincount(one, minlength=self.users) for one in drawn], np.float64)  # (draws, U)

    def means(self, values: np.ndarray) -> np.ndarray:
        """The mean over moments in each resample: (Q, M), NaN where a moment does not count -> (draws, M)."""
        counted = ~np.isnan(values)
        sums, counts = self._by_user(np.where(counted, values, 0.0)), self._by_user(counted.astype(np.float64))
        with np.errstate(invalid="ignore", divide="ignore"):
            found: np.ndarray = (self._weights @ sums) / (self._weights @ counts)
            return found

    def _by_user(self, values: np.ndarray) -> np.ndarray:
        columns = [np.bincount(self._owners, column, minlength=self.users) for column in values.T]
        return np.stack(columns, 1)  # (U, M)


def mean(values: np.ndarray) -> np.ndarray:
    """Mean over moments (Q, M) -> (M,), of those that count; NaN where none does."""
    counted = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: np.ndarray = np.where(counted, values, 0.0).sum(0) / counted.sum(0)
        return found


def bounds(resampled: np.ndarray) -> np.ndarray:
    """The 2.5 and 97.5 percentiles of each column (draws, M) -> (2, M); NaN where a column has no number."""
    found = np.full((2, resampled.shape[1]), np.nan)
    for column, values in enumerate(resampled.T):
        numbers = values[~np.isnan(values)]
        if len(numbers):
            found[:, column] = np.percentile(numbers, PERCENTILES)
    return found
