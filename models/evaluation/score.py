"""All contenders answer all prediction points, batch by batch; their scores are kept as numbers."""

from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from models.config import RetrievalConfig
from models.evaluation.baselines import (
    POPULAR_DEPTH,
    SIMPLE,
    Answer,
    Contender,
    ItemNeighbours,
    MostPopular,
    PopularInCategories,
    SeenBefore,
    popularity,
)
from models.evaluation.metrics import DEPTH, METRICS, VIEWS, category_metrics, item_metrics, length_group, views
from models.evaluation.prediction_points import Question
from models.evaluation.serving_rules import NO_RULES, ServingRules, under
from models.evaluation.split import Split

RECENT_DAYS = RetrievalConfig().popular_days  # half-life of an event

BATCH = 64
TARGETS = ("all", "with events before the cut", "in the catalogue", "in the user's history", "in the catalogue or the user's history")
COVERAGE_CUT = 50


class Entry(NamedTuple):
    """A contender trained with one seed; a rule has one entry."""

    name: str
    seed: int
    contender: Contender


class Tally(NamedTuple):
    """Scores of Q questions. Entries of one name are its seeds, in the order given."""

    users: list[str]  # (Q,)
    lengths: np.ndarray  # (Q,) int64, group of the history's length
    items: dict[str, np.ndarray]  # contender -> (seeds, Q, views, METRICS), NaN where nothing is wanted
    categories: dict[str, np.ndarray]  # method -> (seeds, Q, HIT_METRICS)
    coverage: dict[str, list[float]]  # contender -> share of the catalogue in anybody's first 50, each seed
    targets: dict[str, int]  # name of TARGETS -> how many pairs of a question and a wanted item


class _Scores:
    """The scores of one entry so far."""

    def __init__(self) -> None:
        self.items: list[list[list[float]]] = []
        self.categories: dict[str, list[list[float]]] = {}
        self.shown: set[str] = set()

    def add(self, question: Question, answer: Answer, known: frozenset[str]) -> None:
        self.items.append([item_metrics(*view) for view in views(question, answer, known)])
        for method, named in answer.categories.items():
            self.categories.setdefault(method, []).append(category_metrics(named, question.categories))
        self.shown.update(answer.items[:COVERAGE_CUT])


def tally(
    asked: Iterable[Question],
    entries: Sequence[Entry],
    catalogue: Collection[str],
    known: frozenset[str],
    tell: Callable[[int], None] = lambda _: None,
) -> Tally:
    """Score all entries on all questions. `known` are the items of the split's known history; `tell` is called with the questions done."""
    scores = [_Scores() for _ in entries]
    users: list[str] = []
    lengths: list[int] = []
    targets = dict.fromkeys(TARGETS, 0)
    catalogue = frozenset(catalogue)
    rest = iter(asked)
    while batch := list(islice(rest, BATCH)):
        for entry, score in zip(entries, scores, strict=True):
            for question, answer in zip(batch, entry.contender.answer(batch, DEPTH), strict=True):
                score.add(question, answer, known)
        for question in batch:
            users.append(question.user)
            lengths.append(length_group(len(question.past)))
            wanted, had = question.wanted, question.had
            groups = (wanted, wanted & known, wanted & catalogue, wanted & had, wanted & (catalogue | had))
            for name, group in zip(TARGETS, groups, strict=True):
                targets[name] += len(group)
        tell(len(users))
    return _stacked(entries, scores, Tally(users, np.array(lengths, np.int64), {}, {}, {}, targets), catalogue)


def _stacked(entries: Sequence[Entry], scores: Sequence[_Scores], empty: Tally, catalogue: frozenset[str]) -> Tally:
    by_name: dict[str, list[_Scores]] = {}
    for entry, score in zip(entries, scores, strict=True):
        by_name.setdefault(entry.name, []).append(score)
    for name, seeds in by_name.items():
        empty.items[name] = np.array([seed.items for seed in seeds]).reshape(len(seeds), len(empty.users), len(VIEWS), len(METRICS))
        empty.coverage[name] = [len(seed.shown & catalogue) / max(1, len(catalogue)) for seed in seeds]
        for method in seeds[0].categories:
            empty.categories[method] = np.array([seed.categories[method] for seed in seeds])
    return empty


def simple(split: Split, names: Sequence[str] = SIMPLE, seed: int = 0, rules: ServingRules = NO_RULES) -> list[Entry]:
    """The named baselines of SIMPLE, in its order, fitted on the known history of a split, under the serving rules."""
    popular = popularity(split.known, split.cut_ms, POPULAR_DEPTH)
    makers: dict[str, Callable[[], Contender]] = {
        "most popular": lambda: MostPopular(popular),
        "popular lately": lambda: MostPopular(popularity(split.known, split.cut_ms, POPULAR_DEPTH, RECENT_DAYS)),
        "popular in categories": lambda: PopularInCategories(popular),
        "seen before": lambda: SeenBefore(popular, often=False),
        "seen often": lambda: SeenBefore(popular, often=True),
        "item-kNN": lambda: ItemNeighbours(split.known, popular),
    }
    return [Entry(name, seed, under(makers[name](), rules)) for name in SIMPLE if name in names]
