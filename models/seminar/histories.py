"""Lifelong histories as steps (query, item), read from the rows just before a moment: point-in-time by construction.

Steps are all kept events of all categories, each with the query it followed, and the queries that no event followed.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from features.history import Moment
from features.rows import CategoryRow, UserRow, pair
from models.seminar.config import SeminarConfig
from models.seminar.contents import query_words

NONE = -1


class Step(NamedTuple):
    """One step: time (ms) and identity, item id or none, query text or none."""

    ts: int
    id: int
    item: str | None
    text: str


class Batch(NamedTuple):
    """E histories, padded on the right, and what came next. Positions in the catalogue, numbers of texts, -1 for none."""

    item: np.ndarray  # (E, L) int64
    text: np.ndarray  # (E, L) int64
    target: np.ndarray  # (E,) int64
    asked: np.ndarray  # (E,) int64


class Histories(NamedTuple):
    """E examples, their steps laid end to end."""

    start: np.ndarray  # (E + 1,) int64
    item: np.ndarray  # (steps,) int32
    text: np.ndarray  # (steps,) int32
    target: np.ndarray  # (E,) int64
    asked: np.ndarray  # (E,) int64
    words: np.ndarray  # (texts, W) int32

    def batch(self, at: np.ndarray) -> Batch:
        """The examples at the given positions, their histories as wide as the longest of them and one at least."""
        sizes = self.start[at + 1] - self.start[at]  # (E,)
        width = max(1, int(sizes.max(initial=0)))
        column = np.arange(width)
        here = column < sizes[:, None]  # (E, L)
        flat = np.where(here, self.start[at][:, None] + column, 0)  # (E, L)
        item, text = (np.where(here, _at(array, flat), NONE).astype(np.int64) for array in (self.item, self.text))
        return Batch(item, text, self.target[at], self.asked[at])


def lifelong(row: UserRow, categories: Mapping[str, CategoryRow], length: int) -> list[Step]:
    """The newest `length` steps of a user, oldest first."""
    events = [event for category in categories.values() for event in category.events]
    told = {event.pair.id for event in events if event.pair is not None}
    steps = [Step(event.ts, event.id, event.item, event.pair.text if event.pair else "") for event in events]
    steps += [Step(query.ts, query.id, None, query.text) for query in row.queries if query.id not in told]
    return sorted(steps, key=lambda step: step[:2])[-length:]


def build(moments: Iterable[Moment], positions: Mapping[str, int], config: SeminarConfig) -> tuple[Histories, np.ndarray]:
    """An example for each distinct item of each moment's basket that the catalogue has; and the number of the moment of each (E,)."""
    texts: dict[str, int] = {}
    starts, items, numbers, targets, asked, whose = [0], [], [], [], [], []
    for number, moment in enumerate(moments):
        steps = lifelong(moment.row, moment.categories, config.length)
        for event in {event.item: event for event in moment.basket}.values():
            if event.item not in positions:
                continue
            items += [positions.get(step.item, NONE) if step.item is not None else NONE for step in steps]
            numbers += [_number(texts, step.text) for step in steps]
            followed = pair(event, moment.row.queries).pair
            starts.append(len(items))
            targets.append(positions[event.item])
            asked.append(_number(texts, followed.text if followed else ""))
            whose.append(number)
    words = query_words(list(texts), config)
    arrays = np.array(starts, np.int64), np.array(items, np.int32), np.array(numbers, np.int32)
    return Histories(*arrays, np.array(targets, np.int64), np.array(asked, np.int64), words), np.array(whose, np.int64)


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
