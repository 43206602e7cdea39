"""Negatives of the reranker: drawn for each history, half from all items and half from the categories of the history."""

import numpy as np

from models.encoding.vocabulary import FIRST
from research.reranking.histories import RerankHistories


class NegativePool:
    """What negatives are drawn from: V items, those of a category together."""

    def __init__(self, category: np.ndarray, targets: np.ndarray) -> None:
        """`category` (V,) of each item, `targets` (E,) positions of all examples' targets."""
        weight = np.sqrt(np.bincount(targets, minlength=len(category)) + 1.0)
        self._category = category
        self._order = np.argsort(category, kind="stable")
        self._until = np.cumsum(weight[self._order])  # (V,)
        rows = np.arange(category.max(initial=0) + 1)
        edges = np.concatenate([[0.0], self._until])
        self._low = edges[np.searchsorted(category[self._order], rows)]
        self._wide = edges[np.searchsorted(category[self._order], rows, side="right")] - self._low
        self._share = weight / weight.sum()
        self._in_category = weight / self._wide[category]

    def draw(self, histories: RerankHistories, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`count` items for each of B histories: positions, categories, ln of how often each is expected, (B, count) each.

        Those for which a history has no category to draw from are drawn from all items.
        """
        users, half = len(histories.kind), count // 2
        category = np.where(histories.kind > 0, histories.category, 0)
        wide = np.where((category >= FIRST) & (category < len(self._wide)), self._wide[np.minimum(category, len(self._wide) - 1)], 0)
        possible = (wide > 0).cumsum(1)  # (B, L)
        nth = 1 + (rng.random((users, half)) * possible[:, -1:]).astype(np.int64)  # of the possible events
        event = (possible[:, None, :] < nth[:, :, None]).sum(2).clip(max=category.shape[1] - 1)  # (B, half)
        of = np.take_along_axis(category, event, 1)
        some = possible[:, -1:] > 0
        point = rng.random((users, half))
        inside = np.where(
            some, self._low[of.clip(max=len(self._low) - 1)] + point * np.take_along_axis(wide, event, 1), point * self._until[-1]
        )
        every = rng.random((users, count - half)) * self._until[-1]
        at = np.searchsorted(self._until, np.concatenate([inside, every], 1), side="right").clip(max=len(self._order) - 1)
        items = self._order[at]
        rows = self._category[items]
        alike = ((rows[:, :, None] == category[:, None, :]) & (wide > 0)[:, None]).sum(2) / possible[:, -1:].clip(min=1)
        expected = (count - half * some) * self._share[items] + half * alike * self._in_category[items]
        return items, rows, np.log(expected)
