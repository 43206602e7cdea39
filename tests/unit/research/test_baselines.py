"""Each trained baseline keeps the contract and learns a planted pattern: after item i comes item i + 1."""

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from features.event_time import DAY_MS
from research import baselines as rivals
from research.baselines import NAMES, Budget, RivalHistory, RivalUser, open_rival
from research.baselines.configuration import SPACES, Configuration, draw
from research.baselines.corpus import VALIDATION_MOMENTS, Corpus, recall, split
from research.errors import MissingExtraError

ITEMS = 200
ONE_TRIAL = Budget(seconds=60.0, epochs=5, trials=1)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def walks(users: int, seed: int) -> dict[str, list[tuple[int, str, str, int]]]:
    """Users who walk from item to item, one a day: two to six steps from anywhere, item i in category i modulo 7."""
    rng = random.Random(seed)
    sequences = {}
    for user in range(users):
        start, item = rng.randrange(60), rng.randrange(ITEMS)
        steps = [(item + step) % ITEMS for step in range(rng.randrange(3, 8))]
        sequences[f"u{user}"] = [((start + day) * DAY_MS + user, f"i{at}", f"c{at % 7}", 0) for day, at in enumerate(steps)]
    return sequences


def torch_of(array):
    import torch

    return torch.from_numpy(array)


def history(sequences) -> RivalHistory:
    return RivalHistory(sequences, [f"i{at}" for at in range(ITEMS + 1)], [f"c{at}" for at in range(7)])


@pytest.fixture(scope="module")
def opened():
    """Fitted rivals by name, each trained once."""
    trained = {}

    def fitted(name):
        if name not in trained:
            trained[name] = open_rival(name)
            trained[name].fit(history(walks(500, 1)), 5, ONE_TRIAL)
        return trained[name]

    return fitted


@pytest.mark.usefixtures("_library")
@pytest.mark.parametrize("name", NAMES)
class TestRival:
    def test_learns_what_comes_next(self, name, opened):
        asked = list(walks(150, 2).values())
        answers = opened(name).recommend([RivalUser(events[:-1]) for events in asked], 10)
        hits = np.mean([events[-1][1] in found for events, found in zip(asked, answers, strict=True)])
        popular = opened(name).recommend([RivalUser([])], 10)[0]
        assert hits > 0.5
        assert hits > 3 * np.mean([events[-1][1] in popular for events in asked])

    def test_answers_are_k_distinct_trained_items(self, name, opened):
        users = [RivalUser(events) for events in walks(20, 3).values()]
        for found in opened(name).recommend(users, 12):
            assert len(found) == len(set(found)) == 12
            assert set(found) <= {f"i{at}" for at in range(ITEMS)}
        everything = opened(name).recommend(users[:1], 10 * ITEMS)[0]
        assert sorted(everything) == sorted(f"i{at}" for at in range(ITEMS))  # i200 is in the catalogue, but has no event
        assert opened(name).recommend(users, 0) == [[]] * len(users)
        assert opened(name).recommend([], 5) == []

    def test_unknown_items_are_passed_over(self, name, opened):
        known = [(DAY_MS, "i3", "c3", 0), (2 * DAY_MS, "i4", "c4", 0)]
        strange = [known[0], (DAY_MS + 1, "nobody knows it", "c9", 3), known[1], (3 * DAY_MS, "nor this", "c9", 1)]
        plain, mixed = opened(name).recommend([RivalUser(known)], 5), opened(name).recommend([RivalUser(strange)], 5)
        assert plain == mixed

    def test_a_user_without_known_events_gets_the_most_popular(self, name, opened):
        counts = {}
        for events in walks(500, 1).values():
            for _, item, _, _ in events:
                counts[item] = counts.get(item, 0) + 1
        popular = sorted(counts, key=lambda item: (-counts[item], item))[:7]
        nobody, stranger, walker = RivalUser([]), RivalUser([(0, "nobody knows it", "c1", 0)]), RivalUser([(0, "i3", "c3", 0)])
        found = opened(name).recommend([nobody, walker, stranger], 7)
        assert found[0] == found[2] == popular
        assert found[1] != popular

    def test_one_seed_gives_one_answer_and_leaves_no_trace(self, name, tmp_path, monkeypatch, capfd):
        import torch

        monkeypatch.chdir(tmp_path)
        users = [RivalUser(events) for events in walks(30, 4).values()]
        answers = []
        state = torch.get_rng_state()
        for _ in range(2):
            rival = open_rival(name)
            rival.fit(history(walks(150, 1)), 7, Budget(60.0, 2, 2))
            answers.append(rival.recommend(users, 20))
        assert answers[0] == answers[1]
        assert torch.equal(state, torch.get_rng_state())
        assert not list(tmp_path.iterdir())
        assert capfd.readouterr() == ("", "")

    def test_the_budget_ends_training(self, name):
        ticks = iter(range(10**9))
        rival = open_rival(name, clock=lambda: float(next(ticks)))
        rival.fit(history(walks(300, 1)), 0, Budget(seconds=30.0, epochs=10**6, trials=3))
        assert next(ticks) < 60  # the clock is asked before every batch
        assert len(rival.recommend([RivalUser(walks(1, 1)["u0"])], 5)[0]) == 5

    def test_every_declared_value_trains(self, name):
        from research.baselines.training import BaselineTraining, rank

        corpus = Corpus(walks(12, 1))
        items, categories = corpus.before(corpus.examples()[:3], 2)
        for key, values in SPACES[name].items():
            for value in values:
                settings = Configuration(dim=32, length=2, negatives=16)._replace(**{key: value})
                training = BaselineTraining(name, corpus, settings, 0)
                assert training.epoch(lambda: True)
                wide = training.encoder.settings.length
                shown = [np.pad(part, ((0, 0), (wide - 2, 0))) for part in (items, categories)]
                assert rank(training.encoder, *map(torch_of, shown), 4).shape == (3, 4)

    def test_little_data(self, name):
        rival = open_rival(name)
        with pytest.raises(RuntimeError, match="fit"):
            rival.recommend([RivalUser([])], 3)
        with pytest.raises(ValueError, match="no event"):
            rival.fit(history({"u": []}), 0, ONE_TRIAL)
        for events in ([(5, "i1", "c1", 0)], [(5, "i1", "c1", 0), (5, "i2", "c2", 0)], [(5, "i1", "c1", 0), (6, "i2", "c2", 0)]):
            rival.fit(history({"u": events}), 0, Budget(10.0, 2, 1))
            assert sorted(rival.recommend([RivalUser(events)], 3)[0]) == sorted({event[1] for event in events})


