"""One step of a user's features: new events are applied to the rows that they touch. Online ingest and history both use it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from features.event_time import PAIR_SKEW_MS
from features.rows import (
    RECENT_CAP,
    Arrivals,
    Behaviour,
    CategoryRow,
    Search,
    Touched,
    UserRow,
    merge_category,
    merge_queries,
    merge_user,
)


class Applied(NamedTuple):
    """Rows after a step: the user's, those of categories that changed, and what was dropped as a duplicate."""

    user: UserRow
    categories: dict[str, CategoryRow]
    duplicates: list[Behaviour]
    duplicate_queries: list[Search]


def reached(user: UserRow, events: Iterable[Behaviour], queries: Sequence[Search]) -> set[str]:
    """Categories whose rows a step needs: those of its events, and those with an event that one of the queries may explain.

    Such an event is at most PAIR_SKEW_MS older than the query, or it is one of the user's newest events and names the query.
    """
    needed = {event.category for event in events}
    if queries:
        oldest = min(query.ts for query in queries)
        named = {query.query_hash for query in queries}
        needed.update(event.category for event in user.recent if event.query_hash in named)
        since = oldest if _holds_all_since(user, oldest - PAIR_SKEW_MS) else oldest - PAIR_SKEW_MS
        needed.update(touched.category for touched in user.categories if touched.last_ts >= since)
    return needed


def _holds_all_since(user: UserRow, ts: int) -> bool:
    """Whether `recent` holds every event of the user since `ts`, and so every one that names a query."""
    return len(user.recent) < RECENT_CAP or user.recent[0].ts < ts


def apply(
    user: UserRow,
    categories: Mapping[str, CategoryRow],
    events: Sequence[Behaviour] = (),
    queries: Sequence[Search] = (),
    again: Sequence[Behaviour] = (),
) -> Applied:
    """Apply events and queries of one user, in any order. `categories` holds the rows that `reached` returns; a missing row is empty.

    `again`: redelivered events, which their category row has already counted (see features.rows).
    """
    queries = sorted(queries)
    known, duplicate_queries = merge_queries(user.queries, queries)
    changed: dict[str, CategoryRow] = {}
    duplicates: list[Behaviour] = []
    fresh_in, again_in = _by_category(events), _by_category(again)
    for category in sorted(reached(user, (*events, *again), queries)):
        old = categories.get(category, CategoryRow())
        row, dropped = merge_category(old, Arrivals(fresh_in.get(category, ()), queries, again_in.get(category, ())), known)
        duplicates += dropped
        if row != old:
            changed[category] = row
    touched = []
    for category in fresh_in.keys() | again_in.keys():
        row = changed.get(category) or categories.get(category, CategoryRow())
        if row.events:
            touched.append(Touched(row.events[-1].ts, category, row.count))
    merged = merge_user(user, Arrivals(events, queries, again), known, touched)
    return Applied(merged, changed, duplicates, duplicate_queries)


def _by_category(events: Iterable[Behaviour]) -> dict[str, list[Behaviour]]:
    found: dict[str, list[Behaviour]] = {}
    for event in events:
        found.setdefault(event.category, []).append(event)
    return found
