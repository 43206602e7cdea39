"""`everlong evaluate`: a file read, split, learnt from, and every contender asked the same questions."""

import resource
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from time import perf_counter, process_time

import msgspec

from features.events import Item
from infra.offline.evaluation_input import Loaded, Offered, Phase, Plan, load_data, offered, split_of
from infra.offline.sections import commit, machine, now
from models.bundle import Bundle, Manifest, load
from models.config import Config
from models.evaluation.cascaded import Cascade
from models.evaluation.choosing import LEAST_USERS, Choice, choose_shares, chooses
from models.evaluation.coded import CodeRecall, code_recall
from models.evaluation.questions import questions, users_asked
from models.evaluation.report import CASCADE, Asked, Report, evaluate
from models.evaluation.simple import simple
from models.evaluation.split import NothingToLearn, Split, validation
from models.evaluation.tally import Entry
from models.evaluation.trained import Trained, rival_history
from models.recommender import Recommender
from models.rivals import NAMES, Budget, open_rival
from models.train import Progress, learn

CHOOSING = "choosing shares"
NO_OWN = "cascade, no own items"
LEAST_BUDGET_S = 60.0


class SeenInTraining(ValueError):
    """The bundle has learnt from what would be tested; the message names the remedy."""


class Cost(msgspec.Struct, frozen=True):
    """What training took, in all seeds together: seconds as `clock_of` counts them."""

    seconds: float
    seeds: int


class Outcome(msgspec.Struct, frozen=True):
    """A report, and all that says how it came about. `peak_bytes` is the most memory the process ever had."""

    data: str
    report: Report
    seeds: list[int]
    config: Config
    bundle: str | None
    left_out: int  # users by whom the shares of a given bundle were chosen
    refused_rows: int
    max_users: int | None
    test_users: int | None
    costs: dict[str, Cost]
    choice: Choice | None
    codes: list[CodeRecall]
    seconds: float
    peak_bytes: int
    commit: str
    machine: str
    date: str


def run(plan: Plan, phase: Phase) -> Outcome:
    """Evaluate as planned.

    Raises:
        BadSource, NothingToLearn, SeenInTraining, MissingExtra, BundleMismatch: each names its remedy.
    """
    began = perf_counter()
    rivals = [name for name in plan.baselines if name in NAMES]
    for name in rivals:
        open_rival(name)  # first of all: is the library there?
    loaded = load_data(plan)
    split = split_of(plan, loaded.done)
    held_out = len(split.starts)
    given = None if plan.bundle is None else load(plan.bundle, plan.device)
    if given is not None:
        refuse_seen(given.manifest, loaded.name, split)
        split = unchosen(given.manifest, loaded.name, split)
    if not split.starts:
        raise NothingToLearn("no event is held out: ask for a larger --holdout, an earlier --cut, or --split users")
    seeds = list(range(plan.seed, plan.seed + plan.seeds)) if given is None else [plan.seed]
    costs: dict[str, Cost] = {}
    codes: list[CodeRecall] = []
    choice = None
    if plan.choose and given is None:
        choice = _choice(plan, loaded, split, costs, phase)
        plan = plan._replace(config=msgspec.structs.replace(plan.config, shares=choice.shares))
    report = _report(plan, given, loaded, split, rivals, seeds, costs, codes, phase)
    return Outcome(
        data=loaded.name,
        report=report,
        seeds=seeds,
        config=plan.config,
        bundle=None if plan.bundle is None else str(plan.bundle),
        left_out=held_out - len(split.starts),
        refused_rows=loaded.refused,
        max_users=plan.max_users,
        test_users=plan.test_users,
        costs=costs,
        choice=choice,
        codes=codes,
        seconds=round(perf_counter() - began, 1),
        peak_bytes=peak_bytes(),
        commit=commit(),
        machine=machine(),
        date=now(),
    )


def refuse_seen(manifest: Manifest, name: str, split: Split) -> None:
    """Raise SeenInTraining where a bundle has learnt from what the split holds out of the data called `name`."""
    if name not in (manifest.data, *manifest.earlier):
        return
    instead = "leave --bundle out, and one is trained on what may be seen"
    if split.whole:
        raise SeenInTraining(f"the bundle has learnt from all users of {name}, so they cannot be tested: {instead}")
    cut_ms = manifest.cut_ms if manifest.cut_ms is not None else manifest.config.cut_ms
    if cut_ms is None:
        raise SeenInTraining(f"the bundle does not say until when it learnt from {name}: train it again with this version, or {instead}")
    if cut_ms > split.cut_ms:
        until, since = (datetime.fromtimestamp(ts / 1000, UTC).isoformat() for ts in (cut_ms, split.cut_ms))
        learnt = f"the bundle has learnt from {name} until {until}, the test begins {since}"
        raise SeenInTraining(f"{learnt}: ask with --cut {cut_ms}, or {instead}")


def unchosen(manifest: Manifest, name: str, split: Split) -> Split:
    """The split without the users by whom a bundle's shares were chosen, where that was on the data called `name`."""
    if not manifest.chosen or name != manifest.data:
        return split
    return split._replace(starts={user: ts for user, ts in split.starts.items() if not chooses(user, manifest.seed)})


