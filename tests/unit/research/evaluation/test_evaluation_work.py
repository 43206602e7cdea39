"""An interrupted evaluation resumes: finished parts are not made again, and the results are the same."""

import json

import msgspec
import pytest
from typer.testing import CliRunner

from features import sources
from features.history import deeds
from infra.cli import make_app
from models.evaluation.baselines import MostPopular, SeenBefore, popularity
from models.evaluation.metrics import DEPTH
from models.evaluation.prediction_points import questions
from models.evaluation.split import temporal
from research.evaluation import evaluation
from research.evaluation import work as evaluation_work
from research.evaluation.repeats import RepeatShare
from research.evaluation.work import Fitted, Work
from tests.tiny_bundle import START_MS, quickly_trained, shop


class Clock:
    """Counts its own calls as seconds."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


def forbidden(*_, **__):
    raise AssertionError("it was made again")


def interrupted(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize("often", [False, True])
def test_a_contender_that_answered_answers_the_same_from_its_file(tmp_path, often):
    events, catalogue = shop(start_ms=START_MS, users=20, events=40)
    split = temporal(deeds(events), 0.2)
    items = [item.item_id for item in catalogue]
    asked = list(questions(split, 3, sorted(split.starts)))
    popular = popularity(split.known, split.cut_ms, 500)
    contender = SeenBefore(popular, often=True) if often else MostPopular(popular)
    expected = contender.answer(asked, DEPTH)
    assert 0 < min(len(answer.fresh) for answer in expected) < len(items)
    share = RepeatShare(0.3, 60, 70, 0.25, 0.5)
    for folder, fit in ((None, lambda: Fitted(contender, share)), (tmp_path, lambda: Fitted(contender, share)), (tmp_path, forbidden)):
        part = Work(folder, Clock()).contender(["a", 0], fit, asked, items)
        assert (part.seconds, part.made.repeats) == (1.0, share)
        found = part.made.contender.answer(asked, DEPTH)
        assert [(*map(list, answer[:2]),) for answer in found] == [(*map(list, a[:2]),) for a in expected]
        assert list(part.made.contender.answer(asked[3:4], 5)[0].items) == list(expected[3].items[:5])
    for facts, others, catalogue in ((["a", 1], asked, items), (["a", 0], asked[1:], items), (["a", 0], asked, items[::-1])):
        with pytest.raises(AssertionError, match="made again"):
            Work(tmp_path, Clock()).contender(facts, forbidden, others, catalogue)


def test_a_part_that_was_interrupted_is_made_again(tmp_path, monkeypatch):
    bundle = quickly_trained(1)
    for where in ("learning", "keeping"):
        with monkeypatch.context() as patched:
            patched.setattr(evaluation_work, "_finish", interrupted)
            with pytest.raises(KeyboardInterrupt):
                Work(tmp_path, Clock()).bundle(["b"], "cpu", interrupted if where == "learning" else lambda: bundle)
        assert list(tmp_path.iterdir()) == []
    assert Work(tmp_path, Clock()).bundle(["b"], "cpu", lambda: bundle).made is bundle
    found = Work(tmp_path, Clock()).bundle(["b"], "cpu", forbidden)
    assert (found.made.generation, found.seconds) == (bundle.generation, 1.0)


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    work = Work(None, Clock())
    assert work.bundle(["b"], "cpu", lambda: quickly_trained(1)).made is quickly_trained(1)
    fitted = Fitted(MostPopular(popularity({}, 0, 1)), RepeatShare(0.7))
    assert work.contender(["a"], lambda: fitted, [], []).made.repeats is fitted.repeats
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.usefixtures("_library")
def test_the_command_goes_on_where_it_was(tmp_path, monkeypatch):
    log, catalogue = shop(start_ms=START_MS, users=60, events=25)
    sources.write(tmp_path / "log.jsonl", [*catalogue, *log])
    given = ("--data", tmp_path / "log.jsonl", "--epochs", 1, "--dim", 16, "--seeds", 2, "--baselines", "simple,gru4rec", "--budget", 1)

    def told(*more):
        done = CliRunner().invoke(make_app(), ["evaluate", *map(str, (*given, "--trials", 1, "--json", *more))])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    rival = evaluation.open_rival
    with monkeypatch.context() as patched:
        patched.setattr(evaluation, "TrainedBaseline", interrupted)  # all of ours is finished, the first rival is not
        assert CliRunner().invoke(make_app(), ["evaluate", *map(str, (*given, "--trials", 1, "--work", tmp_path / "work"))]).exit_code != 0
    with monkeypatch.context() as patched:
        patched.setattr(evaluation, "learn", forbidden)
        first = told("--work", tmp_path / "work")
        patched.setattr(rival("gru4rec").__class__, "fit", forbidden)
        second = told("--work", tmp_path / "work")
    assert second["report"] == first["report"]
    assert second["costs"]["gru4rec"] == first["costs"]["gru4rec"]
    assert second["repeats"] == first["repeats"]
    assert second["choice"]["shares"] == first["choice"]["shares"]


@pytest.mark.slow
@pytest.mark.usefixtures("_library")
def test_what_follows_from_other_data_or_another_budget_is_made_again(tmp_path, monkeypatch):
    log, catalogue = shop(start_ms=START_MS, users=60, events=25)
    path, made = tmp_path / "log.jsonl", []
    rival, learn = evaluation.open_rival("gru4rec").__class__, evaluation.learn
    fit = rival.fit
    monkeypatch.setattr(rival, "fit", lambda *given: made.append("rival") or fit(*given))
    monkeypatch.setattr(evaluation, "learn", lambda *given, **named: made.append("ours") or learn(*given, **named))
    monkeypatch.setattr(evaluation, "budget_s", lambda costs: 1.0)

    def run(*more):
        made.clear()
        given = (
            "--data",
            path,
            "--epochs",
            1,
            "--dim",
            16,
            "--baselines",
            "gru4rec",
            "--trials",
            1,
            "--usual-shares",
            "--work",
            tmp_path / "work",
        )
        done = CliRunner().invoke(make_app(), ["evaluate", *map(str, (*given, *more))])
        assert done.exit_code == 0, done.output
        return list(made)

    sources.write(path, [*catalogue, *log])
    assert run() == ["ours", "rival"]
    assert run() == []
    assert run("--choose-shares") == ["ours", "rival"]  # whose seconds those of choosing are added to
    sources.write(path, [*[msgspec.structs.replace(item, title="another") for item in catalogue], *log])
    assert run() == ["ours", "rival"]
