"""The simulated shop: the same from the same seed, true to its truth, near to a real shop, and worth learning."""

from collections import Counter, defaultdict
from itertools import islice

import numpy as np
import pytest

from features import sources
from features.event_time import DAY_MS, TimeRules
from features.events import Click, Event, Order, Query, Topic, decode, encode
from infra.shop import Shop, profile
from tests.beside import data_file

START = 1_700_000_000_000
END = START + 60 * DAY_MS


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop(seed=3)


@pytest.fixture(scope="module")
def history(shop: Shop) -> list[Click | Query | Order]:
    return shop.history(START, END)


def test_the_same_seed_gives_the_same_shop(shop: Shop, history: list[Event]) -> None:
    again = Shop(seed=3)
    assert again.catalogue(START) == shop.catalogue(START)
    assert again.history(START, END) == history
    assert list(islice(again.live(END, 50, history), 200)) == list(islice(shop.live(END, 50, history), 200))
    assert Shop(seed=4).history(START, END) != history


def test_history_has_the_size_of_the_demo_ascends_and_is_valid(shop: Shop, history: list[Event]) -> None:
    assert 28_000 < len(history) < 44_000
    assert all(START <= event.ts < END for event in history)
    assert [event.ts for event in history] == sorted(event.ts for event in history)
    assert len({event.event_id for event in history}) == len(history)  # type: ignore[union-attr]
    for topic in Topic:
        events = [event for event in [*history, *shop.catalogue(START)] if sources.topic_of(event) is topic]
        decoded = decode(topic, [encode(event) for event in events], END, TimeRules())
        assert not decoded.bad
        assert [event for _, event in decoded.good] == events


def test_clicks_follow_queries_and_orders_follow_carts(history: list[Event]) -> None:
    queries = {event.query_id: event for event in history if isinstance(event, Query)}
    named = [event for event in history if isinstance(event, Click) and event.query_id]
    assert len(queries) > 2_000
    assert len(named) > len(queries) / 2
    for click in named:
        query = queries[click.query_id or ""]
        assert query.user_id == click.user_id
        assert query.ts <= click.ts
        assert query.session_id == click.session_id
        assert click.category_id.split("-")[0] in query.text
    carts = {(event.user_id, event.item_id) for event in history if isinstance(event, Click) and event.kind == "cart"}
    orders = [event for event in history if isinstance(event, Order)]
    assert max(len(order.lines) for order in orders) > 1
    assert all((order.user_id, line.item_id) in carts for order in orders for line in order.lines)


def test_users_do_as_their_truth_says(shop: Shop, history: list[Event]) -> None:
    clicks = Counter((event.user_id, event.category_id) for event in history if isinstance(event, Click))
    totals = Counter(event.user_id for event in history if isinstance(event, Click))
    gaps = []
    for user, total in totals.most_common(20):
        truths = [shop.truth(user, ts).categories for ts in range(START, END, DAY_MS)]
        assert all(abs(truth.sum() - 1) < 1e-9 for truth in truths)
        done = np.array([clicks[user, category] for category in shop.categories]) / total
        gaps.append(np.abs(done - np.mean(truths, axis=0)).sum() / 2)
    assert np.mean(gaps) < 0.25  # total variation
    drift = [np.abs(shop.truth(f"u{n}", START).categories - shop.truth(f"u{n}", END).categories).sum() / 2 for n in range(50)]
    assert 0.1 < np.mean(drift) < 0.35


def test_titles_and_images_tell_of_the_latent_vector(shop: Shop) -> None:
    items = shop.catalogue(START)
    images = np.array([item.image_embedding for item in items])
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    near = (images @ images.T).argsort(axis=1)[:, -2]
    shared = np.mean([items[n].attributes["style"] in items[m].title for n, m in enumerate(near.tolist())])
    by_chance = np.mean([items[n].attributes["style"] in items[-n - 1].title for n in range(len(items))])
    assert shared > 4 * by_chance


