"""What is read of a lifelong sequence, against counting by hand: nothing is counted twice, and with buckets nothing is lost."""

import math
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from features.event_time import DAY_MS
from features.fold import Bucket, fold
from features.rows import Behaviour, CategoryRow
from models.encoding.sequences import read


def row_of(days, kept):
    """A row of events on the given days that keeps the newest `kept` and has folded the rest."""
    events = [Behaviour(day * DAY_MS + n, n + 1, f"i{n}", "c", n % 4) for n, day in enumerate(sorted(days))]
    older, newest = events[: max(0, len(events) - kept)], events[max(0, len(events) - kept) :]
    return CategoryRow(events=newest, folded=fold([], older, newest[-1].ts) if older else []), events


DAYS = st.lists(st.integers(0, 900), max_size=40)


@given(DAYS, st.integers(1, 12), st.integers(2, 20), st.integers(0, 6))
@settings(deadline=None)
def test_the_newest_are_read_and_with_buckets_every_event_counts_once(days, kept, cap, folds):
    folds = min(folds, cap - 1)
    row, events = row_of(days, kept)
    entries = read(row, cap, folds)
    single = [entry for entry in entries if isinstance(entry, Behaviour)]
    buckets = [entry for entry in entries if isinstance(entry, Bucket)]
    assert len(entries) <= cap
    assert len(buckets) <= folds
    assert entries == buckets + single
    assert single == events[len(events) - len(single) :]
    assert len(single) == min(kept, len(events), cap if len(events) <= min(cap, kept) or not folds else cap - folds)
    if folds:
        assert sum(bucket.count for bucket in buckets) + len(single) == len(events)
        for kind, field in enumerate(("clicks", "carts", "favourites", "orders")):
            told = sum(getattr(bucket, field) for bucket in buckets) + sum(event.kind == kind for event in single)
            assert told == sum(event.kind == kind for event in events)
        assert all(one.start_ms <= other.start_ms for one, other in pairwise(buckets))


@given(DAYS, st.integers(1, 12), st.floats(0.05, 0.95))
@settings(deadline=None)
def test_a_share_of_a_history_is_its_newest_events_and_whole_buckets(days, kept, share):
    row, events = row_of(days, kept)
    entries = read(row, 64, 32, share)
    count = sum(entry.count if isinstance(entry, Bucket) else 1 for entry in entries)
    assert count <= share * len(events) + 1
    assert count >= min(kept, int(share * len(events)))
    single = [entry for entry in entries if isinstance(entry, Behaviour)]
    assert single == row.events[len(row.events) - len(single) :]
    assert len(single) == min(len(row.events), math.ceil(share * len(events)))
