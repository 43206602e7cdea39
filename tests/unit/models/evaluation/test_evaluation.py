"""Metrics, intervals and neighbours are those of slow, obvious ones, and what a report says adds up."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.events import Click
from features.history import deeds
from models.evaluation.baselines import SHRINK, SIMPLE, Answer
from models.evaluation.intervals import Bootstrap, bounds, mean
from models.evaluation.metrics import CUTS, METRICS, category_metrics, item_metrics, length_group, length_name
from models.evaluation.report import CASCADE, WITH_REPEATS, WITHOUT_REPEATS, EvaluationSample, compact, evaluate
from models.evaluation.score import Entry, simple
from models.evaluation.split import temporal
from models.evaluation.table import lines, markdown, verdict

MINUTE = 60_000
sets = st.frozensets(st.integers(0, 400).map(str), max_size=70)
rankings = st.permutations([str(n) for n in range(300)]) | st.lists(st.integers(0, 400).map(str), unique=True, max_size=80)


def slow_metrics(ranked, basket, wanted):
    values = {}
    for k in CUTS:
        head = ranked[:k]
        values[f"hr@{k}"] = float(any(item in basket for item in head)) if basket else math.nan
        if not wanted:
            values[f"recall@{k}"] = values[f"ndcg@{k}"] = math.nan
            continue
        best = min(k, len(wanted))
        values[f"recall@{k}"] = sum(item in wanted for item in head) / best
        gained = sum(1 / math.log2(place + 1) for place, item in enumerate(head, 1) if item in wanted)
        values[f"ndcg@{k}"] = gained / sum(1 / math.log2(place + 1) for place in range(1, best + 1))
    return [values[name] for name in METRICS]


@given(rankings, sets, sets)
@settings(max_examples=60, deadline=None)
def test_item_metrics_are_the_slow_ones(ranked, basket, more):
    np.testing.assert_allclose(item_metrics(ranked, basket, basket | more), slow_metrics(ranked, basket, basket | more))
    np.testing.assert_allclose(item_metrics(ranked, basket, more), slow_metrics(ranked, basket, more))


def test_category_hits():
    assert category_metrics(["a", "b"], {"b"}) == [0.0, 1.0]
    assert category_metrics([*"abcdefgh", "z"], {"z"}) == [0.0, 0.0]
    assert category_metrics([], {"b"}) == [0.0, 0.0]


def test_groups_of_history_length():
    assert [length_group(events) for events in (0, 19, 20, 99, 100, 499, 500, 9000)] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [length_name(group) for group in range(4)] == ["history 0-19", "history 20-99", "history 100-499", "history 500+"]


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 1) | st.just(math.nan)), min_size=1, max_size=30), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_the_bootstrap_draws_users_with_all_their_moments(rows, seed):
    owners = np.unique([owner for owner, _ in rows], return_inverse=True)[1]
    values = np.array([[value] for _, value in rows])
    bootstrap = Bootstrap(owners, seed, draws=100)
    rng = np.random.default_rng(seed)
    expected = []
    for _ in range(100):
        drawn = rng.integers(0, bootstrap.users, bootstrap.users)
        taken = [value for user in drawn for owner, (_, value) in zip(owners, rows, strict=True) if owner == user]
        numbers = [value for value in taken if not math.isnan(value)]
        expected.append([sum(numbers) / len(numbers)] if numbers else [math.nan])
    np.testing.assert_allclose(bootstrap.means(values), expected)
    present = [row[0] for row in expected if not math.isnan(row[0])]
    if present:
        np.testing.assert_allclose(bounds(np.array(expected))[:, 0], np.percentile(present, [2.5, 97.5]))


def test_no_moment_is_no_number():
    assert np.isnan(mean(np.full((3, 2), np.nan))).all()
    assert np.isnan(bounds(np.full((100, 1), np.nan))).all()
    assert Bootstrap(np.zeros(0, np.int64), 0).users == 0


def click(n, user, item, ts, category="c"):
    return Click(event_id=str(n), user_id=user, item_id=item, category_id=category, ts=ts)


logs = st.lists(st.tuples(st.sampled_from("uvwx"), st.sampled_from("12345678"), st.integers(0, 50)), min_size=2, max_size=40)


@given(logs)
@settings(max_examples=40, deadline=None)
def test_neighbours_are_shrunk_cosines_of_sets_of_users(log):
    split = temporal(deeds(click(n, user, item, ts * MINUTE) for n, (user, item, ts) in enumerate(log)), holdout=0.0)
    users = {item: {user for user, other, _ in log if other == item} for _, item, _ in log}
    (entry,) = simple(split, ["item-kNN"])
    for item in users:
        expected = {
            other: len(users[item] & users[other]) / (math.sqrt(len(users[item]) * len(users[other])) + SHRINK)
            for other in users
            if users[item] & users[other]
        }
        assert entry.contender.similar(item) == pytest.approx(expected)
    assert entry.contender.similar("never") == {}


def log_of_two_users():
    """u wants a, a, b, then at minute 100 a and at 101 the new n; v wants b, a, then at 100 b."""
    told = [("u", "a", 1), ("u", "a", 2), ("u", "b", 3), ("v", "b", 4), ("v", "a", 5), ("u", "a", 100), ("v", "b", 100), ("u", "n", 101)]
    return [click(n, user, item, minute * MINUTE, "cn" if item == "n" else "c") for n, (user, item, minute) in enumerate(told)]


class Told:
    """Answers every question with the same items, and names one category."""

    def __init__(self, items):
        self.items = items

    def answer(self, asked, k):
        fresh = [[item for item in self.items if item not in question.had] for question in asked]
        return [Answer(self.items[:k], mine[:k], {"named": ["c"]}) for mine in fresh]


def report_of(*entries):
    split = temporal(deeds(log_of_two_users()), cut_ms=100 * MINUTE)
    return evaluate(split, entries, ["a", "b", "n", "x"], EvaluationSample(5))


def test_a_report_adds_up():
    report = report_of(Entry(CASCADE, 0, Told(["a", "n", "nowhere"])), Entry("other", 0, Told(["b"])))
    assert (report.moments, report.users, report.train_users, report.train_events) == (3, 2, 2, 5)
    # u at 100 wants a and n, v at 100 wants b, u at 101 wants n
    assert list(report.targets.values()) == [4, 2, 4, 2, 4]
    every = report.section()
    assert every.rows[CASCADE]["recall@50"].mean == pytest.approx(2 / 3, abs=1e-5)
    assert every.rows["other"]["hr@50"].mean == pytest.approx(1 / 3, abs=1e-5)
    assert every.minus[CASCADE]["other"]["recall@50"].mean == pytest.approx(1 / 3, abs=1e-5)
    new, cold, warm = (report.section(name) for name in ("new items", "cold items", "warm items"))
    assert (new.moments, cold.moments, warm.moments) == (2, 2, 2)
    assert new.rows[CASCADE]["recall@20"].mean == cold.rows[CASCADE]["recall@20"].mean == 1.0
    assert new.rows["other"]["recall@20"].mean == 0.0
    assert "hr@20" in cold.rows["other"]  # of the one moment whose basket has it
    assert report.categories["named"]["hit@1"].mean == pytest.approx(2 / 3, abs=1e-5)
    assert report.coverage == {CASCADE: [0.5], "other": [0.25]}
    assert [section.name for section in report.sections][4:] == ["history 0-19"]


def test_seeds_are_averaged_and_their_spread_is_told():
    report = report_of(Entry(CASCADE, 0, Told(["a", "n"])), Entry(CASCADE, 1, Told(["x"])), Entry("other", 0, Told(["x"])))
    found = report.section().rows[CASCADE]["recall@50"]
    assert found.seeds == pytest.approx([2 / 3, 0.0], abs=1e-5)
    assert found.mean == pytest.approx(1 / 3, abs=1e-5)
    assert found.spread == pytest.approx(math.sqrt(2) / 3, abs=1e-5)
    assert report.section().rows["other"]["recall@50"].spread is None


def test_the_pair_says_what_overlapping_intervals_hide():
    """Users differ a lot, contenders by little and always the same way: the intervals overlap, that of the difference is above 0."""
    events = [click(f"{user}-{n}", f"u{user}", f"i{n}", n * MINUTE) for user in range(60) for n in range(1 + user % 12)]
    events += [click(f"{user}-t{n}", f"u{user}", f"t{n}", (100 + n) * MINUTE) for user in range(60) for n in range(1, 2 + user % 10)]
    better, worse = Told(["t1", "t2"]), Told(["t1"])
    split = temporal(deeds(events), cut_ms=100 * MINUTE)
    report = evaluate(split, [Entry(CASCADE, 0, better), Entry("other", 0, worse)], ["t1", "t2"], EvaluationSample(1))
    section = report.section()
    mine, theirs = section.rows[CASCADE]["recall@50"], section.rows["other"]["recall@50"]
    assert mine.low < theirs.high
    assert verdict(section.minus[CASCADE]["other"]["recall@50"]) == "ahead"


def test_the_simple_contenders_say_what_they_promise():
    split = temporal(deeds(log_of_two_users()), cut_ms=100 * MINUTE)
    report = evaluate(split, [Entry(CASCADE, 0, Told(["x"])), *simple(split)], ["a", "b", "n"], EvaluationSample(5))
    assert list(report.section().rows) == [CASCADE, *SIMPLE]
    assert report.section().rows["seen before"]["hr@50"].mean == pytest.approx(2 / 3, abs=1e-5)
    assert verdict(report.section().minus[CASCADE]["seen before"]["hr@50"]) == "behind"
    assert report.section("new items").rows["most popular"]["hr@50"].mean == 0.0


def test_paired_differences_compare_like_with_like():
    entries = [
        Entry(CASCADE, 0, Told(["a", "n", "b"])),
        Entry(WITHOUT_REPEATS, 0, Told(["n"])),
        Entry("rival", 0, Told(["b"])),
        Entry(f"rival{WITH_REPEATS}", 0, Told(["b", "a"])),
    ]
    report = report_of(*entries)
    every, new = report.section(), report.section("new items")
    assert list(every.minus[CASCADE]) == [WITHOUT_REPEATS, "rival", "rival + repeats"]
    assert list(every.minus[WITHOUT_REPEATS]) == ["rival"]
    # target items: u at 100 a and n, v at 100 b, u at 101 n; hence recall 3/3, 1.5/3, 1/3 and 1.5/3
    means = {name: row["recall@50"].mean for name, row in every.minus[CASCADE].items()}
    assert means == pytest.approx({WITHOUT_REPEATS: 1.5 / 3, "rival": 2 / 3, "rival + repeats": 1.5 / 3}, abs=1e-5)
    assert every.minus[WITHOUT_REPEATS]["rival"]["recall@50"].mean == pytest.approx(0.5 / 3, abs=1e-5)
    assert list(new.rows) == [CASCADE, "rival"]  # repeats do not change lists of new items
    assert list(new.minus) == [CASCADE]
    page = markdown(report)
    assert page.count("Paired differences: `cascade` minus each other row") == 2
    assert page.count("Paired differences: `cascade without repeats` minus each other row") == 1


def test_tables_name_every_contender():
    report = report_of(Entry(CASCADE, 0, Told(["a"])), Entry("other", 0, Told(["b"])))
    told = markdown(report)
    assert all(word in told for word in (CASCADE, "other", "**New items**", "cold items (2)", "Ceilings", "named"))
    assert len(lines(compact(report)).splitlines()) == 3
    assert compact(evaluate(temporal(deeds(log_of_two_users()), holdout=0), [], ["a"], EvaluationSample(5))) == {}