@pytest.mark.usefixtures("_library")
def test_validation_answers_are_those_that_the_configuration_was_chosen_by(opened):
    rival, sequences = opened("gru4rec"), walks(500, 1)
    points = split(sequences).questions
    assert [(answer.user, answer.ts, answer.wanted) for answer in rival.validation] == [(p.user_id, p.ts, p.wanted) for p in points]
    lists, wanted = [answer.items for answer in rival.validation], [answer.wanted for answer in rival.validation]
    assert recall(lists, wanted, 50) == max(trial.recall for trial in rival.trials)


@pytest.mark.usefixtures("_library")
def test_without_a_trial_the_first_configuration_is_trained_and_nothing_is_validated():
    rival = open_rival("gru4rec")
    rival.fit(history(walks(30, 1)), 0, Budget(60.0, 1, 0))
    assert (rival.trials, list(rival.validation)) == ([], [])
    assert len(rival.recommend([RivalUser(walks(1, 1)["u0"])], 5)[0]) == 5
    rival.fit(history({"u": [(5, "i1", "c1", 0)]}), 0, ONE_TRIAL)
    assert list(rival.validation) == []


def test_names():
    with pytest.raises(ValueError, match="sasrec"):
        open_rival("nonesuch")
    assert set(SPACES) == set(NAMES)


def test_without_the_library_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr("research.baselines.opening.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'everlong\[baselines\]'"):
        open_rival("sasrec")


def test_importing_the_package_imports_no_library():
    code = "import sys, research.baselines; sys.exit(bool({'torch_rechub', 'sklearn', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(rivals.__file__).parents[2], timeout=60, check=False).returncode == 0


def test_configurations_are_drawn_from_the_declared_space():
    for name, space in SPACES.items():
        drawn = draw(name, 20, 3)
        assert drawn == draw(name, 20, 3)
        assert len(set(drawn)) == 20
        for settings in drawn[1:]:
            assert all(getattr(settings, key) in values for key, values in space.items())
            same = settings._replace(**{key: getattr(Configuration(), key) for key in space})
            assert same == Configuration()


def test_the_validation_part_is_the_end_and_questions_see_only_what_is_older():
    sequences = walks(400, 1)
    older, questions = split(sequences)
    kept = sum(len(events) for events in older.values())
    assert 0.88 <= kept / sum(len(events) for events in sequences.values()) <= 0.92
    cut = max(event[0] for events in older.values() for event in events)
    assert 0 < len(questions) <= VALIDATION_MOMENTS
    for user_id, here, user, wanted in questions:
        assert here == user.events[-1][0] + DAY_MS > cut
        assert user.events == [event for event in sequences[user_id] if event[0] < here]
        assert wanted == {event[1] for event in sequences[user_id] if here <= event[0] < here + DAY_MS}


def test_baskets_do_not_see_themselves():
    events = [(1, "a", "x", 0), (1, "b", "x", 0), (2, "c", "y", 0), (2, "a", "x", 0), (3, "b", "x", 0)]
    corpus = Corpus({"u": events, "v": [(1, "c", "y", 0), (9, "b", "x", 0)], "w": []})
    assert corpus.items == ["b", "a", "c"]
    assert corpus.examples().tolist() == [2, 3, 4, 6]
    items, categories = corpus.before(np.array([2, 3, 4, 6]), 3)
    assert items.tolist() == [[0, 2, 1], [0, 2, 1], [1, 3, 2], [0, 0, 3]]
    assert categories.tolist() == [[0, 1, 1], [0, 1, 1], [1, 2, 1], [0, 0, 2]]


def test_windows_hold_each_example_once_and_only_its_own_user():
    corpus = Corpus(walks(60, 1))
    for length in (2, 3, 50):
        windows = corpus.windows(length, np.random.default_rng(length))
        assert np.concatenate([window.examples for window in windows]).tolist() == corpus.examples().tolist()
        for begin, examples in windows:
            asked_at = corpus.end[examples] - 1
            assert np.all(corpus.first[examples] == corpus.first[begin])
            assert np.all((begin <= asked_at) & (asked_at < begin + length))


def test_recall_counts_at_most_k_wanted_items():
    _, questions = split(walks(400, 1))
    wanted = [point.wanted for point in questions]
    assert recall([sorted(targets) for targets in wanted], wanted, 50) == 1.0
    assert recall([[] for _ in wanted], wanted, 50) == 0.0
    assert recall([["a", "b", "z"]], [frozenset("abcdef")], 3) == pytest.approx(2 / 3)
