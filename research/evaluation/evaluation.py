"""`everlong evaluate`: reads a file, splits it, trains on the rest, and evaluates all contenders on the same prediction points."""

import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from time import perf_counter, process_time
from typing import Any

import msgspec

from features.events import Item
from models.bundle import Bundle, Manifest, load
from models.config import Config
from models.errors import NothingToLearnError
from models.evaluation.baselines import popularity
from models.evaluation.cascade import Cascade
from models.evaluation.prediction_points import Offered, Question, offered, questions, users_asked
from models.evaluation.report import CASCADE, WITH_REPEATS, WITHOUT_REPEATS, EvaluationSample, Report, evaluate
from models.evaluation.score import Entry, simple
from models.evaluation.serving_rules import ServingRules, under
from models.evaluation.share_selection import Choice, choose_shares, chooses, enough
from models.evaluation.split import Split, validation
from models.serving.recommender import Recommender
from models.serving.retriever import Options
from models.training.phase import TrainingProgress
from models.training.train import learn
from research.baselines import NAMES, Budget, open_rival
from research.errors import SeenInTrainingError
from research.evaluation.coded import CodeRecall, code_recall
from research.evaluation.inputs import EvaluationPlan, Loaded, Phase, load_data, split_of
from research.evaluation.repeats import RepeatMerge, RepeatShare, RepeatShares, WithRepeats
from research.evaluation.trained_baselines import TrainedBaseline, rival_history
from research.evaluation.work import Fitted, Part, Work
from research.sections import machine, now

CHOOSING = "choosing shares"
LEAST_BUDGET_S = 60.0
EPOCHS = 20  # of a trained baseline, at most


class Cost(msgspec.Struct, frozen=True):
    """The cost of training, all seeds together: seconds as `clock_of` counts them."""

    seconds: float
    seeds: int


class EvaluationOutcome(msgspec.Struct, frozen=True):
    """A report and how it was made. `peak_bytes` is the peak memory of the process. `repeats`: of each trained baseline, one per seed."""

    data: str
    report: Report
    seeds: list[int]
    config: Config
    bundle: str | None
    left_out: int  # users on whom the shares of a given bundle were chosen
    exclude_bought: bool  # from the lists of all contenders
    refused_rows: int
    max_users: int | None
    test_users: int | None
    trials: int
    budget_s: float | None
    costs: dict[str, Cost]
    choice: Choice | None
    repeats: dict[str, list[RepeatShare]]
    codes: list[CodeRecall]
    seconds: float
    peak_bytes: int
    commit: str
    machine: str
    date: str


def run(plan: EvaluationPlan, phase: Phase) -> EvaluationOutcome:
    """Evaluate as planned.

    Raises:
        SourceError, NothingToLearnError, SeenInTrainingError, MissingExtraError, BundleError: each names its remedy.
    """
    began = perf_counter()
    rivals = [name for name in plan.baselines if name in NAMES]
    for name in rivals:
        open_rival(name)  # fails early if the library is missing
    loaded = load_data(plan)
    split = split_of(plan, loaded.done)
    held_out = len(split.starts)
    given = None if plan.bundle is None else load(plan.bundle, plan.device)
    if given is not None:
        refuse_seen(given.manifest, loaded.name, split)
        split = unchosen(given.manifest, loaded.name, split)
    if not split.starts:
        raise NothingToLearnError("no event is held out", "use a larger --holdout, an earlier --cut, or --split users")
    evaluation = _Evaluation(plan, loaded, split, phase)
    if plan.choose and given is None:
        evaluation.choose()
    report = evaluation.report(given, rivals)
    return EvaluationOutcome(
        data=loaded.name,
        report=report,
        seeds=evaluation.seeds if given is None else [plan.seed],
        config=evaluation.config,
        bundle=None if plan.bundle is None else str(plan.bundle),
        left_out=held_out - len(split.starts),
        exclude_bought=evaluation.exclude_bought,
        refused_rows=loaded.refused,
        max_users=plan.max_users,
        test_users=plan.test_users,
        trials=plan.trials,
        budget_s=evaluation.budget_s,
        costs=evaluation.costs,
        choice=evaluation.choice,
        repeats=evaluation.repeats,
        codes=evaluation.codes,
        seconds=round(perf_counter() - began, 1),
        peak_bytes=peak_bytes(),
        commit=", ".join(sorted(evaluation.work.commits)),
        machine=machine(),
        date=now(),
    )


