"""Lifelong histories as steps (query, item), read from the rows just before a moment: point-in-time by construction.

Steps are all kept events of all categories, each with the query it followed, and the queries that no event followed.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from features.history import Moment
from features.rows import CategoryRow, UserRow, pair
from models.config import Config
from models.encoding.contents import query_words

NONE = -1


class HistoryStep(NamedTuple):
    """One step: time (ms) and identity, item id or none, query text or none."""

    ts: int
    id: int
    item: str | None
    text: str


class HistoryBatch(NamedTuple):
    """E histories, padded on the right, and what came next. Positions in the catalogue, numbers of texts, -1 for none."""

    item: np.ndarray  # (E, L) int64
    text: np.ndarray  # (E, L) int64
    target: np.ndarray  # (E,) int64
    asked: np.ndarray  # (E,) int64


class Histories(NamedTuple):
    """E examples and the steps that they read, which examples of one moment share."""

    start: np.ndarray  # (E,) int64, the first step of each
    size: np.ndarray  # (E,) int64, how many
    item: np.ndarray  # (steps,) int32
    text: np.ndarray  # (steps,) int32
    target: np.ndarray  # (E,) int64
    asked: np.ndarray  # (E,) int64
    words: np.ndarray  # (texts, W) int32

    def batch(self, at: np.ndarray) -> HistoryBatch:
        """The examples at the given positions, their histories as wide as the longest of them and one at least."""
        sizes = self.size[at]  # (E,)
        width = max(1, int(sizes.max(initial=0)))
        column = np.arange(width)
        here = column < sizes[:, None]  # (E, L)
        flat = np.where(here, self.start[at][:, None] + column, 0)  # (E, L)
        item, text = (np.where(here, _at(array, flat), NONE).astype(np.int64) for array in (self.item, self.text))
        return HistoryBatch(item, text, self.target[at], self.asked[at])


def lifelong(row: UserRow, categories: Mapping[str, CategoryRow], length: int) -> list[HistoryStep]:
    """The newest `length` steps of a user, oldest first."""
    events = [event for category in categories.values() for event in category.events[-length:]]
    told = {event.pair.id for event in events if event.pair is not None}
    steps = [HistoryStep(event.ts, event.id, event.item, event.pair.text if event.pair else "") for event in events]
    steps += [HistoryStep(query.ts, query.id, None, query.text) for query in row.queries if query.id not in told]
    return sorted(steps, key=lambda step: step[:2])[-length:]


def build(moments: Iterable[Moment], positions: Mapping[str, int], config: Config) -> tuple[Histories, np.ndarray]:
    """Examples of each moment: `per_basket` items of its basket that the catalogue has; and the number of the moment of each (E,)."""
    texts: dict[str, int] = {}
    parts, examples, laid = [np.empty((2, 0), np.int32)], [], 0
    for number, moment in enumerate(moments):
        basket = [event for event in {event.item: event for event in moment.basket}.values() if event.item in positions]
        if not basket:
            continue
        steps = lifelong(moment.row, moment.categories, config.training.pretraining.length)
        items = [positions.get(step.item, NONE) if step.item is not None else NONE for step in steps]
        parts.append(np.array([items, [_number(texts, step.text) for step in steps]], np.int32))
        for event in basket[: config.training.per_basket]:
            followed = pair(event, moment.row.queries).pair
            examples.append((laid, len(steps), positions[event.item], _number(texts, followed.text if followed else ""), number))
        laid += len(steps)
    item, text = np.concatenate(parts, axis=1)
    start, size, target, asked, whose = np.array(examples, np.int64).reshape(-1, 5).T.copy()
    return Histories(start, size, item, text, target, asked, query_words(list(texts), config.network)), whose


def _number(texts: dict[str, int], text: str) -> int:
    return texts.setdefault(text, len(texts)) if text else NONE


def _at(array: np.ndarray, positions: np.ndarray) -> np.ndarray:
    return array[positions] if len(array) else np.full(positions.shape, NONE, array.dtype)


def distinct(*arrays: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """The distinct numbers of arrays, -1 aside, and the arrays as positions in them, -1 as it is."""
    used, inverse = np.unique(np.concatenate([array.ravel() for array in arrays]), return_inverse=True)
    missing = int(len(used) > 0 and used[0] == NONE)
    cuts: Sequence[int] = np.cumsum([array.size for array in arrays])[:-1].tolist()
    return used[missing:], [part.reshape(array.shape) - missing for part, array in zip(np.split(inverse, cuts), arrays, strict=True)]
