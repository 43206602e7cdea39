"""Slow, obvious versions of what research.reranking computes: one candidate, one event after the other. For tests; not for serving."""

from math import log, sqrt
from typing import NamedTuple

from features.rows import KINDS
from models.encoding.vocabulary import FIRST
from models.serving.repeat import SCALES_MS, WEIGHTS
from research.reranking.repeats import FADES_S, LEAST
from tests.references import seminar
from tests.references.seminar import Matrix
from tests.references.towers import Vector


class Event(NamedTuple):
    """An event of a history; `kind` indexes KINDS, `age` in seconds, `gap` is its bucket."""

    number: int
    category: int
    kind: int
    age: float
    gap: int
    vector: Vector


def repeats(history: list[Event], number: int, category: int) -> Vector:
    """The features of one candidate, in the order of research.reranking.repeats."""
    mine = [event for event in history if event.number == number]
    alike = [event for event in history if event.category == category and category >= FIRST]
    faded: Vector = []
    for kind in range(len(KINDS)):
        faded += [_faded([event for event in mine if event.kind == kind], scale) for scale in FADES_S]
    faded += [_faded(alike, scale) for scale in FADES_S]
    since = 0.0
    for after, event in enumerate(reversed(history)):
        if event.number == number:
            since = 1 / (1 + after)
            break
    distinct = len({event.number for event in history})
    worth = sum(WEIGHTS[event.kind] / sqrt(1 + 1000 * event.age / SCALES_MS[event.kind]) for event in mine)
    return [
        *faded,
        log(1 + len(mine)),
        log(1 + len(alike)),
        since,
        1.0 if mine else 0.0,
        log(1 + len(history)) / 5,
        1 - distinct / len(history) if history else 0.0,
        log(LEAST + worth) / 3,
    ]


def _faded(events: list[Event], scale: float) -> float:
    return log(1 + 4 * sum(1 / sqrt(1 + event.age / scale) for event in events))


def interest(
    history: list[Event], target: Vector, kinds: Matrix, gaps: Matrix, weights: dict[str, Matrix], heads: int, count: int
) -> Vector:
    """What GSU and ESU make of a history for a target; `weights["empty"]` is the interest of no history, as its only row."""
    steps = [[a + b + c for a, b, c in zip(event.vector, kinds[event.kind + 1], gaps[event.gap], strict=True)] for event in history]
    found = seminar.gsu(target, steps, [True] * len(steps), weights["query"], weights["key"], count)
    return seminar.esu(target, [steps[at] for at in found], weights, heads, weights["empty"][0])


def expected(categories: list[int], item: int, of: list[int], weight: Vector, count: int) -> float:
    """How often an item is among `count` drawn for a history with these categories; `of` and `weight` are those of all items."""
    possible = [category for category in categories if category in of and category >= FIRST]
    share = weight[item] / sum(weight)
    if not possible:
        return count * share
    inside = weight[item] / sum(w for w, category in zip(weight, of, strict=True) if category == of[item])
    half = count // 2
    return (count - half) * share + half * possible.count(of[item]) / len(possible) * inside
