"""The long tower by itself: told the categories of a basket, where in them does it put the items?

Who recognises the category alone gains nothing here, so this is where a long tower shows what it has learnt (ULIM, dual-interest learning).
"""

from collections.abc import Sequence
from itertools import chain, zip_longest

import numpy as np

from features.events import Item
from features.rows import CategoryRow
from models.evaluation.baselines import Answer, unseen
from models.evaluation.prediction_points import Question
from models.serving.recommender import Recommender


class ToldCategory:
    """Ranks the items of the categories that are wanted, one list a category, the lists taken in turns. No contender: it is told."""

    def __init__(self, recommender: Recommender, catalogue: Sequence[Item], own: Sequence[Item] = ()) -> None:
        """Over `catalogue`; those of `own` are found only for a user who had them."""
        self._recommender = recommender
        self._own = frozenset(item.item_id for item in own)
        items = [*catalogue, *own]
        groups: dict[str, list[int]] = {}
        for at, item in enumerate(items):
            groups.setdefault(item.category_id, []).append(at)
        vectors = recommender.item_vectors(items)  # (n, d)
        self._groups = {category: ([items[n].item_id for n in at], vectors[at]) for category, at in groups.items()}

    def answer(self, asked: Sequence[Question], k: int) -> list[Answer]:
        """At most `k` items, all of them and those the user never had."""
        state = self._recommender.short([question.row for question in asked])
        wanted = [(n, category) for n, question in enumerate(asked) for category in sorted(question.categories)]
        requests = [(n, category, asked[n].rows.get(category, CategoryRow())) for n, category in wanted]
        found: list[list[list[str]]] = [[] for _ in asked]
        for (n, category), vector in zip(wanted, self._recommender.long(state, requests), strict=True):
            found[n].append(self._ranked(category, vector, asked[n]))
        turns = [list(dict.fromkeys(item for item in chain(*zip_longest(*lists)) if item is not None)) for lists in found]
        return [Answer(mine[:k], unseen(mine, question, k)) for mine, question in zip(turns, asked, strict=True)]

    def _ranked(self, category: str, vector: np.ndarray, question: Question) -> list[str]:
        ids, vectors = self._groups.get(category, ([], np.zeros((0, len(vector)), np.float32)))
        order = np.argsort(-(vectors @ vector), kind="stable").tolist()
        hidden = self._own - question.had
        return [ids[at] for at in order if ids[at] not in hidden]
