"""Repeats are merged into a baseline's lists as serving merges them, at a share that held-out events do not influence."""

import re
from contextlib import contextmanager

import msgspec
import numpy as np
import pytest

from features import sources
from features.event_time import DAY_MS, MINUTE_MS
from features.events import Click, Item
from features.history import Timeline, deeds
from models.evaluation.baselines import Answer
from models.evaluation.cascade import Cascade
from models.evaluation.prediction_points import questions
from models.evaluation.serving_rules import ServingRules
from models.evaluation.share_selection import LEAST_USERS, TRIED
from models.evaluation.split import by_users, temporal
from models.serving.recommender import Recommender
from models.serving.retriever import Options
from research.baselines import ValidationAnswer
from research.evaluation.evaluation import run
from research.evaluation.inputs import EvaluationPlan
from research.evaluation.page import section
from research.evaluation.repeats import RepeatMerge, RepeatShare, RepeatShares, WithRepeats
from tests.tiny_bundle import CONFIG, START_MS, quickly_trained, shop

NAMES = [*"abcdefgh", *(f"mine{n}" for n in range(60))]
USUAL = 0.7


@pytest.fixture(scope="module")
def merge():
    catalogue = [
        Item(item_id=name, category_id="c", title="", ts=0, attributes={"in_stock": "no"} if name == "h" else {}) for name in NAMES
    ]
    cascade = Cascade(Recommender(quickly_trained(1)), Options(), catalogue)
    return RepeatMerge(cascade.retriever.serving.index.look(), ServingRules.of(True, catalogue))


def click(user, item, ts):
    return Click(event_id=f"{user}-{item}-{ts}", user_id=user, item_id=item, category_id="c", ts=ts)


def row_after(*items):
    """The row of a user who clicked these, a minute apart."""
    timeline = Timeline(deeds(click("u", item, (at + 1) * MINUTE_MS) for at, item in enumerate(items))["u"])
    timeline.advance()
    return timeline.row


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.0, "abcdef"),
        # weight 1/4: f at 2, e at 6; a 0.5, b 1.5, c 2.5, d 3.5, e 4.5, f 5.5
        (0.2, "abfcde"),
        # weight 1: f at 0.5, e at 1.5 and a at 0.5, b at 1.5, of equal places by item id
        (0.5, "afbecd"),
        # weight 9: f at 1/18, e at 3/18, then a 0.5
        (0.9, "feabcd"),
    ],
)
def test_the_merge_is_the_one_computed_by_hand(merge, share, expected):
    repeats = merge.repeats([row_after("e", "f")], 6)
    assert merge.merged([list("abcdef")], repeats, share) == [list(expected)]


def test_repeats_are_in_the_catalogue_and_in_stock_and_not_what_was_bought(merge):
    row = row_after("a", "h", "nowhere", "b")
    assert merge.merged([[]], merge.repeats([row], 6), 0.5) == [["b", "a"]]
    assert merge.rules.out_of_stock == {"h"}


def test_lists_of_new_items_stay_as_they_are(merge):
    events = [*(click("u", item, ts) for ts, item in enumerate("ab", 1)), click("u", "c", 100), click("v", "c", 1)]
    split = temporal(deeds(events), cut_ms=100)
    asked = list(questions(split, 5, ["u"]))

    class Same:
        def answer(self, asked, k):
            return [Answer(list("cdab")[:k], list("cd")[:k]) for _ in asked]

    [answer] = WithRepeats(Same(), merge, 0.5).answer(asked, 4)
    assert answer == Answer(list("bcad"), list("cd"))  # repeats b, a; the list c, d, a, b; equal places by item id


def validation_of(repeat_it, users=LEAST_USERS):
    """A history of users with two items each, and a point per user whose target is a repeat, or an item of the baseline."""
    events, answers = [], []
    for n in range(users):
        user, mine = f"u{n}", f"mine{n % 60}"
        events += [click(user, mine, DAY_MS), click(user, "a", 2 * DAY_MS)]
        # 50 items of the baseline, the last one the target: one repeat merged in moves it out of the first 50
        items = [*(name for name in NAMES if name not in (mine, "a", "h"))][:50]
        answers.append(ValidationAnswer(user, 3 * DAY_MS, frozenset({mine if repeat_it else items[-1]}), items))
    return deeds(events), answers


def test_the_share_is_the_best_of_the_grid(merge):
    known, answers = validation_of(repeat_it=False)
    assert RepeatShares(known, merge, USUAL).choose(answers) == RepeatShare(0.0, LEAST_USERS, LEAST_USERS, 1.0, 1.0)
    known, answers = validation_of(repeat_it=True)
    # two repeats, the older one second: at a share of 0.1 its place is 1.5 * 9 = 13.5, so it is found
    assert RepeatShares(known, merge, USUAL).choose(answers) == RepeatShare(0.1, LEAST_USERS, LEAST_USERS, 0.0, 1.0)
    assert {0.0, 0.1} < set(TRIED["repeat"])


def test_too_few_users_and_no_validation_leave_the_share_of_the_cascade(merge):
    known, answers = validation_of(repeat_it=True, users=LEAST_USERS - 1)
    assert RepeatShares(known, merge, USUAL).choose(answers) == RepeatShare(USUAL, LEAST_USERS - 1)
    assert RepeatShares(known, merge, USUAL).choose([]) == RepeatShare(USUAL)


@pytest.mark.slow
@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize("split", ["temporal", "users"])
def test_held_out_events_do_not_influence_the_share(split, tmp_path):
    """The same training events with other held-out ones give the same shares, chosen with the same recall, but other results."""
    log, catalogue = shop(start_ms=START_MS, users=100, events=20)
    cut_ms = int(np.quantile([event.ts for event in log], 0.85))
    everybody = deeds(log)
    tested = by_users(everybody, 0).starts if split == "users" else dict.fromkeys(everybody, cut_ms)
    outcomes = []
    for name, moved in (("one", 0), ("two", 7)):
        events = [held_out(event, catalogue, moved) if event.ts >= tested.get(event.user_id, event.ts + 1) else event for event in log]
        sources.write(tmp_path / f"{name}.jsonl", [*catalogue, *events])
        config = CONFIG.replace(epochs=1, cut_ms=cut_ms)
        plan = EvaluationPlan(
            str(tmp_path / f"{name}.jsonl"), config, baselines=("gru4rec",), split=split, budget_s=600.0, trials=1, choose=False
        )
        outcomes.append(run(plan, silent))
    one, two = outcomes
    assert one.repeats == two.repeats
    assert one.repeats["gru4rec"][0].points > 0
    assert one.report.section() != two.report.section()
    assert list(one.report.section().rows) == ["cascade", "cascade without repeats", "gru4rec", "gru4rec + repeats"]
    page = section(one, "everlong evaluate")
    assert "**Repeats merged into the trained baselines**" in page
    assert f"| gru4rec | {one.repeats['gru4rec'][0].share:g} |" in page
    assert "purchases excluded from all lists" in page
    assert not re.search(r"\b(moments|asked|learnt|wanted|foretold|own items|anew)\b", page), page


def held_out(event, catalogue, moved):
    """A click on the item so many places further down the catalogue; searches and orders stay."""
    if not isinstance(event, Click):
        return event
    ids = [item.item_id for item in catalogue]
    item = catalogue[(ids.index(event.item_id) + moved) % len(ids)]
    return msgspec.structs.replace(event, item_id=item.item_id, category_id=item.category_id)


@contextmanager
def silent(_):
    yield lambda done, of: None
