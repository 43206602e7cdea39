"""A list of the user's own items: what they had before and may want again (path `repeat`).

It is made of the row `user` alone, `recent` and the older ones of `bought`, so it needs no model, no read of its own, and is
the same whatever else a refresh finds at hand. An item scores the sum over its events of

    WEIGHTS[kind] / sqrt(1 + age / SCALES_MS[kind])

with the age before the user's newest event or query: slower than any exponential, so it fits shops of days and of years,
and slow for orders, which tell what is used up and bought again. Chosen on validation parts (docs/retrieval.md).
"""

from bisect import bisect_left
from collections.abc import Collection, Sequence
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from features.event_time import DAY_MS, MINUTE_MS
from features.rows import Behaviour, UserRow
from models.config.retrieval import USUAL
from models.encoding.inputs import newest_ts
from models.index import Found, View, Where
from models.serving.quotas import Extra, Ints

PATH = "repeat"
WEIGHTS = (1.0, 3.0, 2.0, 0.5)  # of features.rows.KINDS
SCALES_MS = (60 * MINUTE_MS, 60 * MINUTE_MS, 60 * MINUTE_MS, 30 * DAY_MS)

_ITEM_BITS = 32  # of a key that holds a user and the number of an item


def repeated(
    view: View,
    users: Sequence[UserRow],
    excludes: Sequence[Collection[str]],
    limit: int,
    where: Where | None = None,
    share: float = USUAL.repeat,
) -> Extra:
    """Their own items for B users, best first; of equal ones the one with the newer event first.

    Left out are items that are not in the index, excluded (a collection of ids for each user), or held back by `where`.
    """
    events = [[event for event in events_of(row) if event.item not in out] for row, out in zip(users, excludes, strict=True)]
    owner = np.repeat(np.arange(len(events)), [len(mine) for mine in events])  # (E,)
    flat = [event for mine in events for event in mine]
    numbers = view.numbers([event.item for event in flat]).astype(np.int64)
    known = numbers >= 0
    keys = (owner[known] << _ITEM_BITS) + numbers[known]
    distinct, which = np.unique(keys, return_inverse=True)  # (n,), (E,)
    score = np.bincount(which, _worth(users, flat, owner)[known], len(distinct)).astype(np.float64)
    last = np.zeros(len(distinct), np.int64)
    last[which] = np.arange(len(which))  # events ascend by time, and the last one that is assigned stays
    user, item = distinct >> _ITEM_BITS, (distinct & ((1 << _ITEM_BITS) - 1)).astype(np.int32)
    passing = np.flatnonzero(view.passing(item, where))
    order = passing[np.lexsort((-last[passing], -score[passing], user[passing]))]
    return Extra(PATH, _laid_out(user[order], item[order], score[order], len(users), max(limit, 0)), share)


def events_of(row: UserRow) -> list[Behaviour]:
    """What the list is made of, ascending by time, none twice: purchases older than the newest events, then these."""
    if not row.recent:
        return list(row.bought)
    identity = attrgetter("ts", "id")
    return row.bought[: bisect_left(row.bought, identity(row.recent[0]), key=identity)] + row.recent


def _worth(users: Sequence[UserRow], flat: Sequence[Behaviour], owner: Ints) -> NDArray[np.float64]:
    """What each of E events adds to the score of its item."""
    kind = np.array([event.kind for event in flat], np.int64)
    newest = np.array([newest_ts(user) for user in users], np.int64)
    age = newest[owner] - np.array([event.ts for event in flat], np.int64)
    return np.array(WEIGHTS)[kind] / np.sqrt(1 + age / np.array(SCALES_MS, np.float64)[kind])


def _laid_out(user: Ints, item: NDArray[np.int32], score: NDArray[np.float64], users: int, limit: int) -> Found:
    """Hits (n,) by user, best first, as rows of at most `limit`."""
    found = Found.nothing(users, limit)
    rank = np.arange(len(user)) - np.searchsorted(user, user)
    kept = rank < limit
    found.numbers[user[kept], rank[kept]] = item[kept]
    found.scores[user[kept], rank[kept]] = score[kept]
    return found
