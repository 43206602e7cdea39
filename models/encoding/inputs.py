"""The one path from rows to the numbers that the models read: masks, kinds, time gaps, query words, positions of items.

Time gaps are log-bucketed and relative to the most recent event or query of the USER row: no clock is read, so training and
serving see the same number. Where a row holds more than the model reads, the most recent events are kept.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from features.rows import KINDS, Behaviour, CategoryRow, Search, UserRow
from models.config import NetworkConfig
from models.encoding.contents import query_words
from models.encoding.vocabulary import Vocabulary

GAP_ROWS = 32


def gaps(milliseconds: Sequence[int] | np.ndarray) -> np.ndarray:
    """Buckets (n,) of time gaps, one for each doubling of seconds: 1 below a second, 2 below 3 seconds, 13 about an hour."""
    seconds = np.maximum(np.asarray(milliseconds, np.float64), 0) / 1000
    return np.minimum(1 + np.log2(1 + seconds).astype(np.int64), GAP_ROWS - 1)


def tensors(arrays: Sequence[np.ndarray], device: str | torch.device) -> list[Tensor]:
    """The arrays of a named tuple on a device, in its order."""
    return [torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in arrays]


QUERY = len(KINDS) + 1  # a search without an event of its own; behaviours are 1 to len(KINDS), padding 0
KIND_ROWS = len(KINDS) + 3  # no event has the last kind: it is free for tokens that an ablation adds
COUNT_ROWS = 16

Entry = Behaviour | Search


class Tokens(NamedTuple):
    """Sequences, oldest first, padded on the right to the longest. T is the number of tokens: S, or L of one category."""

    item: np.ndarray  # (B, T) int64, position in the item table (see Positions); 0 where the token has no item
    category: np.ndarray  # (B, T) int64, row of the vocabulary
    kind: np.ndarray  # (B, T) int64, 0 pads
    gap: np.ndarray  # (B, T) int64, bucket of the time since
    text: np.ndarray  # (B, T) int64, number of the text in a Texts; 0 is no text

    def take(self, at: np.ndarray) -> "Tokens":
        """The sequences at the given positions (m,), cut to the longest of them."""
        longest = max(1, int((self.kind[at] > 0).sum(1).max(initial=0)))
        return Tokens(*(array[at, :longest] for array in self))


def ends_with(kind: int, tokens: Tokens) -> np.ndarray:
    """The text (B,) of the last token of each sequence where that is of a kind, else 0."""
    last = np.maximum((tokens.kind > 0).sum(1) - 1, 0)[:, None]  # (B, 1)
    text, is_kind = np.take_along_axis(tokens.text, last, 1), np.take_along_axis(tokens.kind, last, 1) == kind  # (B, 1) each
    return np.where(is_kind, text, 0)[:, 0]


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

    def __init__(self, config: NetworkConfig) -> None:
        self._numbers: dict[str, int] = {"": 0}
        self._config = config

    def number(self, text: str) -> int:
        """The number of a text, the next free one where it is new."""
        return self._numbers.setdefault(text, len(self._numbers))

    def words(self) -> np.ndarray:
        """(number of texts, W) int32: hashed ids of each, 0 pads."""
        return query_words([*self._numbers], self._config)


class Positions:
    """Where an item's vector stands. Unknown items share one place for each category (models.encoding.contents.strangers)."""

    def __init__(self, known: Mapping[str, int], vocabulary: Vocabulary) -> None:
        """`known` gives each item of the table its position; the strangers follow right after them."""
        self.vocabulary = vocabulary
        self._known = known
        self._strangers = len(known)

    def knows(self, item: str) -> bool:
        """Whether an item is one of the table, no stranger."""
        return item in self._known

    def of(self, item: str, category_row: int) -> int:
        """Position of an item; of the stranger of its category where it is not known."""
        position = self._known.get(item)
        return self._strangers + category_row if position is None else position

    def of_all(self, items: Iterable[str], category_rows: np.ndarray) -> np.ndarray:
        """Positions (n,) int64 of n items, as `of` gives them."""
        known = self._known.get
        positions = np.array([known(item, -1) for item in items], np.int64)
        return np.where(positions < 0, self._strangers + category_rows, positions)

    def strange(self, positions: np.ndarray) -> np.ndarray:
        """Which positions are those of strangers, not of items."""
        return (positions >= self._strangers) & (positions < self._strangers + self.vocabulary.category_rows)


