"""Prediction points: the rows of a user just before a held-out basket, the basket, and the catalogue to choose from."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from operator import attrgetter
from typing import NamedTuple

import msgspec
import numpy as np

from features.event_time import DAY_MS
from features.events import Item
from features.history import Timeline, moments
from features.rows import Behaviour, CategoryRow, UserRow
from models.encoding.catalogue import catalogue_at
from models.evaluation.split import Split


class Offered(NamedTuple):
    """What the cascade can find: the catalogue as of the cut, and later items that a tested user had already interacted with."""

    catalogue: list[Item]
    own: list[Item]


def offered(described: Iterable[Item], inferred: Sequence[Item], split: Split, users: Iterable[str]) -> Offered:
    """What can be found for these users. `described` and `inferred`: see models.encoding.catalogue.catalogue_at."""
    catalogue = catalogue_at(split.cut_ms, described, inferred, split.known)
    there = {item.item_id for item in catalogue}
    return Offered(catalogue, own_items(split, users, [item for item in inferred if item.item_id not in there]))


HORIZON_MS = DAY_MS


class Question(msgspec.Struct, frozen=True, dict=True, eq=False):
    """A user at a moment. `past` and the rows hold what is older than `ts` (ms), nothing else.

    `basket` are the items wanted at once, `wanted` those and what followed within `HORIZON_MS`; in the split by users both
    are all that was held out. `categories` are those of the basket.
    """

    user: str
    ts: int
    row: UserRow
    rows: Mapping[str, CategoryRow]
    past: Sequence[Behaviour]
    basket: frozenset[str]
    wanted: frozenset[str]
    categories: frozenset[str]

    @cached_property
    def had(self) -> frozenset[str]:
        """Items of the past."""
        return frozenset(event.item for event in self.past)


def questions(split: Split, per_user: int, users: Sequence[str]) -> Iterator[Question]:
    """The questions on `users`: at most `per_user` baskets of each, evenly spread; one of each in the split by users."""
    for user in users:
        if split.whole:
            yield _whole(split, user)
        else:
            yield from _baskets(split, user, per_user)


def users_asked(split: Split, most: int | None, seed: int) -> list[str]:
    """The tested users, ascending; `most` of them drawn by seed where there are more."""
    users = sorted(split.starts)
    if most is None or len(users) <= most:
        return users
    return sorted(users[at] for at in np.random.default_rng(seed).permutation(len(users))[:most])


def own_items(split: Split, users: Iterable[str], others: Iterable[Item]) -> list[Item]:
    """Of items outside the catalogue those that one of `users` can have had at a question: that user alone may get them then."""
    had: set[str] = set()
    for user in users:
        events = split.done[user].events
        until = split.starts[user] if split.whole else events[-1].ts
        had.update(event.item for event in events if event.ts < until)
    return [item for item in others if item.item_id in had]


def _baskets(split: Split, user: str, per_user: int) -> Iterator[Question]:
    deeds = split.done[user]
    for moment in moments({user: deeds}, from_ts=split.starts[user], per_user=per_user):
        first, last = (bisect_left(deeds.events, ts, key=attrgetter("ts")) for ts in (moment.ts, moment.ts + HORIZON_MS))
        yield _question(user, moment.ts, (moment.row, moment.categories), deeds.events[:first], moment.basket, deeds.events[first:last])


def _whole(split: Split, user: str) -> Question:
    deeds, start = split.done[user], split.starts[user]
    timeline = Timeline(deeds)
    timeline.advance(start)
    first = bisect_left(deeds.events, start, key=attrgetter("ts"))
    left = deeds.events[first:]
    return _question(user, start, (timeline.row, timeline.categories), deeds.events[:first], left, left)


def _question(
    user: str,
    ts: int,
    rows: tuple[UserRow, Mapping[str, CategoryRow]],
    past: Sequence[Behaviour],
    basket: Sequence[Behaviour],
    wanted: Sequence[Behaviour],
) -> Question:
    return Question(
        user=user,
        ts=ts,
        row=rows[0],
        rows=rows[1],
        past=past,
        basket=frozenset(event.item for event in basket),
        wanted=frozenset(event.item for event in wanted),
        categories=frozenset(event.category for event in basket),
    )
