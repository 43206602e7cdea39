"""Replay gives the rows of the online step, and the rows before a moment know nothing of it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from features.apply import apply
from features.codec import pack
from features.events import Click, Item, Order, OrderLine, Query
from features.history import deeds, moments, offline_rows
from features.rows import CategoryRow, UserRow, behaviours, search

MINUTE = 60_000
clicks = st.builds(
    Click,
    event_id=st.sampled_from("abcdefgh"),
    user_id=st.sampled_from("uv"),
    item_id=st.sampled_from("123"),
    category_id=st.sampled_from("xy"),
    ts=st.integers(0, 40).map(lambda n: n * MINUTE),
    query_id=st.none() | st.sampled_from("qr"),
)
queries = st.builds(
    Query,
    event_id=st.sampled_from("ijkl"),
    user_id=st.sampled_from("uv"),
    query_id=st.sampled_from("qr"),
    text=st.sampled_from(["red shoe", "Lamp"]),
    ts=st.integers(0, 40).map(lambda n: n * MINUTE),
)
lines = st.builds(OrderLine, item_id=st.sampled_from("123"), category_id=st.sampled_from("xy"))
orders = st.builds(
    Order,
    event_id=st.sampled_from("mnop"),
    order_id=st.just("o"),
    user_id=st.sampled_from("uv"),
    ts=st.integers(0, 40).map(lambda n: n * MINUTE),
    lines=st.lists(lines, min_size=1, max_size=3),
)
logs = st.lists(clicks | queries | orders, max_size=30)


def one_by_one(events):
    rows, categories = {}, {}
    for event in events:
        user = event.user_id
        mine = {category: row for (owner, category), row in categories.items() if owner == user}
        found = ([], [search(event)]) if isinstance(event, Query) else (behaviours(event), [])
        applied = apply(rows.get(user, UserRow()), mine, *found)
        rows[user] = applied.user
        categories.update({(user, category): row for category, row in applied.categories.items()})
    return rows, categories


@given(logs)
@settings(deadline=None)
def test_the_offline_rows_are_those_of_events_applied_one_by_one(events):
    offline, online = offline_rows(events), one_by_one(events)
    for mine, theirs in zip(offline, online, strict=True):
        assert {key: pack(row) for key, row in mine.items()} == {key: pack(row) for key, row in theirs.items()}


@given(logs, st.integers(1, 4) | st.none())
@settings(deadline=None)
def test_rows_before_a_moment_are_those_of_all_older_events_and_of_no_other(events, per_user):
    for moment in moments(deeds(events), per_user=per_user):
        older = [event for event in events if event.user_id == moment.user and event.ts < moment.ts]
        users, categories = offline_rows(older)
        assert pack(moment.row) == pack(users.get(moment.user, UserRow()))
        assert moment.categories == {category: row for (_, category), row in categories.items()}
        assert all(event.ts == moment.ts for event in moment.basket)


def test_a_basket_is_never_split_and_the_newest_is_always_kept():
    order = Order(event_id="e", order_id="o", user_id="u", ts=5, lines=[OrderLine(item_id=str(n), category_id="c") for n in range(3)])
    events = [Click(event_id=str(n), user_id="u", item_id="0", category_id="c", ts=n) for n in range(5)]
    events += [
        order,
        Click(event_id="same", user_id="u", item_id="9", category_id="c", ts=5),
        Item(item_id="i", category_id="c", title="", ts=0),
    ]
    (moment,) = moments(deeds(events), per_user=1)
    assert moment.ts == 5
    assert sorted(event.item for event in moment.basket) == ["0", "1", "2", "9"]
    assert moment.categories["c"].count == len(moment.row.recent) == 5
    assert [moment.ts for moment in moments(deeds(events), from_ts=2, until_ts=4)] == [2, 3]


def test_no_events_give_no_rows():
    assert offline_rows([]) == ({}, {})
    assert list(moments(deeds([]))) == []
    assert CategoryRow().count == 0
