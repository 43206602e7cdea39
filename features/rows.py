"""Rows of the online store and their merge: pure functions of the SET of events applied, never of their order.

A row keeps the newest `cap` of its events, ordered by (ts, id), and folds everything older (features.fold). Every part of
a merge is a join: a union of sets limited to the newest, a maximum, or a sum of events that offsets keep from being counted
twice. So merging is idempotent, commutative and associative, and any interleaving of the source topics gives the same
bytes. Layout: MessagePack arrays (msgspec), the first element is the layout's version.

Limits, which bound memory: a duplicate older than the kept events is counted again in the fold; a click that is applied
after `QUERY_CAP` newer queries of its user may miss its query; and a click with a time stamp more than `PAIR_SKEW_MS`
before the query that it names may miss it if the query arrives after `RECENT_CAP` newer events.

A row's log position (features.store) identifies the events in it. Redelivered events must not be counted twice, but they are
paired again, since a crash between the writes of two rows may have left a pair incomplete.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Annotated, NamedTuple

import msgspec

from features.event_time import PAIR_WINDOW_MS
from features.events import Click, Id, Milliseconds, Order, Query
from features.fold import Bucket, Count, fold
from features.text import normalise, says_something

RECENT_CAP = 100
QUERY_CAP = 512
QUERY_CHARACTERS = 512
CATEGORY_CAP = 1024
BOUGHT_CAP = 256
SEQUENCE_CAP = 512
KINDS = ("click", "cart", "favourite", "order")
ORDER = KINDS.index("order")

Hash = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Kind = Annotated[int, msgspec.Meta(ge=0, lt=len(KINDS))]


class Search(msgspec.Struct, array_like=True, frozen=True, order=True, gc=False):
    """A query of a user: time (ms), identity, hash of its query id (0: none), normalised text."""

    ts: Milliseconds
    id: Hash
    query_hash: Hash
    text: str


class Pair(msgspec.Struct, array_like=True, frozen=True, order=True, gc=False):
    """The query that an event followed, and whether the event names it. `pair` chooses the better of two."""

    named: bool
    ts: Milliseconds
    id: Hash
    text: str


class Behaviour(msgspec.Struct, array_like=True, frozen=True, order=True, gc=False):
    """One action of a user on an item. Identity is (ts, id); `kind` indexes KINDS; `query_hash` identifies the query it names."""

    ts: Milliseconds
    id: Hash
    item: Id
    category: Id
    kind: Kind
    query_hash: Hash = 0
    pair: Pair | None = None


class Touched(msgspec.Struct, array_like=True, frozen=True, order=True, gc=False):
    """A category in the user row: time (ms) of its newest event, its id, number of all its events, folded ones included."""

    last_ts: Milliseconds
    category: Id
    count: Count


class UserRow(msgspec.Struct, array_like=True, frozen=True):
    """View `user`: the newest events of all categories, queries, categories and purchases, each ascending by time."""

    version: int = 1
    recent: Annotated[list[Behaviour], msgspec.Meta(max_length=RECENT_CAP)] = []
    queries: Annotated[list[Search], msgspec.Meta(max_length=QUERY_CAP)] = []
    categories: Annotated[list[Touched], msgspec.Meta(max_length=CATEGORY_CAP)] = []
    bought: Annotated[list[Behaviour], msgspec.Meta(max_length=BOUGHT_CAP)] = []


class CategoryRow(msgspec.Struct, array_like=True, frozen=True):
    """View `user_category`: the lifelong sequence of one category, newest kept, older folded; both ascending by time."""

    version: int = 1
    events: Annotated[list[Behaviour], msgspec.Meta(max_length=SEQUENCE_CAP)] = []
    folded: list[Bucket] = []

    @property
    def count(self) -> int:
        """The number of all events, kept and folded."""
        return len(self.events) + sum(bucket.count for bucket in self.folded)


def behaviours(event: Click | Order) -> list[Behaviour]:
    """The behaviours in an event: one for a click, one per line of an order."""
    if isinstance(event, Click):
        kind = KINDS.index(event.kind)
        identity = _hash(event.event_id, event.item_id, event.category_id, event.kind, event.query_id or "")
        named = _hash(event.query_id) if event.query_id else 0
        return [Behaviour(event.ts, identity, event.item_id, event.category_id, kind, named)]
    return [
        Behaviour(event.ts, _hash(event.event_id, str(n), line.item_id, line.category_id), line.item_id, line.category_id, ORDER)
        for n, line in enumerate(event.lines)
    ]


def search(event: Query) -> Search | None:
    """The query as rows store it: its normalised text, at most QUERY_CHARACTERS long. None for a query without content.

    A query without content (features.text.says_something) explains no event and hides no other query, so rows do not store it.
    """
    text = normalise(event.text)[:QUERY_CHARACTERS].rstrip()
    if not says_something(text):
        return None
    return Search(event.ts, _hash(event.event_id, event.query_id, text), _hash(event.query_id), text)


def pair(event: Behaviour, queries: Sequence[Search]) -> Behaviour:
    """The event with the best of its current pair and the pairs that `queries` (ascending by time) offer. A join: independent of order.

    A query that the event names wins, whatever the times: the latest one not after the event, else the earliest after it
    (several queries may share a query id). Otherwise the latest query in the PAIR_WINDOW_MS before the event wins.
    """
    end = bisect_right(queries, event.ts, key=_time)
    found = _named(event, queries, end) if event.query_hash else None
    if found is None and end and queries[end - 1].ts >= event.ts - PAIR_WINDOW_MS:
        found = queries[end - 1]
    if found is None:
        return event
    offered = Pair(event.query_hash != 0 and found.query_hash == event.query_hash, found.ts, found.id, found.text)
    return _paired(event, offered)


def _named(event: Behaviour, queries: Sequence[Search], end: int) -> Search | None:
    """The query that the event names, or None; `end` is the position of the first query after the event."""
    for at in range(end - 1, -1, -1):
        if queries[at].query_hash == event.query_hash:
            return queries[at]
    later = (query for query in queries[end:] if query.query_hash == event.query_hash)
    return max(later, key=lambda query: (-query.ts, query.id, query.text), default=None)


def _paired(event: Behaviour, offered: Pair) -> Behaviour:
    """The event with the better of its current pair and the one offered."""
    if event.pair is not None and _rank(event, event.pair) >= _rank(event, offered):
        return event
    return msgspec.structs.replace(event, pair=offered)


def _rank(event: Behaviour, pair: Pair) -> tuple[bool, bool, int, int, str]:
    """Sort key of an event's pairs, the better larger: named, not after the event, close to it."""
    return pair.named, pair.ts <= event.ts, -abs(pair.ts - event.ts), pair.id, pair.text


