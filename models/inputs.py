"""The only door from rows to the numbers that the models read: masks, kinds, time gaps, query words, positions of items.

Time gaps are log-bucketed and relative to the newest event or query of the USER row: no clock is asked, so training and
serving see the same number. The newest events are kept where a row holds more than the model reads.
"""

from collections.abc import Mapping, Sequence
from math import log
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from features.fold import Bucket
from features.rows import KINDS, Behaviour, CategoryRow, Search, UserRow
from models.text import hashed
from models.vocabulary import Vocabulary

QUERY = len(KINDS) + 1  # a search without an event of its own; behaviours are 1 to len(KINDS), padding 0
FOLDED = len(KINDS) + 2  # a bucket of the fold: many events as one
KIND_ROWS = len(KINDS) + 3
GAP_ROWS = 32
COUNT_ROWS = 16

Entry = Behaviour | Search | Bucket


class Tokens(NamedTuple):
    """Sequences, oldest first, padded on the right to the longest. T is the number of tokens: S, or L of one category."""

    item: np.ndarray  # (B, T) int64, position in the item table (see Positions); 0 where the token has no item
    category: np.ndarray  # (B, T) int64, row of the vocabulary
    kind: np.ndarray  # (B, T) int64, 0 pads
    gap: np.ndarray  # (B, T) int64, bucket of the time since
    text: np.ndarray  # (B, T) int64, number of the text in a Texts; 0 is no text
    weight: np.ndarray  # (B, T) float32, ln of the number of events that the token stands for

    def take(self, at: np.ndarray) -> "Tokens":
        """The sequences at the given positions (m,), cut to the longest of them."""
        longest = max(1, int((self.kind[at] > 0).sum(1).max(initial=0)))
        return Tokens(*(array[at, :longest] for array in self))


class TouchedTokens(NamedTuple):
    """The distinct categories of each user in time order: what the pointer points at. P' is the most of them."""

    category: np.ndarray  # (B, P') int64, row of the vocabulary; 0 pads
    gap: np.ndarray  # (B, P') int64
    times: np.ndarray  # (B, P') int64, bucket of how many events

    def take(self, at: np.ndarray) -> "TouchedTokens":
        """The users at the given positions (m,), cut to the longest of them."""
        longest = max(1, int((self.category[at] > 0).sum(1).max(initial=0)))
        return TouchedTokens(*(array[at, :longest] for array in self))


class Texts:
    """Distinct texts, numbered as they come; 0 is the empty one."""

    def __init__(self, buckets: int, words: int) -> None:
        self._numbers: dict[str, int] = {"": 0}
        self._ids: list[list[int]] = [[]]
        self._buckets = buckets
        self._words = words

    def number(self, text: str) -> int:
        """The number of a text, the next free one where it is new."""
        number = self._numbers.setdefault(text, len(self._ids))
        if number == len(self._ids):
            self._ids.append(hashed(text, self._buckets, self._words))
        return number

    def words(self) -> np.ndarray:
        """(number of texts, W) int64: hashed words of each, 0 pads."""
        words = np.zeros((len(self._ids), self._words), np.int64)
        for row, ids in enumerate(self._ids):
            words[row, : len(ids)] = ids
        return words


class Positions:
    """Where an item's vector stands. Unknown items share one place for each category (models.items.strangers)."""

    def __init__(self, known: Mapping[str, int], vocabulary: Vocabulary) -> None:
        """`known` gives each item of the table its position; the strangers follow right after them."""
        self.vocabulary = vocabulary
        self._known = known
        self._strangers = len(known)

    def of(self, item: str, category_row: int) -> int:
        """Position of an item; of the stranger of its category where it is not known."""
        position = self._known.get(item)
        return self._strangers + category_row if position is None else position


def newest_ts(user: UserRow) -> int:
    """Time (ms) of the newest event or query of a user, 0 where there is none."""
    return max(user.recent[-1].ts if user.recent else 0, user.queries[-1].ts if user.queries else 0)


def short_tokens(users: Sequence[UserRow], positions: Positions, texts: Texts, cap: int) -> Tokens:
    """The newest `cap` events and queries of all categories of each user: (B, S)."""
    return _tokens([_newest(user, cap) for user in users], [newest_ts(user) for user in users], positions, texts)


