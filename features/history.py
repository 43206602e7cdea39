"""Point-in-time history: the rows at any past moment, by replay through the step that online ingest uses.

Rows are functions of the set of events, so all events between two moments are applied as one step. Events of one user with the
same time stamp are one basket: a moment lies before all of them or after all of them.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

from features.apply import apply
from features.events import Event, Item, Query
from features.rows import Behaviour, CategoryRow, Search, UserRow, behaviours, search


class Deeds(NamedTuple):
    """All events and queries of one user, each ascending by time, including duplicates."""

    events: list[Behaviour]
    queries: list[Search]


class Moment(NamedTuple):
    """A basket of a user and the rows just before it, without any event of its time stamp or later."""

    user: str
    ts: int
    basket: list[Behaviour]
    row: UserRow
    categories: dict[str, CategoryRow]


def deeds(events: Iterable[Event]) -> dict[str, Deeds]:
    """Events and queries by user id. Item events are ignored; the order of `events` does not matter."""
    users: defaultdict[str, Deeds] = defaultdict(lambda: Deeds([], []))
    for event in events:
        if isinstance(event, Query):
            users[event.user_id].queries.extend(found for found in [search(event)] if found is not None)
        elif not isinstance(event, Item):
            users[event.user_id].events.extend(behaviours(event))
    for done in users.values():
        done.events.sort(key=attrgetter("ts", "id"))
        done.queries.sort()
    return dict(users)


class Timeline:
    """One user's rows, advanced through time. `row` and `categories` are replaced, never modified in place."""

    def __init__(self, done: Deeds) -> None:
        self.row = UserRow()
        self.categories: dict[str, CategoryRow] = {}
        self._done = done
        self._event = 0
        self._query = 0

    def advance(self, before_ts: int | None = None) -> None:
        """Apply all remaining events before `before_ts` (ms); if it is None, all remaining events."""
        events, self._event = _take(self._done.events, self._event, before_ts)
        queries, self._query = _take(self._done.queries, self._query, before_ts)
        if events or queries:
            applied = apply(self.row, self.categories, events, queries)
            self.row = applied.user
            self.categories = self.categories | applied.categories


def offline_rows(events: Iterable[Event]) -> tuple[dict[str, UserRow], dict[tuple[str, str], CategoryRow]]:
    """The rows of all users, and of all (user, category), as the store holds them after all `events` are ingested."""
    users: dict[str, UserRow] = {}
    categories: dict[tuple[str, str], CategoryRow] = {}
    for user, done in deeds(events).items():
        timeline = Timeline(done)
        timeline.advance()
        users[user] = timeline.row
        categories.update({(user, category): row for category, row in timeline.categories.items()})
    return users, categories


def moments(done: dict[str, Deeds], from_ts: int = 0, until_ts: int | None = None, per_user: int | None = None) -> Iterator[Moment]:
    """The baskets with `from_ts` <= ts < `until_ts`, user by user and in time order, each with the rows just before it.

    `per_user`: the maximum number of baskets per user, evenly spread and including the newest.
    """
    for user in sorted(done):
        timeline = Timeline(done[user])
        for ts, basket in _spread(_baskets(done[user].events, from_ts, until_ts), per_user):
            timeline.advance(ts)
            yield Moment(user, ts, basket, timeline.row, timeline.categories)


def _baskets(events: Sequence[Behaviour], from_ts: int, until_ts: int | None) -> list[tuple[int, list[Behaviour]]]:
    chosen = [event for event in events if event.ts >= from_ts and (until_ts is None or event.ts < until_ts)]
    return [(ts, list({event.id: event for event in basket}.values())) for ts, basket in groupby(chosen, key=attrgetter("ts"))]


def _spread(baskets: list[tuple[int, list[Behaviour]]], count: int | None) -> list[tuple[int, list[Behaviour]]]:
    if count is None or len(baskets) <= count:
        return baskets
    step = len(baskets) / count
    return [baskets[int((n + 1) * step) - 1] for n in range(count)]


def _take(done: Sequence[Any], start: int, before_ts: int | None) -> tuple[Sequence[Any], int]:
    """The elements from position `start` up to the first one at or after `before_ts`, and the position of that one."""
    end = start
    while end < len(done) and (before_ts is None or done[end].ts < before_ts):
        end += 1
    return done[start:end], end
