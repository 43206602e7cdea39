"""Checks of a decoded row beyond its types, so that readers can rely on order, bounds, widths and finite numbers.

Bounds of single fields are part of the types in features.rows and features.outcomes, where decoding checks them.
"""

from collections.abc import Callable, Sequence
from math import isfinite
from operator import attrgetter, lt
from typing import Any

import numpy as np

from features.fold import WIDTHS_MS, Bucket
from features.outcomes import CandidatesRow, InterestsRow, ItemRow
from features.rows import ORDER, Behaviour, CategoryRow, Search, UserRow


def fault_of(row: object) -> str | None:
    """What is wrong with a decoded row; None if it is sound."""
    check = _CHECKS.get(type(row))
    return check(row) if check is not None else None


def _user(row: UserRow) -> str | None:
    if not (_ascending(row.recent) and _ascending(row.queries) and _ascending(row.bought)):
        return "its events or queries are not in order"
    if any(event.kind != ORDER for event in row.bought):
        return "a purchase is not an order"
    places = [(touched.last_ts, touched.category) for touched in row.categories]
    if not all(map(lt, places, places[1:])) or len({category for _, category in places}) < len(places):
        return "its categories are not in order"
    return None


def _category(row: CategoryRow) -> str | None:
    if not _ascending(row.events):
        return "its events are not in order"
    if len(set(map(_name, row.events))) > 1:
        return "its events are of several categories"
    places = [(bucket.start_ms, bucket.width_ms) for bucket in row.folded]  # a week may contain one of its days, see features.fold
    if not all(map(lt, places, places[1:])):
        return "its folded buckets are not in order"
    return None if all(map(_whole, row.folded)) else "a folded bucket is malformed"


def _interests(row: InterestsRow) -> str | None:
    if len(row.vectors) != 4 * row.dim * len(row.categories):
        return f"{len(row.vectors)} bytes are not {len(row.categories)} vectors of {row.dim} numbers"
    return _finite(row.vectors)


def _candidates(row: CandidatesRow) -> str | None:
    return None if all(isfinite(candidate.score) for candidate in row.candidates) else "a score is not finite"


def _item(row: ItemRow) -> str | None:
    for packed in (row.vector, row.image, row.text):
        if len(packed) % 4:
            return f"{len(packed)} bytes are not a vector"
        if (fault := _finite(packed)) is not None:
            return fault
    return None if isfinite(row.price) else "its price is not finite"


_name, _identity = attrgetter("category"), attrgetter("ts", "id")


def _ascending(events: Sequence[Behaviour | Search]) -> bool:
    identities = list(map(_identity, events))
    return all(map(lt, identities, identities[1:]))


def _whole(bucket: Bucket) -> bool:
    aligned = bucket.width_ms in WIDTHS_MS and bucket.start_ms % bucket.width_ms == 0
    return aligned and bucket.start_ms <= bucket.last_ts < bucket.start_ms + bucket.width_ms and bucket.count > 0


def _finite(vectors: bytes) -> str | None:
    return None if np.isfinite(np.frombuffer(vectors, "<f4")).all() else "a vector is not finite"


_CHECKS: dict[type, Callable[[Any], str | None]] = {
    UserRow: _user,
    CategoryRow: _category,
    InterestsRow: _interests,
    CandidatesRow: _candidates,
    ItemRow: _item,
}
