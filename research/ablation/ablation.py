"""`everlong ablate`: one setting changed at a time, each row trained and asked the same questions, on a part made for choosing.

A finished row is kept as a file and not run again: a run that was stopped goes on where it was.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import NamedTuple

import msgspec
import numpy as np

from features.events import Item
from models.bundle import Bundle
from models.config import Config
from models.errors import NothingToLearnError
from models.evaluation.cascade import Cascade
from models.evaluation.prediction_points import Question, offered, questions, users_asked
from models.evaluation.report import CASCADE
from models.evaluation.score import Entry, tally
from models.evaluation.split import Split, temporal, validation
from models.serving.retriever import Options
from models.training.phase import TrainingProgress
from models.training.train import learn
from research.ablation.comparison import TOLD, Effect, Scores, columns, effect
from research.ablation.rows import DEFAULT, Row, TrainedRow, TrainingKey
from research.digests import digest
from research.evaluation.inputs import EvaluationPlan, Loaded, Phase, load_data
from research.evaluation.oracle_category import ToldCategory
from research.sections import commit


class Facts(msgspec.Struct, frozen=True):
    """What was asked of whom: the head of the table."""

    data: str
    split: str
    moments: int
    users: int
    train_events: int
    catalogue: int
    config: Config
    max_users: int | None
    seeds: list[int]


class AblationResult(NamedTuple):
    """Rows so far, in the order asked for, and the commits that they were run on."""

    facts: Facts
    effects: list[Effect]
    commits: list[str]


class _Asked(NamedTuple):
    """What every row is asked, and over which items."""

    loaded: Loaded
    content: str  # the digest of what is loaded
    split: Split
    catalogue: list[Item]
    own: list[Item]
    questions: list[Question]


def ablate(
    plan: EvaluationPlan,
    rows: Sequence[Row],
    work: Path,
    phase: Phase,
    tell: Callable[[AblationResult], None],
    *,
    held_out: bool = False,
) -> AblationResult:
    """Run the rows that `work` does not hold yet, seed by seed, and `tell` after each; gives all.

    Asked is the newest `TrainingConfig.holdout` share of what lies before the cut, so that nobody chooses by what is held out;
    `held_out` asks that instead.

    Raises:
        SourceError, NothingToLearnError: each names its remedy.
    """
    asked = _asked(plan, held_out)
    seeds = list(range(plan.seed, plan.seed + plan.seeds))
    work.mkdir(parents=True, exist_ok=True)
    latest: tuple[TrainingKey, int, Bundle, float] | None = None
    for seed in seeds:
        for row in _together(rows, plan.config):
            config = row.of(plan.config)
            path = _place(work, plan, asked, row, seed)
            if path.exists():
                continue
            shared = row.training(plan.config)
            if latest is None or latest[:2] != (shared, seed):
                latest = (shared, seed, *_trained(plan, asked, row, seed, phase))
            _keep(path, _scores(row, latest[2], config, asked, plan.device, latest[3]))
            tell(_result(plan, asked, rows, seeds, work))
    return _result(plan, asked, rows, seeds, work)


def _asked(plan: EvaluationPlan, held_out: bool) -> _Asked:
    loaded = load_data(plan)
    split = temporal(loaded.done, plan.config.training.holdout, plan.config.training.cut_ms)
    if not held_out:
        split = validation(split, plan.config.training.holdout)
    if not split.starts:
        raise NothingToLearnError("no event is left to ask for", "ask for a larger --holdout or give a longer history")
    users = users_asked(split, plan.test_users, plan.seed)
    there = offered(loaded.described, loaded.inferred, split, users)
    return _Asked(loaded, loaded.digest(), split, *there, list(questions(split, plan.config.training.test_per_user, users)))


def _together(rows: Sequence[Row], usual: Config) -> Iterator[Row]:
    """Rows that share a training one after the other, else in their order."""
    first: dict[TrainingKey, list[Row]] = {}
    for row in rows:
        first.setdefault(row.training(usual), []).append(row)
    for group in first.values():
        yield from group


def _trained(plan: EvaluationPlan, asked: _Asked, row: Row, seed: int, phase: Phase) -> tuple[Bundle, float]:
    """A bundle, and the seconds of processor time its training took."""
    began, config = process_time(), row.training(plan.config).config
    with phase(f"{row.name}, seed {seed}") as tell:

        def progress(at: TrainingProgress) -> None:
            tell(at.step, at.steps)

        split, data = asked.split, asked.loaded.name
        bundle = learn(
            split.known,
            asked.catalogue,
            config,
            seed,
            progress,
            cut_ms=split.cut_ms,
            data=data,
            device=plan.device,
            build_network=row.build_network,
        )
    return bundle, process_time() - began


def _scores(row: Row, bundle: Bundle, config: Config, asked: _Asked, device: str, seconds: float) -> Scores:
    served = replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, config=config))
    recommender = row.build_recommender(served, device)
    cascade = Cascade(recommender, Options(config.retrieval.top_k), asked.catalogue, asked.own, bundle.popular)
    began = process_time()
    contender = row.finish(cascade, TrainedRow(served, asked.split.known, asked.catalogue, bundle.manifest.seed))
    seconds += process_time() - began
    entries = [
        Entry(CASCADE, 0, contender),
        Entry(TOLD, 0, ToldCategory(recommender, asked.catalogue, asked.own)),
    ]
    known = frozenset(event.item for deeds in asked.split.known.values() for event in deeds.events)
    counted = tally(asked.questions, entries, [item.item_id for item in asked.catalogue], known)
    return Scores(counted.users, columns(counted), seconds)


def _place(work: Path, plan: EvaluationPlan, asked: _Asked, row: Row, seed: int) -> Path:
    """Where a row's scores are kept: all that they follow from is in the name, the code aside."""
    changed = [row.of(plan.config), row.training(plan.config).mechanism, row.serving]
    facts = [asked.content, asked.split.name, asked.split.cut_ms, plan.test_users, plan.seed, plan.device, *changed, seed]
    return work / f"{digest(facts)}.npz"


def _keep(path: Path, scores: Scores) -> None:
    staging = path.with_suffix(".part.npz")
    np.savez(staging, users=np.array(scores.users), values=scores.values, seconds=scores.seconds, commit=commit())
    staging.replace(path)


def _result(plan: EvaluationPlan, asked: _Asked, rows: Sequence[Row], seeds: Sequence[int], work: Path) -> AblationResult:
    found: dict[str, dict[int, Scores]] = {}
    commits: set[str] = set()
    for row in rows:
        for seed in seeds:
            path = _place(work, plan, asked, row, seed)
            if path.exists():
                with np.load(path) as kept:
                    scores = Scores(kept["users"].tolist(), kept["values"], float(kept["seconds"]))
                    commits.add(str(kept["commit"]))
                found.setdefault(row.name, {})[seed] = scores
    effects = [
        effect(row.name, found[row.name], row.beside, found[row.beside], plan.seed)
        for row in rows
        if found.get(row.name, {}).keys() & found.get(row.beside, {}).keys()
    ]
    facts = Facts(
        data=asked.loaded.name,
        split=asked.split.name,
        moments=len(asked.questions),
        users=len({question.user for question in asked.questions}),
        train_events=sum(len(deeds.events) for deeds in asked.split.known.values()),
        catalogue=len(asked.catalogue),
        config=plan.config,
        max_users=plan.max_users,
        seeds=sorted(found.get(DEFAULT, {})),
    )
    return AblationResult(facts, effects, sorted(commits))
