"""The door from rows to numbers: what is read of a row, how it is padded, and what is drawn as a negative."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.event_time import DAY_MS, MINUTE_MS
from features.events import Click, Query
from features.fold import Bucket
from features.history import deeds
from features.rows import Behaviour, CategoryRow, Pair, Search, Touched, UserRow
from models.config import Config, NetworkConfig
from models.encoding.contents import pieces
from models.encoding.inputs import QUERY, Positions, Texts, gaps, long_tokens, newest_ts, short_tokens, touched_tokens
from models.encoding.vocabulary import UNKNOWN, Vocabulary
from models.training.dataset import build
from models.training.losses import Pool

VOCABULARY = Vocabulary.of(["shoes", "lamps"], ["s1", "l1"])
POSITIONS = Positions({"s1": 0, "l1": 1, "s2": 2}, VOCABULARY)
SMALL = Config().replace(buckets=64)
SHOES, LAMPS = VOCABULARY.category("shoes"), VOCABULARY.category("lamps")


def texts():
    return Texts(SMALL.network)


def test_ids_have_rows_and_strangers_share_one():
    assert [VOCABULARY.item(item) for item in ("l1", "s1", "s2")] == [2, 3, UNKNOWN]
    assert VOCABULARY.category("never") == UNKNOWN
    assert [VOCABULARY.category_name(row) for row in (LAMPS, SHOES)] == ["lamps", "shoes"]
    assert [POSITIONS.of("s2", SHOES), POSITIONS.of("never", SHOES), POSITIONS.of("never", UNKNOWN)] == [2, 3 + SHOES, 3 + UNKNOWN]


@given(st.text(max_size=60), st.integers(2, 100))
@settings(deadline=None)
def test_any_text_has_ids_within_the_table_and_never_that_of_padding(text, buckets):
    config = NetworkConfig(buckets=buckets)
    ids = pieces(text, config)
    assert all(0 < number < buckets for number in ids)
    assert ids == pieces(text.lower(), config) or text.lower() != text.lower().lower()


def test_a_misspelt_word_shares_most_of_its_ids():
    right, wrong = (set(pieces(word, NetworkConfig(buckets=1 << 20))) for word in ("headphones", "headphnes"))
    assert len(right & wrong) >= 6


def test_time_gaps_double_from_bucket_to_bucket_and_are_never_that_of_padding():
    assert gaps([0, 999, 1000, 3000, MINUTE_MS, DAY_MS, -5, 10**15]).tolist() == [1, 1, 2, 3, 6, 17, 1, 31]


def test_short_tokens_hold_events_and_the_queries_that_no_event_carries():
    paired = Pair(True, 1000, 7, "red shoe")
    row = UserRow(
        recent=[Behaviour(2000, 1, "s1", "shoes", 0, 0, paired), Behaviour(61_000, 2, "never", "lamps", 3)],
        queries=[Search(1000, 7, 0, "red shoe"), Search(62_000, 8, 0, "desk lamp")],
    )
    seen = texts()
    tokens = short_tokens([row, UserRow()], POSITIONS, seen, cap=50)
    assert tokens.kind.tolist() == [[1, 4, QUERY], [0, 0, 0]]
    assert tokens.item.tolist()[0] == [0, 3 + LAMPS, 0]
    assert tokens.category.tolist()[0] == [SHOES, LAMPS, 0]
    assert tokens.gap.tolist()[0] == gaps([60_000, 1000, 0]).tolist()
    assert tokens.text.tolist()[0] == [seen.number("red shoe"), 0, seen.number("desk lamp")]
    assert newest_ts(row) == 62_000
    assert newest_ts(UserRow()) == 0
    assert short_tokens([row], POSITIONS, texts(), cap=1).kind.tolist() == [[QUERY]]
    assert seen.words()[0].sum() == 0


def test_a_sequence_keeps_its_newest_events():
    bucket = Bucket(0, DAY_MS, 5, 0, 0, 2, 1000)
    row = CategoryRow(events=[Behaviour(DAY_MS + n, n + 1, "s1", "shoes", n) for n in range(3)], folded=[bucket])
    tokens = long_tokens([row, CategoryRow()], [2 * DAY_MS, 0], POSITIONS, texts(), cap=9)
    assert tokens.kind.tolist() == [[1, 2, 3], [0, 0, 0]]
    assert long_tokens([row], [2 * DAY_MS], POSITIONS, texts(), cap=2).kind.tolist() == [[2, 3]]


def test_touched_categories_are_the_newest_with_their_times_and_counts():
    row = UserRow(categories=[Touched(0, "never", 1), Touched(1000, "lamps", 3), Touched(5000, "shoes", 100_000)])
    tokens = touched_tokens([row, UserRow()], VOCABULARY, cap=2)
    assert tokens.category.tolist() == [[LAMPS, SHOES], [0, 0]]
    assert tokens.times.tolist() == [[2, 15], [0, 0]]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(1, 9), st.integers(1, 5), st.integers(0, 99))
@settings(deadline=None)
def test_batches_hold_each_example_once_in_runs_of_one_category(categories, batch, run, seed):
    events = [Click(event_id=str(n), user_id="u", item_id="s1", category_id=f"c{c}", ts=n) for n, c in enumerate(categories)]
    vocabulary = Vocabulary.of([f"c{c}" for c in range(5)], ["s1"])
    config = SMALL.replace(batch=batch, category_run=run, per_user=100)
    examples = build(deeds(events), Positions({"s1": 0}, vocabulary), config, until_ts=10**6)
    batches = list(examples.batches(config.training, np.random.default_rng(seed)))
    order = np.concatenate(batches)
    assert sorted(order.tolist()) == list(range(len(categories)))
    assert all(len(some) == batch for some in batches[:-1])
    changes = int((np.diff(examples.category[order]) != 0).sum())
    assert changes < sum(-(-categories.count(c) // run) for c in range(5))


def test_an_example_sees_what_came_before_its_target_and_no_more():
    events = [Click(event_id=str(n), user_id="u", item_id="s1", category_id="shoes", ts=1000 * (n // 2)) for n in range(6)]
    events.append(Query(event_id="q", user_id="u", query_id="q", text="of the same time", ts=2000))
    config = SMALL.replace(per_user=9)
    examples = build(deeds(events), POSITIONS, config, until_ts=10**6)
    assert (examples.short.kind > 0).sum(1).tolist() == (examples.long.kind > 0).sum(1).tolist() == [0, 2, 4]
    assert examples.item.tolist() == [0, 0, 0]
    assert build(deeds(events), POSITIONS, config, until_ts=0) is None


def test_log_q_is_how_often_a_candidate_is_drawn():
    rng = np.random.default_rng(0)
    category = np.array([2, 2, 2, 3, 3, 4])
    targets = rng.choice(6, 4000, p=[0.4, 0.1, 0.1, 0.2, 0.1, 0.1])
    pool, drawn = Pool(category, targets), np.zeros(6)
    expected = np.zeros(6)
    for batch in targets.reshape(-1, 8):
        got = pool.draw(batch, per_category=2, pool=3, rng=rng)
        assert (got.position[:8] == batch).all()
        assert set(got.category) >= set(category[batch])
        drawn += np.bincount(got.position[got.pooled], minlength=6)
        for at, log_q in zip(got.position, got.log_q_pool, strict=True):
            expected[at] = np.exp(log_q)
    np.testing.assert_allclose(drawn / 500, expected, rtol=0.15)


@pytest.mark.parametrize("pool_negatives", [0, 30])
def test_candidates_of_a_category_stand_for_all_of_it(pool_negatives):
    """The sum of 1 / q over them estimates how many items the category has, whichever way they were drawn."""
    rng = np.random.default_rng(0)
    category = np.repeat([2, 3, 4], [60, 30, 10])
    targets = rng.integers(0, 100, 4000)
    pool, found = Pool(category, targets), {2: [], 3: [], 4: []}
    for batch in targets.reshape(-1, 8):
        got = pool.draw(batch, per_category=4, pool=pool_negatives, rng=rng)
        for one in set(category[batch].tolist()):
            found[one].append(np.exp(-got.log_q_category[got.category == one]).sum())
    np.testing.assert_allclose([np.mean(found[one]) for one in (2, 3, 4)], [60, 30, 10], rtol=0.1)
