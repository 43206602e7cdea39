"""One user's part of the ingest pipeline: new events merged into their rows, the rows to write, and the refresh request."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from features.apply import Applied, apply, reached
from features.codec import pack
from features.events import Click, Order, Query, Topic
from features.rows import Behaviour, Search, UserRow, behaviours, search
from features.store import Key, LogPosition, Stored
from features.table import USER, USER_CATEGORY
from stream.kafka.messages import RefreshRequest, sent_ms
from stream.pipelines.batch import Record
from stream.pipelines.row_cache import CachedUser, CategoryState, UserState


class ArrivedEvent(NamedTuple):
    """A valid event: its topic and offset, when it was sent (wall clock, ms), event time (ms), and its behaviours or its search."""

    topic: Topic
    offset: int
    sent_ms: int
    ts: int
    behaviours: list[Behaviour]
    search: Search | None


class MergeStep(NamedTuple):
    """A user's rows after a merge, the rows to write, counts of events, and the refresh request."""

    state: CachedUser
    rows: list[tuple[Key, Stored]]
    counts: Counter[str]
    request: RefreshRequest


def arrived(topic: Topic, record: Record, event: Click | Query | Order) -> ArrivedEvent:
    """The event of a record."""
    sent = sent_ms(record.headers, record.timestamp)
    if isinstance(event, Query):
        return ArrivedEvent(topic, record.offset, sent, event.ts, [], search(event))
    return ArrivedEvent(topic, record.offset, sent, event.ts, behaviours(event), None)


def merge(user: str, cached: CachedUser, found: Sequence[ArrivedEvent]) -> MergeStep:
    """Merge the events of a user from one partition, ascending by offset per topic. An event is new to a row without its offset."""
    states = cached.categories
    fresh: list[Behaviour] = []
    again: list[Behaviour] = []
    for one in found:
        for event in one.behaviours:
            (again if _holds(states[event.category].log_position, one) else fresh).append(event)
    searches = [one.search for one in found if one.search is not None]
    needed = reached(cached.user.row, (*fresh, *again), searches)
    applied = apply(cached.user.row, {category: states[category].row for category in needed}, fresh, searches, again)
    ends = {one.topic: one.offset + 1 for one in found}
    position = raised(cached.user.log_position, ends)
    changed = {c: CategoryState(row, raised(states[c].log_position, ends)) for c, row in applied.categories.items()}
    to_write = [
        (Key(USER_CATEGORY.name, (user, c)), Stored(pack(s.row), s.log_position, s.row.events[-1].ts)) for c, s in sorted(changed.items())
    ]
    if applied.user != cached.user.row or position != cached.user.log_position:
        to_write.append((Key(USER.name, (user,)), Stored(pack(applied.user), position, newest(applied.user))))
    written_before = {c for c in needed if _holds(states[c].log_position, found[0])}  # by a try that may have published no request
    categories = sorted({b.category for b in (*fresh, *again)} | changed.keys() | written_before)
    counts = _counts(cached, found, applied, not again and all(one.behaviours for one in found))
    ts, sent = max(one.ts for one in found), max(one.sent_ms for one in found)
    request = RefreshRequest(user_id=user, categories=categories, log_position=position, event_ts=ts, sent_ms=sent)
    return MergeStep(CachedUser(UserState(applied.user, position), states | changed), to_write, counts, request)


def _counts(cached: CachedUser, found: Sequence[ArrivedEvent], applied: Applied, all_fresh: bool) -> Counter[str]:
    """How many events were applied, duplicates or redelivered. An order counts as the best of its lines.

    `all_fresh`: none is a query, and no behaviour was counted before.
    """
    if all_fresh and not applied.duplicates:
        return Counter(applied=len(found))
    dropped = Counter((b.ts, b.id) for b in applied.duplicates)
    dropped.update((q.ts, q.id) for q in applied.duplicate_queries)
    counts: Counter[str] = Counter()
    for one in found:
        holders = [cached.categories[b.category].log_position for b in one.behaviours] or [cached.user.log_position]
        identities = [(b.ts, b.id) for b in one.behaviours] + [(q.ts, q.id) for q in [one.search] if q is not None]
        if all(_holds(position, one) for position in holders):
            counts["redelivered"] += 1
        elif identities and all(dropped[identity] for identity in identities):
            counts["duplicate"] += 1
            dropped.subtract(identities)
        else:
            counts["applied"] += 1
    return counts


def raised(position: LogPosition, ends: Mapping[Topic, int]) -> LogPosition:
    """The position of a row that holds all events of these topics below these offsets too."""
    for topic, end in ends.items():
        position = position.raised(topic, end)
    return position


def _holds(position: LogPosition, one: ArrivedEvent) -> bool:
    return bool(one.offset < getattr(position, one.topic.value))


def newest(row: UserRow) -> int:
    """Time (ms) of the newest event of a user row."""
    return max([event.ts for event in row.recent[-1:]] + [query.ts for query in row.queries[-1:]], default=0)