def insert(kept: list[Behaviour], new: Behaviour) -> bool:
    """Insert an event into an ascending list; False if it is already there (then the pairs are joined)."""
    if not kept or _identity(new) > _identity(kept[-1]):
        kept.append(new)
        return True
    at = bisect_left(kept, _identity(new), key=_identity)
    if _identity(kept[at]) == _identity(new):
        join(kept, new)
        return False
    kept.insert(at, new)
    return True


def join(kept: list[Behaviour], again: Behaviour) -> None:
    """Join the pair of an event in the list with that of its copy `again`. Does nothing if the event is not in the list."""
    at = bisect_left(kept, _identity(again), key=_identity)
    if again.pair is not None and at < len(kept) and _identity(kept[at]) == _identity(again):
        kept[at] = _paired(kept[at], again.pair)


class Arrivals(NamedTuple):
    """A batch's events of one user, or of one of their categories. `queries` ascend by time.

    `again` are redelivered events, which the row has already counted; redelivered queries are among `queries`.
    """

    events: Sequence[Behaviour] = ()
    queries: Sequence[Search] = ()
    again: Sequence[Behaviour] = ()


def merge_category(
    row: CategoryRow, arrivals: Arrivals, known: Sequence[Search], cap: int = SEQUENCE_CAP
) -> tuple[CategoryRow, list[Behaviour]]:
    """The row with the events of its category applied and pairs completed; and the duplicates that were dropped.

    `known`, ascending by time: the queries of the user row and the new ones.
    """
    kept = _complete(row.events, arrivals.queries)
    duplicates = [event for event in arrivals.events if not insert(kept, pair(event, known))]
    for event in arrivals.again:
        join(kept, pair(event, known))
    out, kept = kept[:-cap], kept[-cap:]
    folded = fold(row.folded, out, newest_ms=kept[-1].ts) if out or row.folded else row.folded
    return CategoryRow(row.version, kept, folded), duplicates


def merge_user(row: UserRow, arrivals: Arrivals, known: Sequence[Search], categories: Iterable[Touched]) -> UserRow:
    """The row with events, queries and the state of touched categories applied. `known` as in `merge_category`."""
    recent, bought = _complete(row.recent, arrivals.queries), list(row.bought)
    for event in (*arrivals.events, *arrivals.again):
        insert(recent, pair(event, known))
        if event.kind == ORDER:
            insert(bought, event)
    touched = {old.category: old for old in row.categories}
    for new in categories:
        old = touched.get(new.category, new)
        touched[new.category] = Touched(max(old.last_ts, new.last_ts), new.category, max(old.count, new.count))
    return UserRow(
        row.version, recent[-RECENT_CAP:], list(known[-QUERY_CAP:]), sorted(touched.values())[-CATEGORY_CAP:], bought[-BOUGHT_CAP:]
    )


def merge_queries(kept: Sequence[Search], new: Iterable[Search]) -> tuple[list[Search], list[Search]]:
    """Union of a row's queries and the new ones, ascending and without a limit; and the duplicates among the new."""
    union = {(query.ts, query.id): query for query in kept}
    duplicates = [query for query in new if union.setdefault((query.ts, query.id), query) is not query]
    return sorted(union.values()), duplicates


def _complete(events: Sequence[Behaviour], queries: Sequence[Search]) -> list[Behaviour]:
    """A copy of the kept events, paired with the new queries if they come after the first of these or name one."""
    if not queries:
        return list(events)
    named = {query.query_hash for query in queries}
    first = queries[0].ts
    return [pair(event, queries) if event.ts >= first or event.query_hash in named else event for event in events]


def _time(event: Behaviour | Search) -> int:
    return event.ts


def _identity(event: Behaviour) -> tuple[int, int]:
    return event.ts, event.id


def _hash(*parts: str) -> int:
    """A stable 63-bit hash of the parts; never 0."""
    digest = blake2b("\0".join(parts).encode(), digest_size=8).digest()
    return (int.from_bytes(digest) >> 1) or 1