def clock_of(device: str) -> Callable[[], float]:
    """What training is counted in: processor time, so that what else a machine does favours nobody; beside a GPU the time of day."""
    return process_time if device == "cpu" else perf_counter


def peak_bytes() -> int:
    """The most memory that this process ever had."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _report(
    plan: Plan,
    given: Bundle | None,
    loaded: Loaded,
    split: Split,
    rivals: Sequence[str],
    seeds: Sequence[int],
    costs: dict[str, Cost],
    codes: list[CodeRecall],
    phase: Phase,
) -> Report:
    asked = Asked(plan.config.test_per_user, plan.test_users, plan.seed)
    users = users_asked(split, asked.users, asked.seed)
    found = offered(loaded, split, users)
    ids = [item.item_id for item in found.catalogue]
    entries = [
        *_cascades(plan, given, loaded.name, split, found, seeds, costs, phase),
        *simple(split, plan.baselines, plan.seed),
    ]
    cascades = [entry.contender for entry in entries if entry.name == CASCADE and isinstance(entry.contender, Cascade)]
    codes += [one for cascade in cascades if (one := code_recall(cascade.bundle, split.known, users)) is not None]
    entries += _rivals(plan, rivals, split, found.catalogue, seeds, costs, phase)
    most = len(users) if split.whole else len(users) * plan.config.test_per_user
    with phase("asking") as tell:
        return evaluate(split, entries, ids, asked, lambda done: tell(done, max(most, done)))


def _choice(plan: Plan, loaded: Loaded, split: Split, costs: dict[str, Cost], phase: Phase) -> Choice:
    """The shares of lists, by the newest part of what may be learnt from and a bundle that learnt from the older."""
    clock, part = clock_of(plan.device), validation(split, plan.config.holdout)
    began = clock()
    users = users_asked(part, plan.test_users, plan.seed)
    if len(users) < LEAST_USERS:
        return Choice(plan.config.shares, len(users), 0, 0.0, 0.0)
    found = offered(loaded, part, users)
    bundle = _learnt(plan, loaded.name, part, found.catalogue, plan.seed, "choosing shares", phase)
    cascade = Cascade(Recommender(bundle, plan.device), plan.config.top_k, *found)
    choice = choose_shares(cascade, questions(part, plan.config.test_per_user, users), plan.seed)
    costs[CHOOSING] = Cost(round(clock() - began, 1), 1)
    return choice


def _learnt(plan: Plan, name: str, split: Split, catalogue: list[Item], seed: int, title: str, phase: Phase) -> Bundle:
    with phase(title) as tell:

        def progress(at: Progress) -> None:
            tell(at.step, at.steps)

        return learn(split.known, catalogue, plan.config, seed, progress, cut_ms=split.cut_ms, data=name, device=plan.device)


def _cascades(
    plan: Plan,
    given: Bundle | None,
    name: str,
    split: Split,
    there: Offered,
    seeds: Sequence[int],
    costs: dict[str, Cost],
    phase: Phase,
) -> list[Entry]:
    if given is not None:
        return _both(Cascade(Recommender(given, plan.device), given.manifest.config.top_k, *there), plan.seed)
    clock, found = clock_of(plan.device), []
    began = clock()
    for seed in seeds:
        bundle = _learnt(plan, name, split, there.catalogue, seed, f"training, seed {seed}", phase)
        found += _both(Cascade(Recommender(bundle, plan.device), plan.config.top_k, *there), seed)
    costs[CASCADE] = Cost(round(clock() - began, 1), len(seeds))
    return found


def _both(cascade: Cascade, seed: int) -> list[Entry]:
    """The cascade as it serves, and beside it what its searches find alone: contenders have no list of own items either."""
    searches = msgspec.structs.replace(cascade.bundle.manifest.config.shares, repeat=0.0)
    return [Entry(CASCADE, seed, cascade), Entry(NO_OWN, seed, cascade.shared(searches))]


def _rivals(
    plan: Plan, names: Sequence[str], split: Split, catalogue: list[Item], seeds: Sequence[int], costs: dict[str, Cost], phase: Phase
) -> list[Entry]:
    if not names:
        return []
    history = rival_history(split.known, [item.item_id for item in catalogue], (item.category_id for item in catalogue))
    ours = costs[CASCADE].seconds / costs[CASCADE].seeds if CASCADE in costs else 0.0
    budget = Budget(plan.budget_s or max(LEAST_BUDGET_S, ours), 20, plan.trials)
    clock, found = clock_of(plan.device), []
    for name in names:
        began = clock()
        with phase(name) as tell:
            for done, seed in enumerate(seeds):
                tell(done, len(seeds))
                rival = open_rival(name, clock)
                rival.fit(history, seed, budget)
                found.append(Entry(name, seed, Trained(rival)))
                tell(done + 1, len(seeds))
        costs[name] = Cost(round(clock() - began, 1), len(seeds))
    return found
