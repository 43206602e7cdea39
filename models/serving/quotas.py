"""The merge of a user's lists by Webster's rule for seats, over all users of a batch at once (papers, section 1.3).

Each list has a weight (`Shares`): the short list `short` as the safety net, the categories share the rest, `even` of it
evenly (the floor) and what remains in proportion to their probability. So the K+1 searches weigh 1 together, and a list
beside them (`Extra`) of share s weighs s / (1 - s): s of the places are its own where there is no other beside them.

The hit at rank r (from 0, excluded items taken out) of a list with weight w has place (r + 1/2) / w. An item found by several
lists has the best of its places, and the list that gave it is its finder. Chosen are the items by place, ties by item id,
then by number of the list: categories, short, extras.

So every first k of them, not only all, has the quotas; places that a short list leaves go to the others; and scores of
different vectors, which are not comparable (the long tower learns inside a category only), never decide between lists.
"""

from collections.abc import Callable, Sequence
from math import fsum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.config.retrieval import USUAL
from models.index import Found

LEAST = 1e-9  # the weight of a list that has none: it comes after all others
DEPTHS = (1.3, 5.0, np.inf)  # how far down a user's lists are looked at, in hits for each one wanted; further only where that gave too few

Ints = NDArray[np.int64]
Numbers = NDArray[np.int32]
Places = NDArray[np.float64]
Names = Callable[[Numbers], list[str]]
_COLUMN_BITS = 24  # of a sort key that holds the number of an item and a column


class Lists(NamedTuple):
    """The Q lists of B users: those of a user together, in the order of their numbers; users ascend."""

    hits: Numbers  # (Q, k) numbers of items, best first, none twice, then -1 to the end
    user: Ints  # (Q,) 0 to B-1
    weight: NDArray[np.float64]  # (Q,) above 0


class Extra(NamedTuple):
    """An additional list for each of B users: the path that found its items, its hits, its share of the slots.

    `share` is 0 (no list) to below 1. The slots of users without hits go to the other lists.
    """

    path: str
    found: Found  # (B, limit), best first, none twice, then -1
    share: float

    @property
    def weight(self) -> float:
        """Its weight, if the searches together have weight 1."""
        return beside(self.share)


def beside(share: float) -> float:
    """The weight of a list with `share` of the slots, if the other lists together have weight 1."""
    return share / (1 - share)


def weights(probabilities: Sequence[float], share: float = 1 - USUAL.short, even: float = USUAL.even) -> list[float]:
    """The weights of the lists of one user's categories: they add up to `share`. Shares and probabilities may be 0."""
    given = [max(probability, 0.0) for probability in probabilities]
    total = fsum(given)
    parts = [part / total for part in given] if total > 0 else [1 / max(len(given), 1)] * len(given)
    return [max(share * (even / len(given) + (1 - even) * part), LEAST) for part in parts]


def choose(lists: Lists, users: int, limit: int, names: Names) -> Ints:
    """What is chosen for B users: (B, limit) positions in `hits.ravel()`, best first, then -1. `names` gives ids of items."""
    chosen = np.full((users, limit), -1, np.int64)
    length = (lists.hits >= 0).sum(1)  # (Q,)
    waiting = np.flatnonzero(np.bincount(lists.user, length, users)) if limit else np.empty(0, np.int64)
    for depth in DEPTHS:
        if not len(waiting):
            break
        place, at = _laid_out(lists, length, waiting, _until(lists, length, users, depth * limit)[waiting])
        place, at = _ordered(place, at, lists.hits.ravel(), names)
        kept = _firsts(place, lists.hits.ravel()[at])  # (W, M)
        nth = kept.cumsum(1)  # (W, M), from 1
        kept &= nth <= limit
        row, column = np.nonzero(kept)
        chosen[waiting[row], nth[row, column] - 1] = at[row, column]
        waiting = waiting[nth[:, -1] < limit]
    return chosen


def _until(lists: Lists, length: Ints, users: int, wanted: float) -> Places:
    """The place (B,) up to which a user's lists have about `wanted` hits together; inf where that is beyond the end of all of them.

    A list that ends before leaves its part to the others, who may end in turn: two rounds of that, as more hits are looked for
    where too few were found.
    """
    until = np.zeros(users)
    for _ in range(3):
        ended = length <= lists.weight * until[lists.user]
        left = wanted - np.bincount(lists.user, np.where(ended, length, 0), users)
        total = np.bincount(lists.user, np.where(ended, 0.0, lists.weight), users)
        until = np.divide(left, total, out=np.full(users, np.inf), where=total > 0)
    return until


def _laid_out(lists: Lists, length: Ints, users: Ints, until: Places) -> tuple[Places, Ints]:
    """All hits of W users with a place of at most `until` (W,), not in order: places, inf pads, and positions, (W, M) each."""
    row_of = np.full(int(lists.user[-1]) + 1, -1, np.int64)
    row_of[users] = np.arange(len(users))
    mine = np.flatnonzero(row_of[lists.user] >= 0)  # lists of these users
    row, weight = row_of[lists.user[mine]], lists.weight[mine]
    count = np.minimum(length[mine], weight * until[row] + 1.5).astype(np.int64)  # one too many rather than one too few
    own = np.repeat(np.arange(len(mine)), count)  # (E,), as what follows: a hit's list
    hit = np.arange(len(own))
    rank = hit - (np.cumsum(count) - count)[own]
    width = np.bincount(row, count, len(users)).astype(np.int64)  # (W,)
    at = row[own], hit - (np.cumsum(width) - width)[row[own]]  # row and column
    found = (rank + 0.5) / weight[own]
    shape = len(users), int(width.max())
    place, position = np.full(shape, np.inf), np.zeros(shape, np.int64)
    place[at] = np.where(found <= until[at[0]], found, np.inf)
    position[at] = mine[own] * lists.hits.shape[1] + rank
    return place, position


def _ordered(place: Places, at: Ints, hits: Numbers, names: Names) -> tuple[Places, Ints]:
    """Each row by place, ties by item id, then by number of the list, which is the order of positions."""
    order = place.argsort(1)
    place, at = np.take_along_axis(place, order, 1), np.take_along_axis(at, order, 1)
    same = (place[:, 1:] == place[:, :-1]) & np.isfinite(place[:, 1:])
    if same.any():
        tied = np.zeros(place.shape, np.bool_)
        tied[:, 1:] |= same
        tied[:, :-1] |= same
        row, column = np.nonzero(tied)
        position = at[row, column]
        ids = names(hits[position])
        settled = sorted(zip(row.tolist(), place[row, column].tolist(), ids, position.tolist(), strict=True))
        at[row, column] = [position for _, _, _, position in settled]
    return place, at


def _firsts(place: Places, items: Numbers) -> NDArray[np.bool_]:
    """Mask (W, M): real hits, and the first of its row with its item."""
    kept = np.isfinite(place)
    keys = np.where(kept, items.astype(np.int64) << _COLUMN_BITS, -1 << _COLUMN_BITS) + np.arange(items.shape[1])
    keys.sort(1)
    again = keys[:, 1:] >> _COLUMN_BITS == keys[:, :-1] >> _COLUMN_BITS
    row, nth = np.nonzero(again)
    kept[row, keys[row, nth + 1] & ((1 << _COLUMN_BITS) - 1)] = False
    return kept
