"""How much items are wanted of late, as a prior in the order of what the searches find.

Towers learn from all of a log at once, and a unit vector tells little of how much an item is wanted now. So the hits of each search
come in the order of score + temperature * weight * ln(1 + n), where n counts the item's events, each half after every half-life:
beside exp(score / temperature), which a softmax was trained with, that is about n ** weight.
"""

import numpy as np

from models.index import Found, View
from models.retrieval.cascade import Searched
from models.retrieval.popular import Popular


class Demand:
    """That of a bundle's popular items, in the numbers of one index. It never changes; any thread may use it.

    Items that are not among the popular of their category have none, and so have those that the index got later.
    """

    def __init__(self, view: View, popular: Popular, temperature: float) -> None:
        """`view`: any of the index that is searched."""
        events = {item: count for hits in popular.by_category.values() for item, count in hits}
        numbers = view.numbers(list(events))
        here = numbers >= 0
        self._prior = np.zeros(int(numbers.max(initial=-1)) + 2, np.float32)  # by number; the last stands for all that have none
        self._prior[numbers[here]] = temperature * np.log1p(np.fromiter(events.values(), np.float64, len(events)))[here]

    def ordered(self, searched: Searched, weight: float) -> Searched:
        """The same hits in the order, and with the scores, that this gives them; ties stay as they are. As it is for a weight of 0."""
        if not weight:
            return searched
        return searched._replace(pool=self._raised(searched.pool, weight), categories=self._raised(searched.categories, weight))

    def _raised(self, found: Found, weight: float) -> Found:
        numbers = found.numbers  # (R, k)
        prior = self._prior[np.minimum(numbers, len(self._prior) - 1)]
        scores = np.where(numbers < 0, -np.inf, found.scores + weight * prior)
        order = np.argsort(-scores, axis=1, kind="stable")
        return Found(np.take_along_axis(numbers, order, 1), np.take_along_axis(scores, order, 1).astype(np.float32))