def refuse_seen(manifest: Manifest, name: str, split: Split) -> None:
    """Raise SeenInTrainingError if a bundle was trained on what the split holds out of the data called `name`."""
    if name not in (manifest.data, *manifest.earlier):
        return
    instead = "leave out --bundle: one is trained on the events before the cut"
    if split.whole:
        raise SeenInTrainingError(f"the bundle was trained on all users of {name}, so they cannot be tested: {instead}")
    cut_ms = manifest.cut_ms if manifest.cut_ms is not None else manifest.config.training.cut_ms
    if cut_ms is None:
        raise SeenInTrainingError(
            f"the bundle does not say up to when it was trained on {name}", f"train it again with this version, or {instead}"
        )
    if cut_ms > split.cut_ms:
        until, since = (datetime.fromtimestamp(ts / 1000, UTC).isoformat() for ts in (cut_ms, split.cut_ms))
        trained = f"the bundle was trained on {name} up to {until}, and the test begins at {since}"
        raise SeenInTrainingError(trained, f"use --cut {cut_ms}, or {instead}")


def unchosen(manifest: Manifest, name: str, split: Split) -> Split:
    """The split without the users on whom a bundle's shares were chosen, if that was on the data called `name`."""
    if not manifest.chosen or name != manifest.data:
        return split
    return split._replace(starts={user: ts for user, ts in split.starts.items() if not chooses(user, manifest.seed)})


def clock_of(device: str) -> Callable[[], float]:
    """The clock of training: CPU time, so that other load on the machine favours nobody; with a GPU, elapsed time."""
    return process_time if device == "cpu" else perf_counter


def budget_s(costs: Mapping[str, Cost]) -> float:
    """The seconds of a trained baseline: those that one seed of ours took, including the choice of shares."""
    return max(LEAST_BUDGET_S, sum(costs[part].seconds / costs[part].seeds for part in (CHOOSING, CASCADE) if part in costs))