def newest_ts(user: UserRow) -> int:
    """Time (ms) of the newest event or query of a user, 0 where there is none."""
    return max(user.recent[-1].ts if user.recent else 0, user.queries[-1].ts if user.queries else 0)


def live_query(user: UserRow) -> str:
    """The newest query of a user where nothing came after it and no event tells that it followed from it, else nothing."""
    newest = user.queries[-1] if user.queries else None
    if newest is None or (user.recent and user.recent[-1].ts >= newest.ts):
        return ""
    return "" if any(event.pair is not None and event.pair.id == newest.id for event in user.recent) else newest.text


def short_tokens(users: Sequence[UserRow], positions: Positions, texts: Texts, cap: int) -> Tokens:
    """The newest `cap` events and queries of all categories of each user: (B, S)."""
    return _tokens([_newest(user, cap) for user in users], [newest_ts(user) for user in users], positions, texts)


def long_tokens(rows: Sequence[CategoryRow], newest: Sequence[int], positions: Positions, texts: Texts, cap: int) -> Tokens:
    """The newest `cap` events of R rows of one category each: (R, L). `newest` is `newest_ts` of the user of each."""
    return _tokens([row.events[-cap:] for row in rows], newest, positions, texts)


def touched_tokens(users: Sequence[UserRow], vocabulary: Vocabulary, cap: int) -> TouchedTokens:
    """The newest `cap` distinct categories of each user: (B, P')."""
    rows = [user.categories[-cap:] for user in users]
    touched = [*chain.from_iterable(rows)]
    newest = np.repeat(np.array([newest_ts(user) for user in users], np.int64), [len(row) for row in rows])
    return TouchedTokens(
        _padded(rows, np.array([vocabulary.category(category.category) for category in touched], np.int64)),
        _padded(rows, gaps(newest - np.array([category.last_ts for category in touched], np.int64))),
        _padded(rows, np.array([min(category.count.bit_length(), COUNT_ROWS - 1) for category in touched], np.int64)),
    )


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
    entries = [*chain.from_iterable(rows)]  # E of all rows
    single = np.array([isinstance(entry, Behaviour) for entry in entries], np.bool_)
    events = [entry for entry in entries if isinstance(entry, Behaviour)]
    item, category, kind, text, ts = np.zeros((5, len(entries)), np.int64)
    category[single] = [positions.vocabulary.category(event.category) for event in events]
    item[single] = positions.of_all([event.item for event in events], category[single])
    kind[single] = [event.kind + 1 for event in events]
    text[single] = [0 if event.pair is None else texts.number(event.pair.text) for event in events]
    ts[single] = [event.ts for event in events]
    for n, entry in enumerate(entries):
        if not isinstance(entry, Behaviour):
            kind[n], text[n], ts[n] = QUERY, texts.number(entry.text), entry.ts
    gap = gaps(np.repeat(np.array(newest, np.int64), [len(row) for row in rows]) - ts)
    return Tokens(*(_padded(rows, column) for column in (item, category, kind, gap, text)))


def _padded(rows: Sequence[Sequence[object]], column: np.ndarray) -> np.ndarray:
    """A value for each entry of all rows, in their order -> (B, T), padded with 0 on the right; T is at least 1."""
    lengths = np.array([len(row) for row in rows], np.int64)
    padded = np.zeros((len(rows), max(1, int(lengths.max(initial=0)))), column.dtype)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = column
    return padded
