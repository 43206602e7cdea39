"""What a candidate is compared with: the newest events of a user, the same in training and in serving, as arrays.

They are those of the row `user` (models.serving.repeat) and of the rows of the categories touched last, none twice. Items have
numbers that are equal for the same item: the position of its vector, or, of an item in no table, a number below 0.
"""

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from features.rows import Behaviour, CategoryRow, UserRow
from models.encoding.inputs import Positions, gaps, newest_ts
from models.serving.repeat import events_of


class RerankHistories(NamedTuple):
    """B histories, oldest event first, padded on the right to L."""

    item: np.ndarray  # (B, L) int64, position of the vector
    number: np.ndarray  # (B, L) int64, number of the item
    category: np.ndarray  # (B, L) int64, row of the vocabulary
    kind: np.ndarray  # (B, L) int64, of features.rows.KINDS from 1; 0 pads
    gap: np.ndarray  # (B, L) int64, bucket of the age
    age: np.ndarray  # (B, L) float32, seconds before the user's newest event or query

    def take(self, at: np.ndarray) -> "RerankHistories":
        """Those at the given positions (m,), cut to the longest of them."""
        longest = max(1, int((self.kind[at] > 0).sum(1).max(initial=0)))
        return RerankHistories(*(array[at, :longest] for array in self))


class Candidates(NamedTuple):
    """C candidates of each of B users, by the same numbers."""

    item: np.ndarray  # (B, C) int64
    number: np.ndarray  # (B, C) int64
    category: np.ndarray  # (B, C) int64
    here: np.ndarray  # (B, C) bool


class Numbers:
    """Numbers of items that agree between histories and candidates, as long as the same object gives them."""

    def __init__(self, positions: Positions) -> None:
        self.positions = positions
        self._strange: dict[str, int] = {}

    def of(self, items: Sequence[str], categories: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions, numbers and rows of categories of n items: (n,) int64 each."""
        rows = np.array([self.positions.vocabulary.category(category) for category in categories], np.int64)
        at = self.positions.of_all(items, rows)
        number = at.copy()
        for n in np.flatnonzero(self.positions.strange(at)).tolist():
            number[n] = -1 - self._strange.setdefault(items[n], len(self._strange))
        return at, number, rows


def read_categories(row: UserRow, count: int) -> list[str]:
    """The categories whose rows belong to a history: the `count` touched last."""
    return [touched.category for touched in row.categories[max(0, len(row.categories) - count) :]]


def newest(row: UserRow, rows: Mapping[str, CategoryRow], categories: int, length: int) -> list[Behaviour]:
    """The newest `length` events of the row and of those of `rows` that belong to the history, oldest first."""
    identity = attrgetter("ts", "id")
    events = {identity(event): event for event in events_of(row)}
    for category in read_categories(row, categories):
        events |= {identity(event): event for event in rows[category].events} if category in rows else {}
    return [events[at] for at in sorted(events)[-length:]]


def encode(users: Sequence[UserRow], histories: Sequence[Sequence[Behaviour]], numbers: Numbers) -> RerankHistories:
    """Histories of B users as arrays; L is the longest, one at least."""
    events = [event for history in histories for event in history]
    item, number, category = numbers.of([event.item for event in events], [event.category for event in events])
    kind = np.array([event.kind + 1 for event in events], np.int64)
    now = np.repeat(np.array([newest_ts(user) for user in users], np.int64), [len(history) for history in histories])
    age_ms = np.maximum(now - np.array([event.ts for event in events], np.int64), 0)
    lengths = [len(history) for history in histories]
    columns = (item, number, category, kind, gaps(age_ms), (age_ms / 1000).astype(np.float32))
    return RerankHistories(*(laid_out(column, lengths) for column in columns))


def candidates(named: Sequence[Iterable[tuple[str, str]]], numbers: Numbers) -> Candidates:
    """Lists of (item, category) of B users as arrays; C is the longest, one at least."""
    lists = [list(mine) for mine in named]
    items, categories = [item for mine in lists for item, _ in mine], [category for mine in lists for _, category in mine]
    lengths = [len(mine) for mine in lists]
    columns = (*numbers.of(items, categories), np.ones(len(items), np.bool_))
    return Candidates(*(laid_out(column, lengths) for column in columns))


def laid_out(column: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
    """Values (n,) of lists of these lengths, one after the other, as rows padded with 0: (B, longest), one wide at least."""
    padded = np.zeros((len(lengths), max(1, *lengths, 0)), column.dtype)
    padded[np.arange(padded.shape[1]) < np.array(lengths, np.int64)[:, None]] = column
    return padded
