"""Rows are functions of the set of events: checked on random events, duplicates, splits and orders."""

import contextlib
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import apply as applying
from features import rows as row_rules
from features.apply import apply, reached
from features.codec import pack, unpack
from features.errors import LayoutError, UnreadableRowError
from features.event_time import DAY_MS, MINUTE_MS, PAIR_SKEW_MS, PAIR_WINDOW_MS
from features.events import Click, Order, OrderLine, Query
from features.fold import fold
from features.rows import (
    RECENT_CAP,
    Arrivals,
    Behaviour,
    CategoryRow,
    Search,
    UserRow,
    behaviours,
    merge_category,
    pair,
    search,
)

TIMES = st.integers(1_700_000_000_000, 1_700_000_000_000 + 3 * 3_600_000)
LONG_TIMES = st.integers(1_600_000_000_000, 1_700_000_000_000)


def behaviour(times):
    return st.builds(
        Behaviour, times, st.integers(1, 2**63 - 1), st.sampled_from(["i1", "i2", "i3"]), st.just("c"), st.integers(0, 3), st.integers(0, 2)
    )


def distinct(events):
    return list({(event.ts, event.id): event for event in events}.values())


CLICKS = st.builds(
    Click,
    event_id=st.sampled_from([f"e{n}" for n in range(30)]),
    user_id=st.just("u"),
    item_id=st.sampled_from(["i1", "i2"]),
    category_id=st.sampled_from(["c1", "c2", "c3"]),
    ts=TIMES,
    query_id=st.sampled_from([None, "q1", "q2"]),
)
QUERIES = st.builds(
    Query,
    event_id=st.sampled_from([f"e{n}" for n in range(9)]),
    user_id=st.just("u"),
    query_id=st.sampled_from(["q1", "q2", "q3"]),
    text=st.sampled_from(["red shoe", "Red  Shoe", "hat", "  ", "?!", "\u200b"]),
    ts=TIMES,
)
ORDERS = st.builds(
    Order,
    event_id=st.sampled_from([f"o{n}" for n in range(5)]),
    order_id=st.just("o"),
    user_id=st.just("u"),
    ts=TIMES,
    lines=st.lists(
        st.builds(OrderLine, item_id=st.sampled_from(["i1", "i2"]), category_id=st.sampled_from(["c1", "c2"])), min_size=1, max_size=3
    ),
)
EVENTS = st.lists(st.one_of(CLICKS, QUERIES, ORDERS), max_size=30)


def step(rows, events):
    """Apply events to (user, categories), as one batch."""
    user, categories = rows
    applied = apply(
        user,
        categories,
        [b for event in events if not isinstance(event, Query) for b in behaviours(event)],
        [found for event in events if isinstance(event, Query) and (found := search(event)) is not None],
    )
    return applied.user, categories | applied.categories


def packed(rows):
    return pack(rows[0]), {category: pack(row) for category, row in rows[1].items()}


EMPTY = (UserRow(), {})


