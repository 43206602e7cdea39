"""What a model must beat without being trained: popular, of late too, popular in the user's categories, seen before, seen often."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import NamedTuple, Protocol

from features.event_time import DAY_MS
from features.history import Deeds
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
