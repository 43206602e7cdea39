"""The cache of rows: what its bound counts, over all partitions of a worker, and what is read again."""

import pytest

from features.codec import pack
from features.event_time import DAY_MS
from features.fold import Bucket
from features.rows import Behaviour, CategoryRow, Pair, Search, Touched, UserRow
from features.store import Key, LogPosition, Stored
from features.store.memory import MemoryStore
from features.table import USER
from stream.pipelines.row_cache import CachedUser, CategoryState, RowCache, UserState

EVENTS = [Behaviour(n, n, "i", "c", 0, 0, Pair(False, n, n, "shoe")) for n in range(8)]
LONG = {
    "recent": UserRow(recent=EVENTS),
    "queries": UserRow(queries=[Search(n, n, 0, "shoe") for n in range(8)]),
    "categories": UserRow(categories=[Touched(n, f"c{n}", 1) for n in range(8)]),
    "bought": UserRow(bought=EVENTS),
    "events": CategoryRow(events=EVENTS),
    "folded": CategoryRow(folded=[Bucket(n * DAY_MS, DAY_MS, 1, 0, 0, 0, n) for n in range(8)]),
}


def cached(row):
    user, categories = (row, {}) if isinstance(row, UserRow) else (UserRow(), {"c": CategoryState(row, LogPosition())})
    return CachedUser(UserState(user, LogPosition()), categories)


@pytest.fixture
def cache():
    return RowCache(MemoryStore(), 0, 12)


@pytest.mark.parametrize("what", LONG)
def test_the_bound_counts_everything_that_a_user_holds(cache, what):
    cache.put(0, "a", cached(LONG[what]))
    assert cache.holds(0, "a")
    cache.put(0, "b", cached(LONG[what]))
    assert (cache.holds(0, "a"), cache.holds(0, "b")) == (False, True)


def test_a_user_who_is_mended_comes_with_the_categories_of_their_newest_events_too(cache):
    """A category that shares the time of many others may be cut from the user row's list, and a query may still name its event."""
    cache._store.write([(Key(USER.name, ("a",)), Stored(pack(UserRow(recent=EVENTS)), LogPosition(0, 1, 0, 0), 0))])
    state, damaged = cache.mended("a", ["other"])
    assert (set(state.categories), damaged) == ({"c", "other"}, [])


def test_the_bound_is_that_of_all_partitions_together(cache):
    cache.put(0, "a", cached(LONG["queries"]))
    cache.put(1, "b", cached(LONG["queries"]))
    assert (cache.holds(0, "a"), cache.holds(1, "b")) == (False, True)


def test_who_was_used_last_goes_last_and_one_user_stays_however_long(cache):
    for name in "ab":
        cache.put(0, name, cached(UserRow()))
    cache.load(0, {"a": set()})
    cache.put(0, "c", cached(UserRow(recent=EVENTS, queries=LONG["queries"].queries)))
    assert [cache.holds(0, name) for name in "abc"] == [False, False, True]
    cache.put(0, "a", cached(LONG["recent"]))
    assert [cache.holds(0, name) for name in "abc"] == [True, False, False]


def test_a_partition_that_is_left_takes_its_users_along_and_no_others(cache):
    for partition in (0, 1):
        cache.put(partition, "u", cached(UserRow()))
    cache.leave(0)
    assert (cache.holds(0, "u"), cache.holds(1, "u")) == (False, True)
    for n in range(10):
        cache.put(0, f"u{n}", cached(UserRow()))
    assert cache.holds(1, "u")  # what left is no longer counted