@given(EVENTS, st.randoms(), st.integers(0, 30))
@settings(max_examples=300, deadline=None)
def test_any_order_any_split_and_duplicates_give_the_same_bytes(events, random, cut):
    whole = packed(step(EMPTY, events))
    shuffled = list(events)
    random.shuffle(shuffled)
    rows = step(step(EMPTY, shuffled[:cut]), shuffled[cut:])
    assert packed(rows) == whole
    assert packed(step(rows, random.sample(events, len(events) // 2))) == whole  # idempotent
    one_by_one = EMPTY
    for event in shuffled:
        one_by_one = step(one_by_one, [event])
    assert packed(one_by_one) == whole


NOON = 1_700_000_000_000
NAMING = st.builds(
    Click,
    event_id=st.sampled_from([f"e{n}" for n in range(30)]),
    user_id=st.just("u"),
    item_id=st.just("i"),
    category_id=st.sampled_from([f"c{n}" for n in range(6)]),
    ts=st.integers(NOON, NOON + 9) | st.integers(NOON, NOON + PAIR_SKEW_MS),
    query_id=st.sampled_from([None, "q1", "q2", "q3"]),
)
NAMED = st.builds(
    Query,
    event_id=st.sampled_from([f"e{n}" for n in range(9)]),
    user_id=st.just("u"),
    query_id=st.sampled_from(["q1", "q2", "q3"]),
    text=st.sampled_from(["red shoe", "hat", "", "?"]),
    ts=st.integers(NOON, NOON + 9) | st.integers(NOON - 400 * DAY_MS, NOON + PAIR_SKEW_MS),
)


@given(st.lists(st.one_of(NAMING, NAMED), max_size=30), st.randoms())
@settings(max_examples=300, deadline=None)
def test_queries_that_are_named_reach_their_clicks_in_any_order_though_newer_events_push_these_out_of_the_user_row(events, random):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_rules, "RECENT_CAP", 3)
        patch.setattr(applying, "RECENT_CAP", 3)
        whole = packed(step(EMPTY, events))
        random.shuffle(events)
        one_by_one = EMPTY
        for event in events:
            one_by_one = step(one_by_one, [event])
    assert packed(one_by_one) == whole


@given(st.lists(behaviour(LONG_TIMES), max_size=40).map(distinct), st.randoms(), st.integers(1, 8))
@settings(max_examples=300, deadline=None)
def test_overflow_and_late_events_fold_to_the_same_bytes_in_any_order(events, random, cap):
    whole, _ = merge_category(CategoryRow(), Arrivals(events), [], cap)
    row = CategoryRow()
    random.shuffle(events)
    for at in range(0, len(events), 3):
        row, _ = merge_category(row, Arrivals(events[at : at + 3]), [], cap)
    assert pack(row) == pack(whole)
    assert unpack(CategoryRow, pack(row)) == row
    assert row.count == len(events)
    assert [(e.ts, e.id) for e in row.events] == sorted((e.ts, e.id) for e in events)[-cap:]


@given(st.lists(behaviour(LONG_TIMES), max_size=60))
def test_a_fold_is_bounded_and_its_buckets_are_in_order(events):
    newest = 1_700_000_000_000
    buckets = fold([], events, newest)
    assert sum(bucket.count for bucket in buckets) == len(events)
    assert len(buckets) <= 8 + 9 + 27 + (newest - 1_600_000_000_000) // (364 * DAY_MS) + 1
    assert buckets == sorted(buckets)


def test_a_row_whose_folded_days_lie_within_a_folded_week_is_sound():
    events = [Behaviour(day * DAY_MS, day, "i", "c", 0) for day in range(1, 200)]
    row, _ = merge_category(CategoryRow(), Arrivals(events), [], cap=3)
    spans = [range(bucket.start_ms, bucket.start_ms + bucket.width_ms) for bucket in row.folded]
    assert any(later.start in earlier for earlier, later in pairwise(spans))
    assert unpack(CategoryRow, pack(row)) == row


def test_inputs_of_a_merge_stay_untouched():
    rows = step(EMPTY, [click(1, 1000), query("a", 500)])
    before = packed(rows)
    step(rows, [click(2, 2000), query("b", 900), click(1, 1000)])
    assert packed(rows) == before


def click(n, ts, **more):
    return Click(event_id=f"e{n}", user_id="u", item_id=f"i{n}", category_id="c", ts=ts, **more)


def query(text, ts, query_id=None):
    return Query(event_id=f"q-{text}-{ts}", user_id="u", query_id=query_id or text, text=text, ts=ts)


def test_a_click_carries_the_query_it_names_else_the_latest_within_the_window():
    t = 10 * 3_600_000
    events = [
        query("old", t - PAIR_WINDOW_MS - 1), query("shoes", t - 2 * MINUTE_MS, "q7"), query("hats", t - MINUTE_MS), query("later", t + 1),
        click(1, t), click(2, t, query_id="q7"), click(3, t - PAIR_WINDOW_MS - 2),
    ]  # fmt: skip
    _, categories = step(EMPTY, events)
    assert [e.pair and e.pair.text for e in sorted(categories["c"].events, key=lambda e: e.item)] == ["hats", "shoes", None]


def texts(rows):
    """The query of each event, by item."""
    return {e.item: e.pair and e.pair.text for row in rows[1].values() for e in row.events}


def both_orders(events):
    """The queries of the events, which must be the same when all arrive one by one in this order and in the reverse one."""
    forwards, backwards = EMPTY, EMPTY
    for event in events:
        forwards = step(forwards, [event])
    for event in reversed(events):
        backwards = step(backwards, [event])
    assert packed(forwards) == packed(backwards)
    return texts(forwards)


@pytest.mark.fault("A click with the `query_id` of a search stamped 5 ms to one day after the click", "The click follows that query")
def test_a_click_gets_the_query_it_names_though_that_is_stamped_later():
    t = 10 * DAY_MS
    events = [query("garden hose", t - 60_000, "q0"), click(1, t, query_id="q1"), query("red shoes", t + 5, "q1"), click(2, t + 1)]
    events += [click(3, t + MINUTE_MS, query_id="q3"), query("tent", t + DAY_MS, "q3")]
    assert both_orders(events) == {"i1": "red shoes", "i2": "garden hose", "i3": "tent"}


@pytest.mark.fault(
    "A click with the `query_id` of a search more than half an hour earlier, with another search in between",
    "The click follows the query of its `query_id`",
)
def test_a_click_gets_the_query_it_names_though_that_is_long_ago():
    t = 10 * DAY_MS
    events = [query("red shoes", t - 31 * MINUTE_MS, "q1"), query("garden hose", t - MINUTE_MS, "q2"), click(1, t, query_id="q1")]
    events += [query("old", t - 5 * DAY_MS, "q3"), click(2, t, query_id="q3"), click(3, t, query_id="unknown")]
    assert both_orders(events) == {"i1": "red shoes", "i2": "old", "i3": "garden hose"}


def test_a_query_id_used_more_than_once_means_the_query_nearest_before_the_click():
    t = 10 * DAY_MS
    events = [query(text, t + at, "q1") for text, at in (("first", -90), ("second", -5), ("third", 1), ("fourth", DAY_MS))]
    assert both_orders([*events, click(1, t, query_id="q1")]) == {"i1": "second"}
    assert both_orders([*events[2:], click(1, t, query_id="q1")]) == {"i1": "third"}


def test_a_named_query_that_comes_last_reaches_its_click_behind_more_events_than_the_user_row_keeps():
    t = 10 * DAY_MS
    events = [click(0, t, query_id="q"), query("red shoes", t + PAIR_SKEW_MS, "q")]
    between = [Click(event_id=f"x{n}", user_id="u", item_id=f"x{n}", category_id="other", ts=t + 1 + n) for n in range(RECENT_CAP + 20)]
    late = step(step(step(EMPTY, events[:1]), between), events[1:])
    assert texts(late)["i0"] == "red shoes"
    assert packed(late) == packed(step(EMPTY, [*between, *reversed(events)]))


@pytest.mark.fault(
    "A search of white space, punctuation or invisible characters between a search and its click",
    "It is ignored: the click follows the earlier search in any order of arrival",
)
def test_a_search_that_says_nothing_explains_nothing():
    t = 10 * DAY_MS
    for text in ("", "  ", "\u3000", "?!", "\u200b\u00ad", "\u2026", "-", "\u200e"):
        events = [query("red shoes", t - 2 * MINUTE_MS), query(text, t - MINUTE_MS, "q2"), click(1, t), click(2, t, query_id="q2")]
        assert both_orders(events) == {"i1": "red shoes", "i2": "red shoes"}
        assert search(events[1]) is None
    assert search(query("👟", t)).text == "👟"


def test_the_text_of_a_search_stays_short_though_its_characters_expand():
    assert len(search(query("\ufdfa" * 512, 0)).text) == 512  # one character, 18 when normalised


def test_a_late_query_completes_the_events_it_explains_in_every_category():
    rows = step(step(EMPTY, [click(1, 5000), click(2, 6000)]), [query("late", 5500)])
    assert [e.pair and e.pair.text for e in rows[1]["c"].events] == [None, "late"]
    assert [e.pair and e.pair.text for e in rows[0].recent] == [None, "late"]
    assert reached(rows[0], [], [search(query("x", 6001))]) == set()


def test_events_delivered_again_are_paired_but_not_counted():
    events = behaviours(click(1, 5000))
    first = apply(UserRow(), {}, events)
    lost_user_row = apply(UserRow(), {}, queries=[search(query("q", 4000))])  # the crash: category row written, user row not
    again = apply(lost_user_row.user, first.categories, again=events)
    assert again.categories["c"].count == 1
    assert again.categories["c"].events[0].pair.text == "q"
    assert again.user.categories[0].count == 1


@given(st.lists(st.builds(Search, TIMES, st.integers(1, 2**62), st.integers(0, 2), st.text(max_size=9)), max_size=9), behaviour(TIMES))
def test_a_pair_is_a_join(queries, event):
    queries = sorted(queries)
    whole = pair(event, queries)
    for cut in range(len(queries) + 1):
        assert pair(pair(event, queries[cut:]), queries[:cut]) == whole


@given(EVENTS)
def test_pack_and_unpack_are_a_round_trip(events):
    user, categories = step(EMPTY, events)
    assert unpack(UserRow, pack(user)) == user
    for row in categories.values():
        assert unpack(CategoryRow, pack(row)) == row


@given(st.binary(max_size=40))
def test_any_bytes_are_a_row_or_a_layout_error(junk):
    for kind in (UserRow, CategoryRow):
        with contextlib.suppress(LayoutError):
            assert isinstance(unpack(kind, junk), kind)


def test_a_newer_layout_is_refused_with_the_remedy():
    with pytest.raises(LayoutError, match="upgrade"):
        unpack(UserRow, pack(UserRow(version=2)))


def test_a_row_with_an_event_twice_or_out_of_order_is_unreadable():
    one, other = (Behaviour(ts, 1, "i", "c", 0) for ts in (5, 6))
    assert unpack(UserRow, pack(UserRow(recent=[one, other]))).recent == [one, other]
    for recent in ([one, one], [other, one]):
        with pytest.raises(UnreadableRowError, match="order"):
            unpack(UserRow, pack(UserRow(recent=recent)))
        with pytest.raises(UnreadableRowError, match="order"):
            unpack(CategoryRow, pack(CategoryRow(events=recent)))
