"""`everlong ablate`: asks what lies before the held-out part, goes on where it was stopped, and compares by pairs."""

from contextlib import contextmanager

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

import research.ablation.ablation as runs
from features import sources
from features.history import deeds
from infra.cli import make_app
from models.config import Config
from models.evaluation.baselines import Answer
from models.evaluation.prediction_points import questions
from models.evaluation.split import temporal, validation
from models.serving.recommender import Recommender
from research.ablation.ablation import ablate
from research.ablation.comparison import COLUMNS, Scores, effect
from research.ablation.page import heading, section, text
from research.ablation.rows import DEFAULT, GROUPS, chosen, trained_as
from research.errors import UnknownRowError
from research.evaluation.inputs import EvaluationPlan
from research.evaluation.oracle_category import ToldCategory
from tests.tiny_bundle import CONFIG, START_MS, quickly_trained, shop

QUICK = CONFIG.replace(epochs=1)


@contextmanager
def silent(_):
    yield lambda done, of: None


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.jsonl"
    events, catalogue = shop(start_ms=START_MS, users=12, events=30)
    path.write_bytes(b"\n".join(msgspec.json.encode(event) for event in [*catalogue, *events]))
    return path


def test_choosing_is_done_on_what_lies_before_the_cut():
    done = deeds(shop()[0])
    outer = temporal(done, 0.2)
    inner = validation(outer, 0.2)
    assert inner.name == "validation"
    assert inner.cut_ms < outer.cut_ms
    assert max(event.ts for mine in inner.done.values() for event in mine.events) < outer.cut_ms
    assert max(event.ts for mine in inner.known.values() for event in mine.events) < inner.cut_ms
    assert all(question.ts < outer.cut_ms for question in questions(inner, 5, sorted(inner.starts)))


def test_a_finished_row_is_not_run_again_and_serving_rows_share_a_training(log, tmp_path, monkeypatch):
    trained, told = [], []
    learn = runs.learn
    monkeypatch.setattr(runs, "learn", lambda *given, **named: trained.append(given[3]) or learn(*given, **named))
    plan, work = EvaluationPlan(str(log), QUICK, seeds=2, test_users=5), tmp_path / "work"
    rows = chosen("K 1,pointer only,no time gap")
    first = ablate(plan, rows, work, silent, told.append)
    assert trained == [0, 0, 1, 1]
    assert len(told) == 8
    assert [found.name for found in told[0].effects] == ["default"]
    again = ablate(plan, rows, work, silent, told.append)
    assert trained == [0, 0, 1, 1]
    assert again.effects == first.effects
    assert [found.name for found in first.effects] == ["default", "K 1", "pointer only", "no time gap"]
    assert first.effects[0].more is None
    assert all(found.more.keys() == set(COLUMNS) and found.seeds == 2 for found in first.effects[1:])
    assert "| K 1 |" in section(first, heading(first.facts), "everlong ablate")
    assert "no time gap" in text(first)
    ablate(plan._replace(config=QUICK.replace(dim=8)), chosen("K 1"), work, silent, told.append)
    assert len(trained) == 6


def test_another_file_of_the_same_name_is_run_again(tmp_path, monkeypatch):
    """Wholly others must not be given the rows of the first; the same events elsewhere may."""
    trained = []
    learn = runs.learn
    monkeypatch.setattr(runs, "learn", lambda *given, **named: trained.append(given[3]) or learn(*given, **named))
    events, catalogue = shop(start_ms=START_MS, users=30, events=20)
    retitled = [msgspec.structs.replace(item, title=f"new {item.title}") for item in catalogue]
    for folder, items, times in (("one", catalogue, 1), ("two", retitled, 2), ("three", catalogue, 2)):
        (tmp_path / folder).mkdir()
        sources.write(tmp_path / folder / "log.jsonl", [*items, *events])
        plan = EvaluationPlan(str(tmp_path / folder / "log.jsonl"), QUICK, test_users=5)
        ablate(plan, chosen("default"), tmp_path / "work", silent, lambda found: None)
        assert len(trained) == times


def test_the_rows_are_of_known_settings_and_stand_beside_rows():
    for row in GROUPS["all"]:
        config = row.of(Config())
        assert msgspec.json.decode(msgspec.json.encode(config), type=Config) == config
        assert (config == Config()) == (not row.changes)
        plugged = bool(row.training(Config()).mechanism or row.serving)
        assert row.name == DEFAULT or bool(row.changes) != plugged
    assert [row.name for row in chosen("L 8 with 4 folds")] == ["default", "L 8", "L 8 with 4 folds"]
    with pytest.raises(UnknownRowError, match="mechanisms"):
        chosen("no such row")
    assert trained_as(Config().replace(top_k=3, demand=1.0)) == Config()


