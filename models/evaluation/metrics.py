"""Metrics of one answer against what was wanted, over the full catalogue.

hr@k: an item of the basket is among the first k. recall@k: share of the wanted items that are, of at most k. ndcg@k: the
same with a gain of 1 / log2(place + 1), places from 1, over that of the best order. NaN where nothing is wanted.
hit@k: a category of the basket is among the first k named. All over the distinct items, or categories, of a question.
"""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from math import nan
from typing import NamedTuple

import numpy as np

from models.evaluation.baselines import Answer
from models.evaluation.prediction_points import Question

CUTS = (20, 50, 200)
DEPTH = CUTS[-1]
METRICS = tuple(f"{name}@{k}" for name in ("hr", "recall", "ndcg") for k in CUTS)
HITS = (1, 8)
HIT_METRICS = tuple(f"hit@{k}" for k in HITS)
ALL, NEW, WARM, COLD = VIEWS = ("all items", "new items", "warm items", "cold items")
LENGTHS = (0, 20, 100, 500)  # least events before the moment of each group of history lengths
_GAINS = 1 / np.log2(np.arange(DEPTH) + 2)
_IDEAL = np.concatenate([[0.0], np.cumsum(_GAINS)])


class RankedAnswer(NamedTuple):
    """What is looked for in which list."""

    ranked: Sequence[str]
    basket: AbstractSet[str]
    wanted: AbstractSet[str]


def views(question: Question, answer: Answer, known: AbstractSet[str]) -> Iterator[RankedAnswer]:
    """In the order of VIEWS: all; what the user never had, in the list without what they had; `known` before the cut, or not."""
    basket, wanted, had = question.basket, question.wanted, question.had
    yield RankedAnswer(answer.items, basket, wanted)
    yield RankedAnswer(answer.fresh, basket - had, wanted - had)
    yield RankedAnswer(answer.items, basket & known, wanted & known)
    yield RankedAnswer(answer.items, basket - known, wanted - known)


def item_metrics(ranked: Sequence[str], basket: AbstractSet[str], wanted: AbstractSet[str]) -> list[float]:
    """The METRICS of a list of distinct items, best first."""
    place = {item: at for at, item in enumerate(ranked[:DEPTH])}
    first = min((place[item] for item in basket if item in place), default=DEPTH)
    places = np.sort([place[item] for item in wanted if item in place]).astype(np.int64)
    hits = [float(first < k) for k in CUTS] if basket else [nan] * len(CUTS)
    if not wanted:
        return [*hits, *[nan] * (2 * len(CUTS))]
    found = [int(np.searchsorted(places, k)) for k in CUTS]
    most = [min(k, len(wanted)) for k in CUTS]
    gained = [float(_GAINS[places[:n]].sum() / _IDEAL[m]) for n, m in zip(found, most, strict=True)]
    return [*hits, *(n / m for n, m in zip(found, most, strict=True)), *gained]


def category_metrics(named: Sequence[str], categories: AbstractSet[str]) -> list[float]:
    """The HIT_METRICS of named categories, best first."""
    return [float(not categories.isdisjoint(named[:k])) for k in HITS]


def length_group(events: int) -> int:
    """Which group of LENGTHS a history of so many events belongs to."""
    return int(np.searchsorted(LENGTHS, events, side="right")) - 1


def length_name(group: int) -> str:
    """Name of a group of LENGTHS."""
    last = group == len(LENGTHS) - 1
    return f"history {LENGTHS[group]}" + ("+" if last else f"-{LENGTHS[group + 1] - 1}")