def test_live_goes_on_at_its_rate_without_end(shop: Shop, history: list[Event]) -> None:
    events = list(islice(shop.live(END, 50, history), 3_000))
    assert 50_000 < events[-1].ts - END < 70_000
    assert [event.ts for event in events] == sorted(event.ts for event in events)
    assert not {event.event_id for event in events} & {event.event_id for event in history}  # type: ignore[union-attr]
    assert len({event.event_id for event in events}) == 3_000
    assert {type(event) for event in events} == {Click, Query, Order}
    assert len({event.user_id for event in events}) > 100
    assert len(list(islice(Shop(users=1, items=3, categories=2).live(0, 1), 50))) == 50


def test_a_new_item_is_clicked_live() -> None:
    shop = Shop(seed=5, users=50, items=80, categories=8)
    live = shop.live(END, 20)
    list(islice(live, 100))
    item = shop.new_item(END, "jeans")
    assert item.item_id == "i80"
    assert item.category_id == "jeans"
    assert item in shop.catalogue(END)
    assert item not in shop.catalogue(END - 1)
    assert any(event.item_id == "i80" for event in islice(live, 5_000) if isinstance(event, Click))
    with pytest.raises(ValueError, match="an item in each category"):
        Shop(items=3, categories=4)


def test_the_next_click_is_foretold_by_the_truth_and_not_by_popularity(shop: Shop, history: list[Event]) -> None:
    """The ceiling that docs name: hits of an oracle that knows the truth and the session, for clicks of the last 10 days."""
    cut = END - 10 * DAY_MS
    popular = Counter(event.item_id for event in history if isinstance(event, Click) and event.ts < cut)
    top = [item for item, _ in popular.most_common(50)]
    users = defaultdict(list)
    for event in history:
        users[event.user_id].append(event)  # type: ignore[union-attr]
    hits: Counter[str] = Counter()
    for events in islice(users.values(), 150):
        after = [n for n, event in enumerate(events) if n and isinstance(event, Click) and event.kind == "click" and event.ts >= cut]
        for n in after[-2:]:
            event, last = events[n], events[n - 1]
            assert isinstance(event, Click)
            same = isinstance(last, Click) and last.session_id == event.session_id
            chances = shop.chances(event.user_id, event.ts, events[:n], last.category_id if same and isinstance(last, Click) else None)
            assert abs(chances.sum() - 1) < 1e-9
            best = [f"i{number}" for number in np.argsort(-chances)[:50]]
            hits.update(total=1, oracle_10=event.item_id in best[:10], oracle_50=event.item_id in best, popular_50=event.item_id in top)
    shares = {name: hits[name] / hits["total"] for name in hits}
    print(f"ceiling: {shares}")
    assert 0.2 < shares["oracle_10"] < 0.6
    assert 0.45 < shares["oracle_50"] < 0.9
    assert shares["popular_50"] < 0.2


@pytest.mark.data
def test_the_shop_is_near_a_real_one() -> None:
    path = data_file("taobao_users.parquet")
    real = profile(sources.read(path))
    same_days = Shop(seed=1, users=500, items=2_500, categories=48, events_per_day=13.0)
    near = profile(same_days.history(START, START + 9 * DAY_MS))
    demo = profile(Shop().history(START, END))
    print(f"\n{'':22}{'taobao_users':>14}{'shop, 9 days':>14}{'shop, demo':>14}")
    for name in real:
        print(f"{name:22}{real[name]:14.3f}{near[name]:14.3f}{demo[name]:14.3f}")
    for name, tolerance in {"history_p50": 1.3, "history_p99": 1.4, "repeat": 1.4, "category_repeat": 1.3, "category_stays": 1.3}.items():
        assert 1 / tolerance < near[name] / real[name] < tolerance, name
        assert 1 / tolerance < demo[name] / real[name] < tolerance, name
    for name in ("entropy_bits_p50", "entropy_bits_p10", "gap_s_p10", "gap_s_p25", "gap_s_p50", "gap_s_p75", "gap_s_p90", "gap_s_p99"):
        assert 1 / 1.3 < near[name] / real[name] < 1.3, name
    for kind in ("click", "cart", "favourite", "order"):
        assert abs(near[f"{kind}_share"] - real[f"{kind}_share"]) < 0.01
