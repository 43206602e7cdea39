"""What a model must beat without training: popular, popular recently, popular in the user's categories, seen before or often, item-kNN.

Item-kNN: similarity of items i and j is users of both / (sqrt(users of i * users of j) + SHRINK), and i is its own neighbour, as a
repeat is a good guess. The neighbours of an item are computed at its first use. The item at position r of the most recent distinct items
of a user (from 0) weighs 1 / (1 + r). Where neighbours do not fill an answer, overall popular items follow.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import NamedTuple, Protocol

import numpy as np

from features.event_time import DAY_MS
from features.history import Deeds
from features.rows import Behaviour
from models.bundle.popular import Popular
from models.evaluation.prediction_points import Question
from models.serving.popular import popular_candidates

POPULAR_DEPTH = 2000
SIMPLE = ("most popular", "popular lately", "popular in categories", "seen before", "seen often", "item-kNN")


class Answer(NamedTuple):
    """To one question: the best items; the best the user never had; and, of a model that names them, categories by method."""

    items: Sequence[str]
    fresh: Sequence[str]
    categories: Mapping[str, Sequence[str]] = {}


class Contender(Protocol):
    """Answers questions, from what was fitted on a split's known history and from the past in the question, nothing else."""

    def answer(self, asked: Sequence[Question], k: int) -> list[Answer]:
        """At most `k` distinct items in each list, best first."""


def popularity(done: Mapping[str, Deeds], until_ts: int, depth: int, half_life_days: float = inf) -> Popular:
    """How often each item was wanted before `until_ts` (ms), in the category of its newest event; each time counts half after every
    half-life. Nothing later is read."""
    counts: defaultdict[str, float] = defaultdict(float)
    category: dict[str, tuple[int, str]] = {}
    for deeds in done.values():
        for event in deeds.events:
            if event.ts < until_ts:
                counts[event.item] += 0.5 ** ((until_ts - event.ts) / (half_life_days * DAY_MS))
                category[event.item] = max(category.get(event.item, (0, "")), (event.ts, event.category))
    return Popular.of(((item, category[item][1], count) for item, count in counts.items()), depth)


class MostPopular:
    """The same for everybody."""

    def __init__(self, popular: Popular) -> None:
        self._ranked = [item for item, _, _ in popular.overall]

    def answer(self, asked: Sequence[Question], k: int) -> list[Answer]:
        """As promised by `Contender`."""
        return [Answer(self._ranked[:k], unseen(self._ranked, question, k)) for question in asked]


class PopularInCategories:
    """Popular items of the user's categories, shared by how often they were touched, then popular of all."""

    def __init__(self, popular: Popular) -> None:
        self._popular = popular

    def answer(self, asked: Sequence[Question], k: int) -> list[Answer]:
        """As promised by `Contender`."""
        return [Answer(self._best(question, k, frozenset()), self._best(question, k, question.had)) for question in asked]

    def _best(self, question: Question, k: int, exclude: frozenset[str]) -> list[str]:
        weights = [(touched.category, float(touched.count)) for touched in question.row.categories]
        return [found.item for found in popular_candidates(self._popular, weights, limit=k, exclude=exclude)]


class SeenBefore:
    """The user's own items, the newest first or, `often`, the most frequent first; then popular of all."""

    def __init__(self, popular: Popular, *, often: bool) -> None:
        self._ranked = [item for item, _, _ in popular.overall]
        self._often = often

    def answer(self, asked: Sequence[Question], k: int) -> list[Answer]:
        """As promised by `Contender`."""
        return [Answer(filled(self._own(question), self._ranked, k), unseen(self._ranked, question, k)) for question in asked]

    def _own(self, question: Question) -> list[str]:
        newest = list(dict.fromkeys(event.item for event in reversed(question.past)))
        if not self._often:
            return newest
        counts = Counter(event.item for event in question.past)
        return sorted(newest, key=lambda item: -counts[item])  # stable: the newer of two as frequent ones first


def filled(first: Iterable[str], then: Iterable[str], k: int) -> list[str]:
    """The first `k` distinct items of two lists, one after the other."""
    return list(dict.fromkeys([*first, *then]))[:k]


def unseen(ranked: Iterable[str], question: Question, k: int) -> list[str]:
    """The first `k` items that the user never had."""
    found: list[str] = []
    for item in ranked:
        if len(found) == k:
            break
        if item not in question.had:
            found.append(item)
    return found


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
