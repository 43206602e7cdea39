"""Event sequences as flat arrays, the inputs of a model, and the part that configurations are compared on.

The input of an event is everything of its user with an older time stamp: events of one basket never see each other.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from features.event_time import DAY_MS
from research.baselines.contract import Event, RivalUser

HORIZON_MS = DAY_MS
VALIDATION_SHARE = 0.1
VALIDATION_PER_USER = 3
VALIDATION_MOMENTS = 1000


class Corpus:
    """E events of all users one after the other, in numbers: items 1 to V by popularity, categories 1 to N, 0 for none."""

    def __init__(self, sequences: Mapping[str, Sequence[Event]]) -> None:
        users = [sequences[user] for user in sorted(sequences) if sequences[user]]
        counts = Counter(event[1] for events in users for event in events)
        self.items = sorted(counts, key=lambda item: (-counts[item], item))  # the most popular first
        self.number = {item: at for at, item in enumerate(self.items, 1)}
        self.counts = np.array([0, *(counts[item] for item in self.items)], np.int64)  # (V + 1,)
        self.category_number = {name: at for at, name in enumerate(sorted({event[2] for events in users for event in events}), 1)}
        self.item, self.category = self.numbers([event for events in users for event in events])  # (E,), (E,)
        lengths = np.array([len(events) for events in users], np.int64)
        self.first = np.repeat(np.cumsum(lengths) - lengths, lengths)  # (E,) where the user's events begin
        self.end = self._ends(users)  # (E,) where the events before it end

    def numbers(self, events: Sequence[Event]) -> tuple[np.ndarray, np.ndarray]:
        """Item and category numbers of events, two int64 arrays; events of unknown items are left out."""
        known = [(self.number[event[1]], self.category_number.get(event[2], 0)) for event in events if event[1] in self.number]
        numbers = np.array(known, np.int64).reshape(-1, 2)
        return numbers[:, 0], numbers[:, 1]

    def examples(self) -> np.ndarray:
        """The positions of all events with something before them."""
        return np.flatnonzero(self.end > self.first)

    def before(self, examples: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Items and categories of the newest `length` events before each of B examples, right-aligned: (B, S), (B, S)."""
        at = self.end[examples, None] - np.arange(length, 0, -1)  # (B, S)
        there = at >= self.first[examples, None]
        at = np.where(there, at, 0)
        return self.item[at] * there, self.category[at] * there

    def windows(self, length: int, rng: np.random.Generator) -> list["Window"]:
        """All examples, by the window of `length` events that the event right before them falls into.

        A user's windows lie end to end; where the first one ends is drawn per user.
        """
        examples = self.examples()
        first = self.first[examples]
        shift = rng.integers(0, length, len(self.item))[first]
        number = (self.end[examples] - 1 - first + shift) // length
        begin = np.maximum(first, first + number * length - shift)
        edges = np.flatnonzero(np.diff(begin)) + 1
        return [Window(int(begin[at[0]]), examples[at]) for at in np.split(np.arange(len(examples)), edges) if len(at)]

    @staticmethod
    def _ends(users: Sequence[Sequence[Event]]) -> np.ndarray:
        ends: list[int] = []
        done = 0
        for events in users:
            for _, basket in groupby(events, key=itemgetter(0)):
                size = sum(1 for _ in basket)
                ends.extend([done] * size)
                done += size
        return np.array(ends, np.int64)


class Window(NamedTuple):
    """Where a window of events begins, and the examples right after one of its events, ascending."""

    begin: int
    examples: np.ndarray


class CorpusQuestion(NamedTuple):
    """A prediction point that configurations are compared on: the events before `ts` (ms) and the target items, those of the next day."""

    user_id: str
    ts: int
    user: RivalUser
    wanted: frozenset[str]


class CorpusSplit(NamedTuple):
    """The end of the training time, held out: what is trained on while configurations are compared, and their prediction points."""

    sequences: Mapping[str, Sequence[Event]]
    questions: list[CorpusQuestion]


def split(sequences: Mapping[str, Sequence[Event]]) -> CorpusSplit:
    """Hold out the newest tenth of all events, by time. Users without an older event have no prediction point."""
    times = np.array([event[0] for events in sequences.values() for event in events], np.int64)
    cut = int(np.quantile(times, 1 - VALIDATION_SHARE, method="higher"))
    older: dict[str, Sequence[Event]] = {}
    questions: list[CorpusQuestion] = []
    for user in sorted(sequences):
        events = sequences[user]
        stamps = [event[0] for event in events]
        at = bisect_left(stamps, cut)
        if at:
            older[user] = events[:at]
            questions.extend(_questions(user, events, stamps, at))
    return CorpusSplit(older, _spread(questions, VALIDATION_MOMENTS))


def _questions(user: str, events: Sequence[Event], stamps: Sequence[int], start: int) -> list[CorpusQuestion]:
    questions = []
    for ts in _spread(sorted(set(stamps[start:])), VALIDATION_PER_USER):
        here, until = bisect_left(stamps, ts), bisect_left(stamps, ts + HORIZON_MS)
        wanted = frozenset(event[1] for event in events[here:until])
        questions.append(CorpusQuestion(user, ts, RivalUser(events[:here]), wanted))
    return questions


def _spread(what: list[Any], count: int) -> list[Any]:
    """At most `count` of them, evenly spread."""
    if len(what) <= count:
        return what
    return [what[int((n + 1) * len(what) / count) - 1] for n in range(count)]


def recall(answers: Sequence[Sequence[str]], wanted: Sequence[frozenset[str]], k: int) -> float:
    """Mean over prediction points of the share of target items among the first `k` of the list, of at most `k`."""
    pairs = zip(answers, wanted, strict=True)
    shares = [len(targets.intersection(found[:k])) / min(k, len(targets)) for found, targets in pairs]
    return float(np.mean(shares)) if shares else 0.0
