"""Item-kNN: items that the same users wanted, by shrunk cosine of the sets of their users.

Similarity of i and j: users of both / (sqrt(users of i * users of j) + SHRINK), and i is its own neighbour as a repeat is a
good guess. An item's neighbours are found when it is first asked for. An item at place r of the user's newest distinct ones
(from 0) weighs 1 / (1 + r). Where neighbours do not fill an answer, popular of all follow.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from features.history import Deeds
from features.rows import Behaviour
from models.bundle.popular import Popular
from models.evaluation.baselines import Answer, filled, unseen
from models.evaluation.prediction_points import Question

SHRINK = 10.0
NEIGHBOURS = 200
NEWEST = 50  # distinct items of a user that are asked for
USER_CAP = 500  # newest distinct items of a user that count as wanted together: one who has everything says nothing


class ItemNeighbours:
    """Fitted on the known history; see the module for the rule."""

    def __init__(self, known: Mapping[str, Deeds], popular: Popular) -> None:
        self._ranked = [item for item, _, _ in popular.overall]
        newest = [newest_distinct(known[user].events, USER_CAP) for user in sorted(known)]
        self._items = sorted({item for mine in newest for item in mine})
        self._place = {item: number for number, item in enumerate(self._items)}
        kept = [[self._place[item] for item in mine] for mine in newest]
        self._lengths = np.array([len(mine) for mine in kept], np.int64)  # (users,)
        self._starts = np.cumsum(self._lengths) - self._lengths
        self._flat = np.array([number for mine in kept for number in mine], np.int64)  # items of user after user
        owner = np.repeat(np.arange(len(kept)), self._lengths)
        self._users = owner[np.argsort(self._flat, kind="stable")]  # users of item after item
        self._counts = np.bincount(self._flat, minlength=len(self._items))  # (V,) users of each
        self._first = np.cumsum(self._counts) - self._counts
        self._found: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def answer(self, asked: Sequence[Question], k: int) -> list[Answer]:
        """As promised by `Contender`."""
        answers = []
        for question in asked:
            ranked = filled(self._best(question), self._ranked, len(self._items))
            answers.append(Answer(ranked[:k], unseen(ranked, question, k)))
        return answers

    def similar(self, item: str) -> dict[str, float]:
        """The neighbours of an item with their similarity, itself among them; none for an item that was not known."""
        if item not in self._place:
            return {}
        numbers, values = self._neighbours(self._place[item])
        return {self._items[number]: value for number, value in zip(numbers.tolist(), values.tolist(), strict=True)}

    def _best(self, question: Question) -> list[str]:
        known = [self._place[item] for item in newest_distinct(question.past, NEWEST) if item in self._place]
        if not known:
            return []
        parts = [self._neighbours(number) for number in known]
        numbers = np.concatenate([part[0] for part in parts])
        weights = np.concatenate([part[1] / (1 + place) for place, part in enumerate(parts)])
        distinct, inverse = np.unique(numbers, return_inverse=True)
        scores = np.bincount(inverse, weights)
        return [self._items[number] for number in distinct[np.lexsort((distinct, -scores))].tolist()]

    def _neighbours(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        found = self._found.get(number)
        if found is None:
            found = self._found[number] = self._look(number)
        return found

    def _look(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        users = self._users[self._first[number] : self._first[number] + self._counts[number]]
        lengths = self._lengths[users]
        at = np.repeat(self._starts[users] - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())
        others, together = np.unique(self._flat[at], return_counts=True)
        similar = together / (np.sqrt(self._counts[number] * self._counts[others]) + SHRINK)
        best = np.lexsort((others, -similar))[:NEIGHBOURS]
        return others[best], similar[best]


def newest_distinct(events: Sequence[Behaviour], most: int) -> list[str]:
    """The newest `most` distinct items, newest first."""
    found: dict[str, None] = {}
    for event in reversed(events):
        found.setdefault(event.item)
        if len(found) == most:
            break
    return list(found)
