"""The list of a user's own items is that of the slow, obvious version, and says what its docstring says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.events import Click, Order, OrderLine, Query
from features.history import offline_rows
from features.rows import RECENT_CAP, Behaviour, Search, UserRow
from models.codes.codebook import Codebook
from models.index import Delete, ItemIndex, Where
from models.serving.repeat import events_of, repeated
from tests.references.own import own_items

HOUR = 3_600_000
ITEMS = [f"i{number * 7 % 20:02d}" for number in range(20)]  # their order by id is not that by number
VECTORS = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)

numbers = st.integers(0, 30 * 24).map(lambda hours: hours * HOUR)
behaviours = st.builds(
    Behaviour, numbers, st.integers(1, 9), st.sampled_from([*ITEMS, "strange"]), st.just("c"), st.integers(0, 3), st.just(0)
)


@st.composite
def rows(draw):
    """A row `user` as ingest leaves it: its newest events, and its purchases, some of them older than these."""
    unique = {(event.ts, event.id): event for event in draw(st.lists(behaviours, max_size=20))}
    events = [unique[identity] for identity in sorted(unique)]
    queries = [Search(ts, 1, 0, "text") for ts in draw(st.lists(numbers, max_size=1))]
    bought = [event for event in events if event.kind == 3]
    return UserRow(recent=events[-draw(st.integers(1, 20)) :], queries=queries, bought=bought)


def whole_index():
    available = np.arange(20) % 3 > 0
    return ItemIndex(Codebook.train(VECTORS, 2, seed=0), VECTORS, ITEMS, ["c"] * 20, available=available)


def hits(view, extra):
    return [
        [(item, score) for item, score in zip(view.names(items[items >= 0]), scores[items >= 0].tolist(), strict=True)]
        for items, scores in zip(extra.found.numbers, extra.found.scores, strict=True)
    ]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(rows(), st.sets(st.sampled_from(ITEMS))), max_size=4),
    st.integers(0, 12),
    st.sets(st.sampled_from(ITEMS)),
    st.booleans(),
)
def test_the_lists_of_a_batch_are_those_of_each_user_by_the_reference(users, limit, deleted, only_available):
    index = whole_index()
    index.apply([Delete(item) for item in deleted])
    view, where = index.look(), Where(available=True) if only_available else None
    there = {item for n, item in enumerate(ITEMS) if item not in deleted and (n % 3 or not only_available)}
    extra = repeated(view, [row for row, _ in users], [exclude for _, exclude in users], limit, where)
    assert extra.found.numbers.shape == (len(users), limit)
    for found, (row, exclude) in zip(hits(view, extra), users, strict=True):
        expected = own_items(row, there, exclude, limit)
        assert [item for item, _ in found] == [item for item, _ in expected]
        assert [score for _, score in found] == [float(np.float32(score)) for _, score in expected]


def listed(*events, limit=20):
    view = whole_index().look()
    users, _ = offline_rows(events)
    return [item for item, _ in hits(view, repeated(view, [users["u"]], [()], limit))[0]]


def click(n, item, hours, kind="click"):
    return Click(event_id=f"e{n}", user_id="u", item_id=item, category_id="c", ts=hours * HOUR, kind=kind)


def test_newer_items_come_first_and_those_met_more_often_and_those_put_in_a_cart():
    assert listed(click(1, "i01", 1), click(2, "i02", 2)) == ["i02", "i01"]
    assert listed(click(1, "i01", 1), click(2, "i01", 1), click(3, "i02", 2)) == ["i01", "i02"]
    assert listed(click(1, "i01", 1, "cart"), click(2, "i02", 2)) == ["i01", "i02"]
    assert listed(click(1, "i01", 1, "cart"), click(2, "i02", 100)) == ["i02", "i01"]


def test_a_purchase_fades_slower_than_a_click():
    lines = [OrderLine(item_id="i01", category_id="c")]
    bought = [Order(event_id=f"o{n}", order_id=f"o{n}", user_id="u", ts=n * HOUR, lines=lines) for n in (0, 1, 2)]
    assert listed(*bought, click(1, "i02", 2)) == ["i01", "i02"]
    assert listed(*bought, click(1, "i02", 2), click(2, "i03", 24 * 30)) == ["i01", "i03", "i02"]


@pytest.mark.parametrize("clicks", [RECENT_CAP - 1, RECENT_CAP, RECENT_CAP + 1])
def test_purchases_older_than_the_newest_events_count_once(clicks):
    order = Order(event_id="o", order_id="o", user_id="u", ts=0, lines=[OrderLine(item_id="i01", category_id="c")])
    events = [order, *(click(n, "i02", n + 1) for n in range(clicks))]
    users, _ = offline_rows(events)
    found = events_of(users["u"])
    assert [event.item for event in found] == ["i01"] + ["i02"] * min(clicks, RECENT_CAP)
    assert len({(event.ts, event.id) for event in found}) == len(found)


def test_a_user_of_whom_nothing_is_known_or_who_only_searched_has_no_own_items():
    view = whole_index().look()
    users, _ = offline_rows([Query(event_id="q", user_id="u", query_id="q", text="thing", ts=1)])
    assert hits(view, repeated(view, [users["u"], UserRow()], [(), ()], 5)) == [[], []]