def test_an_effect_is_the_difference_of_pairs_and_is_surer_than_the_scores():
    rng = np.random.default_rng(0)
    users = [f"u{n // 4}" for n in range(200)]
    base = {seed: Scores(users, rng.random((200, len(COLUMNS))), 3.0) for seed in range(3)}
    row = {seed: Scores(users, base[seed].values + 0.1, 5.0) for seed in (0, 1)}
    found = effect("row", row, "default", base, 0)
    assert found.seeds == 2
    assert found.seconds == 5.0
    for column in COLUMNS:
        assert found.more[column].mean == pytest.approx(0.1)
        assert found.more[column].low == pytest.approx(0.1)
        assert found.scores[column].low < found.scores[column].mean < found.scores[column].high
    assert effect("default", base, "default", base, 0).more is None


def test_seeds_that_disagree_widen_the_interval():
    users = [f"u{n}" for n in range(400)]
    base = {seed: Scores(users, np.zeros((400, len(COLUMNS))), 1.0) for seed in range(3)}
    row = {seed: Scores(users, np.full((400, len(COLUMNS)), value), 1.0) for seed, value in enumerate((-0.2, 0.1, 0.3))}
    more = effect("row", row, "default", base, 0).more["recall@50"]
    assert more.low < 0 < more.mean < more.high


def test_told_the_category_all_that_is_named_is_in_it_best_first():
    bundle, (events, catalogue) = quickly_trained(0), shop()
    recommender = Recommender(bundle)
    split = temporal(deeds(events), 0.1)
    asked = list(questions(split, 2, sorted(split.starts)[:4]))
    answers = ToldCategory(recommender, catalogue).answer(asked, 5)
    category = {item.item_id: item.category_id for item in catalogue}
    for question, answer in zip(asked, answers, strict=True):
        assert isinstance(answer, Answer)
        assert {category[item] for item in answer.items} <= question.categories
        assert not set(answer.fresh) & question.had
        (one,) = question.categories
        state = recommender.short([question.row])
        vector = recommender.long(state, [(0, one, question.rows[one])])[0] if one in question.rows else None
        if vector is not None:
            score = {item.item_id: float(recommender.item_vectors([item])[0] @ vector) for item in catalogue if item.category_id == one}
            assert [score[item] for item in answer.items] == pytest.approx(sorted(score.values(), reverse=True)[:5], abs=1e-6)


def test_the_command_writes_its_page(log, tmp_path):
    page = tmp_path / "ablations.md"
    options = ["--seeds", "1", "--epochs", "1", "--dim", "8", "--depth", "5", "--work", str(tmp_path / "w"), "--out", str(page)]
    done = CliRunner().invoke(make_app(), ["ablate", "--data", str(log), "--rows", "K 1", *options])
    assert done.exit_code == 0, done.output
    assert page.read_text().startswith("# Ablations")
    assert "log.jsonl, validation" in page.read_text()
    assert "K 1" in done.stdout
    other = CliRunner().invoke(make_app(), ["ablate", "--data", str(log), "--rows", "K 2", "--title", "two", *options])
    assert other.exit_code == 0, other.output
    assert "\n## log.jsonl, validation\n" in page.read_text()
    assert "\n## log.jsonl, validation, two\n" in page.read_text()


def test_a_reranked_row_shares_the_training_and_keeps_the_categories_of_the_cascade(log, tmp_path, monkeypatch):
    trained = []
    learn = runs.learn
    monkeypatch.setattr(runs, "learn", lambda *given, **named: trained.append(given[3]) or learn(*given, **named))
    found = ablate(EvaluationPlan(str(log), QUICK, test_users=5), chosen("reranking"), tmp_path / "work", silent, lambda _: None)
    assert trained == [0]
    default, by_repeats, by_attention = found.effects
    assert [default.name, by_repeats.name, by_attention.name] == [row.name for row in GROUPS["reranking"]]
    for effect_ in (by_repeats, by_attention):
        assert effect_.more["category hit@8"].mean == 0
        assert effect_.more["told category hr@20"].mean == 0
        assert effect_.seconds > default.seconds
    assert len(list((tmp_path / "work").glob("*.npz"))) == 3


def test_categories_of_one_part_share_the_training_and_are_kept_apart(log, tmp_path):
    work = tmp_path / "work"
    found = ablate(EvaluationPlan(str(log), QUICK, test_users=5), chosen("pointer only,generator only"), work, silent, lambda _: None)
    assert len(list(work.glob("*.npz"))) == 3
    assert all(effect_.more["told category hr@20"].mean == 0 for effect_ in found.effects[1:])