def long_tokens(rows: Sequence[CategoryRow], newest: Sequence[int], positions: Positions, texts: Texts, cap: int) -> Tokens:
    """The sequences of one category each, buckets of the fold first: (R, L). `newest` is `newest_ts` of each one's user."""
    return _tokens([_kept(row, cap) for row in rows], newest, positions, texts)


def touched_tokens(users: Sequence[UserRow], vocabulary: Vocabulary, cap: int) -> TouchedTokens:
    """The newest `cap` distinct categories of each user: (B, P')."""
    width = max((min(cap, len(user.categories)) for user in users), default=0)
    tokens = TouchedTokens(*(np.zeros((len(users), max(1, width)), np.int64) for _ in TouchedTokens._fields))
    for n, user in enumerate(users):
        touched = user.categories[-cap:]
        newest = newest_ts(user)
        tokens.category[n, : len(touched)] = [vocabulary.category(category.category) for category in touched]
        tokens.gap[n, : len(touched)] = gaps([newest - category.last_ts for category in touched])
        tokens.times[n, : len(touched)] = [min(category.count.bit_length(), COUNT_ROWS - 1) for category in touched]
    return tokens


def gaps(milliseconds: Sequence[int]) -> np.ndarray:
    """Buckets (n,) of time gaps, one for each doubling of seconds: 1 below a second, 2 below 3 seconds, 13 about an hour."""
    seconds = np.maximum(np.asarray(milliseconds, np.float64), 0) / 1000
    return np.minimum(1 + np.log2(1 + seconds).astype(np.int64), GAP_ROWS - 1)


def tensors(arrays: Sequence[np.ndarray], device: str | torch.device) -> list[Tensor]:
    """The arrays of a named tuple on a device, in its order."""
    return [torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in arrays]


def _kept(row: CategoryRow, cap: int) -> list[Entry]:
    entries: list[Entry] = [*row.folded, *row.events]
    return entries[-cap:]


def _newest(user: UserRow, cap: int) -> list[Entry]:
    """Events and those queries that no kept event carries, merged by time; an event stands after a query of its time."""
    paired = {event.pair.id for event in user.recent if event.pair is not None}
    alone = [query for query in user.queries[-cap:] if query.id not in paired]
    if not alone:
        return list(user.recent[-cap:])
    merged: list[Behaviour | Search] = [*alone]
    merged += user.recent[-cap:]
    merged.sort(key=attrgetter("ts"))
    return list(merged[-cap:])


def _tokens(rows: Sequence[Sequence[Entry]], newest: Sequence[int], positions: Positions, texts: Texts) -> Tokens:
    shape = len(rows), max(1, max(map(len, rows), default=0))
    tokens = Tokens(
        np.zeros(shape, np.int64),
        np.zeros(shape, np.int64),
        np.zeros(shape, np.int64),
        np.zeros(shape, np.int64),
        np.zeros(shape, np.int64),
        np.zeros(shape, np.float32),
    )
    for n, (row, now) in enumerate(zip(rows, newest, strict=True)):
        if not row:
            continue
        described = [_describe(entry, positions, texts) for entry in row]
        items, categories, kinds, numbers, weights, times = zip(*described, strict=True)
        end = len(row)
        tokens.item[n, :end], tokens.category[n, :end], tokens.kind[n, :end] = items, categories, kinds
        tokens.text[n, :end], tokens.weight[n, :end] = numbers, weights
        tokens.gap[n, :end] = gaps([now - then for then in times])
    return tokens


def _describe(entry: Entry, positions: Positions, texts: Texts) -> tuple[int, int, int, int, float, int]:
    """(item, category, kind, text, weight, ts) of a token."""
    if isinstance(entry, Behaviour):
        category = positions.vocabulary.category(entry.category)
        text = texts.number(entry.pair.text) if entry.pair is not None else 0
        return positions.of(entry.item, category), category, entry.kind + 1, text, 0.0, entry.ts
    if isinstance(entry, Search):
        return 0, 0, QUERY, texts.number(entry.text), 0.0, entry.ts
    return 0, 0, FOLDED, 0, log(max(1, entry.count)), entry.last_ts