def peak_bytes() -> int:
    """Peak memory of this process."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


class _Evaluation:
    """One evaluation in progress: plan, data, configuration, and the results so far."""

    def __init__(self, plan: EvaluationPlan, loaded: Loaded, split: Split, phase: Phase) -> None:
        self._plan, self._loaded, self._split, self._phase = plan, loaded, split, phase
        self._clock = clock_of(plan.device)
        self._content = loaded.digest() if plan.work is not None else ""
        self.work = Work(plan.work, self._clock)
        self.config = plan.config
        self.seeds = list(range(plan.seed, plan.seed + plan.seeds))
        self.choice: Choice | None = None
        self.exclude_bought = plan.config.retrieval.exclude_bought
        self.budget_s = plan.budget_s
        self.costs: dict[str, Cost] = {}
        self.repeats: dict[str, list[RepeatShare]] = {}
        self.codes: list[CodeRecall] = []

    def choose(self) -> None:
        """Choose the shares on the newest part of the training events, with a bundle trained on the older part."""
        plan, part = self._plan, validation(self._split, self.config.training.holdout)
        users = users_asked(part, plan.test_users, plan.seed)
        if not enough(len(users)):
            self.choice = Choice(self.config.retrieval.shares, self.config.retrieval.exclude_bought, len(users), 0, 0.0, 0.0)
            return
        there = offered(self._loaded.described, self._loaded.inferred, part, users)
        bundle, seconds = self._bundle(part, there, plan.seed, CHOOSING)
        began = self._clock()
        asked = questions(part, self.config.training.test_per_user, users)
        self.choice = choose_shares(self._cascade(bundle, part, there), asked, plan.seed)
        self.config = self.config.replace(shares=self.choice.shares, exclude_bought=self.choice.exclude_bought)
        self._cost(CHOOSING, [seconds + self._clock() - began])

    def report(self, given: Bundle | None, rivals: Sequence[str]) -> Report:
        """Evaluate the cascade, of the `given` bundle or of one per seed, and all others on what is held out."""
        plan, split = self._plan, self._split
        sample = EvaluationSample(self.config.training.test_per_user, plan.test_users, plan.seed)
        users = users_asked(split, sample.users, sample.seed)
        there = offered(self._loaded.described, self._loaded.inferred, split, users)
        cascades = self._trained(there) if given is None else [(plan.seed, self._cascade(given, split, there))]
        self.codes += [one for _, cascade in cascades if (one := code_recall(cascade.bundle, split.known, users)) is not None]
        entries = [entry for seed, cascade in cascades for entry in _both(cascade, seed)]
        first = cascades[0][1].retriever
        self.exclude_bought = first.exclude_bought
        rules = ServingRules.of(first.exclude_bought, there.catalogue)
        entries += simple(split, plan.baselines, plan.seed, rules)
        if rivals:
            points = list(questions(split, sample.per_user, users))
            merge = RepeatMerge(first.serving.index.look(), rules)
            shares = RepeatShares(split.known, merge, first.shares.repeat)
            seeds = self.seeds if given is None else [plan.seed]
            entries += self._rivals(rivals, there.catalogue, seeds, points, shares)
        most = len(users) if split.whole else len(users) * sample.per_user
        with self._phase("evaluating") as tell:
            return evaluate(split, entries, [item.item_id for item in there.catalogue], sample, lambda done: tell(done, max(most, done)))

    def _trained(self, there: Offered) -> list[tuple[int, Cascade]]:
        parts = [self._bundle(self._split, there, seed, f"training, seed {seed}") for seed in self.seeds]
        self._cost(CASCADE, [part.seconds for part in parts])
        return [(seed, self._cascade(part.made, self._split, there)) for seed, part in zip(self.seeds, parts, strict=True)]

    def _bundle(self, split: Split, there: Offered, seed: int, title: str) -> Part[Bundle]:
        with self._phase(title) as tell:

            def progress(at: TrainingProgress) -> None:
                tell(at.step, at.steps)

            def trained() -> Bundle:
                name, device = self._loaded.name, self._plan.device
                return learn(split.known, there.catalogue, self.config, seed, progress, cut_ms=split.cut_ms, data=name, device=device)

            facts = [*self._about(split), self.config.network, self.config.training, seed]  # training reads nothing of the retrieval
            part = self.work.bundle(facts, self._plan.device, trained)
        bundle = part.made
        config = msgspec.structs.replace(bundle.manifest.config, retrieval=self.config.retrieval)
        return part._replace(made=replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, config=config)))

    def _about(self, split: Split) -> list[Any]:
        """Data, split and device."""
        return [self._content, split.name, split.cut_ms, self._plan.seed, self._plan.device]

    def _cascade(self, bundle: Bundle, split: Split, there: Offered) -> Cascade:
        config = bundle.manifest.config.retrieval
        wanted = popularity(split.known, split.cut_ms, config.popular, config.popular_days)  # a given bundle's may include held-out events
        return Cascade(Recommender(bundle, self._plan.device), Options(config.top_k), *there, wanted)

    def _rivals(
        self, names: Sequence[str], catalogue: list[Item], seeds: Sequence[int], points: Sequence[Question], shares: RepeatShares
    ) -> list[Entry]:
        """Entries of each trained baseline as it is, and with repeats merged into its lists."""
        plan, ids, merge = self._plan, [item.item_id for item in catalogue], shares.merge
        history = rival_history(self._split.known, ids, (item.category_id for item in catalogue))
        self.budget_s = plan.budget_s or budget_s(self.costs)
        budget = Budget(self.budget_s, EPOCHS, plan.trials)
        ours = plan.budget_s or ["as ours", plan.bundle is None, plan.choose]  # not the seconds, which differ in every run
        about = [*self._about(self._split), plan.config, plan.test_users, plan.trials, ours, merge.rules.exclude_bought, shares.default]
        found = []
        for name in names:
            parts = []
            with self._phase(name) as tell:
                for done, seed in enumerate(seeds):
                    tell(done, len(seeds))

                    def fitted(name: str = name, seed: int = seed) -> Fitted:
                        rival = open_rival(name, self._clock)
                        rival.fit(history, seed, budget)
                        return Fitted(under(TrainedBaseline(rival), merge.rules), shares.choose(rival.validation))

                    parts.append(self.work.contender([*about, name, seed], fitted, points, ids))
                    tell(done + 1, len(seeds))
            self._cost(name, [part.seconds for part in parts])
            self.repeats[name] = [part.made.repeats for part in parts]
            found += [Entry(name, seed, part.made.contender) for seed, part in zip(seeds, parts, strict=True)]
            found += [
                Entry(f"{name}{WITH_REPEATS}", seed, WithRepeats(part.made.contender, merge, part.made.repeats.share))
                for seed, part in zip(seeds, parts, strict=True)
            ]
        return found

    def _cost(self, name: str, seconds: Sequence[float]) -> None:
        self.costs[name] = Cost(round(sum(seconds), 1), len(seconds))


def _both(cascade: Cascade, seed: int) -> list[Entry]:
    """The cascade as it serves, and without its list of repeats, which plain baselines do not have either."""
    searches = msgspec.structs.replace(cascade.bundle.manifest.config.retrieval.shares, repeat=0.0)
    return [Entry(CASCADE, seed, cascade), Entry(WITHOUT_REPEATS, seed, cascade.changed(shares=searches))]
