"""`everlong evaluate`: a file read, split, learnt from, and every contender asked the same questions."""

import resource
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import msgspec
import numpy as np

from features import sources
from features.events import Event, Item, Refusal
from features.history import Deeds, deeds
from features.sources.catalogue import read_products
from infra.sections import commit, machine, now
from infra.training import ShopPlan, shop_history
from models.bundle import Manifest, load
from models.config import Config
from models.evaluation.cascaded import Cascade
from models.evaluation.coded import CodeRecall, code_recall
from models.evaluation.contenders import SIMPLE
from models.evaluation.questions import own_items, users_asked
from models.evaluation.report import CASCADE, Asked, Report, evaluate
from models.evaluation.simple import simple
from models.evaluation.split import NothingToLearn, Split, by_users, known_at, temporal
from models.evaluation.tally import Entry
from models.evaluation.trained import Trained, rival_history
from models.prepared import catalogue_of
from models.recommender import Recommender
from models.rivals import NAMES, Budget, open_rival
from models.train import Progress, learn

SHOP = "shop"
SHOP_ENDS_MS = 1_760_000_000_000
SPLITS = ("temporal", "users")
LEAST_BUDGET_S = 60.0

Tell = Callable[[int, int], None]
Phase = Callable[[str], AbstractContextManager[Tell]]  # opens a progress bar


class SeenInTraining(ValueError):
    """The bundle has learnt from what would be tested; the message names the remedy."""


class Plan(NamedTuple):
    """What is evaluated, and how. `budget_s`: seconds of each trained baseline; None: as long as our own training took."""

    data: str
    config: Config
    products: Path | None = None
    bundle: Path | None = None
    baselines: Sequence[str] = SIMPLE
    split: str = "temporal"
    seed: int = 0
    seeds: int = 1
    max_users: int | None = None
    test_users: int | None = 2000
    budget_s: float | None = None
    trials: int = 4
    device: str = "cpu"


class Loaded(NamedTuple):
    """A file, read: who did what, the items that it or a table of products describes, those that only events tell of,
    what to call it, rows that were no event."""

    done: Mapping[str, Deeds]
    described: Sequence[Item]
    told: Sequence[Item]
    name: str
    refused: int


class Offered(NamedTuple):
    """What the cascade can find: the catalogue, and for a user who had them items that came after the cut."""

    catalogue: list[Item]
    own: list[Item]


class Cost(msgspec.Struct, frozen=True):
    """What training took, in all seeds together."""

    seconds: float
    seeds: int


class Outcome(msgspec.Struct, frozen=True):
    """A report, and all that says how it came about. `peak_bytes` is the most memory the process ever had."""

    data: str
    report: Report
    seeds: list[int]
    config: Config
    bundle: str | None
    refused_rows: int
    max_users: int | None
    test_users: int | None
    costs: dict[str, Cost]
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
    if not split.starts:
        raise NothingToLearn("no event is held out: ask for a larger --holdout, an earlier --cut, or --split users")
    seeds = list(range(plan.seed, plan.seed + plan.seeds)) if plan.bundle is None else [plan.seed]
    costs: dict[str, Cost] = {}
    codes: list[CodeRecall] = []
    report = _report(plan, loaded, split, rivals, seeds, costs, codes, phase)
    return Outcome(
        data=loaded.name,
        report=report,
        seeds=seeds,
        config=plan.config,
        bundle=None if plan.bundle is None else str(plan.bundle),
        refused_rows=loaded.refused,
        max_users=plan.max_users,
        test_users=plan.test_users,
        costs=costs,
        codes=codes,
        seconds=round(perf_counter() - began, 1),
        peak_bytes=peak_bytes(),
        commit=commit(),
        machine=machine(),
        date=now(),
    )


def load_data(plan: Plan) -> Loaded:
    """Read the file, or make the simulated shop, and keep `max_users` of its users.

    Raises:
        BadSource: it is no file of events, or holds none.
    """
    if plan.data == SHOP:
        history = shop_history(ShopPlan(seed=plan.seed, end_ms=SHOP_ENDS_MS))
        return Loaded(_some(deeds(history.events), plan.max_users, plan.seed), history.items, [], history.name, 0)
    path = Path(plan.data)
    refused: list[Refusal] = []
    described: list[Item] = []

    def kept(events: Iterator[Event]) -> Iterator[Event]:
        for event in events:
            if isinstance(event, Item):
                described.append(event)
            else:
                yield event

    done = deeds(kept(sources.read(path, refused.append)))
    if not any(mine.events for mine in done.values()):
        why = f"; its first refused row is row {refused[0].position}: {refused[0].detail}" if refused else ""
        searches = "searches only" if done else "no event"
        raise sources.BadSource(f"{path} holds {searches}{why}: give a file with clicks or orders, as docs/events.md describes")
    told = sources.read_items(path)
    if plan.products is not None and told:
        described += read_products(plan.products, min(item.ts for item in told))
    return Loaded(_some(done, plan.max_users, plan.seed), described, told, path.name, len(refused))


def catalogue_for(loaded: Loaded, split: Split) -> list[Item]:
    """What can be recommended: items that are described, and of the others those that known events touch.

    That an item is there at all because a held-out event tells of it would give the answer away.
    """
    touched = {event.item for deeds in split.known.values() for event in deeds.events}
    told = [item for item in loaded.told if item.item_id in touched]
    return catalogue_of([*told, *known_at(loaded.described, split.cut_ms)], split.known, split.cut_ms)


def split_of(plan: Plan, done: Mapping[str, Deeds]) -> Split:
    """The split that is asked for."""
    if plan.split == "users":
        return by_users(done, plan.seed)
    return temporal(done, plan.config.holdout, plan.config.cut_ms)


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


def peak_bytes() -> int:
    """The most memory that this process ever had."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _report(
    plan: Plan,
    loaded: Loaded,
    split: Split,
    rivals: Sequence[str],
    seeds: Sequence[int],
    costs: dict[str, Cost],
    codes: list[CodeRecall],
    phase: Phase,
) -> Report:
    catalogue = catalogue_for(loaded, split)
    ids = [item.item_id for item in catalogue]
    asked = Asked(plan.config.test_per_user, plan.test_users, plan.seed)
    users = users_asked(split, asked.users, asked.seed)
    there = frozenset(ids)
    own = own_items(split, users, [item for item in loaded.told if item.item_id not in there])
    entries = [
        *_cascades(plan, loaded.name, split, Offered(catalogue, own), seeds, costs, phase),
        *simple(split, plan.baselines, plan.seed),
    ]
    cascades = [entry.contender for entry in entries if isinstance(entry.contender, Cascade)]
    codes += [found for cascade in cascades if (found := code_recall(cascade.bundle, split.known, users)) is not None]
    entries += _rivals(plan, rivals, split, catalogue, seeds, costs, phase)
    most = len(users) if split.whole else len(users) * plan.config.test_per_user
    with phase("asking") as tell:
        return evaluate(split, entries, ids, asked, lambda done: tell(done, max(most, done)))


def _cascades(
    plan: Plan, name: str, split: Split, offered: Offered, seeds: Sequence[int], costs: dict[str, Cost], phase: Phase
) -> list[Entry]:
    if plan.bundle is not None:
        bundle = load(plan.bundle, plan.device)
        refuse_seen(bundle.manifest, name, split)
        return [Entry(CASCADE, plan.seed, Cascade(Recommender(bundle, plan.device), bundle.manifest.config.top_k, *offered))]
    found, began = [], perf_counter()
    for seed in seeds:
        with phase(f"training, seed {seed}") as tell:

            def progress(at: Progress, tell: Tell = tell) -> None:
                tell(at.step, at.steps)

            bundle = learn(split.known, offered.catalogue, plan.config, seed, progress, cut_ms=split.cut_ms, data=name, device=plan.device)
        found.append(Entry(CASCADE, seed, Cascade(Recommender(bundle, plan.device), plan.config.top_k, *offered)))
    costs[CASCADE] = Cost(round(perf_counter() - began, 1), len(seeds))
    return found


def _rivals(
    plan: Plan, names: Sequence[str], split: Split, catalogue: list[Item], seeds: Sequence[int], costs: dict[str, Cost], phase: Phase
) -> list[Entry]:
    if not names:
        return []
    history = rival_history(split.known, [item.item_id for item in catalogue], (item.category_id for item in catalogue))
    ours = costs[CASCADE].seconds / costs[CASCADE].seeds if CASCADE in costs else 0.0
    budget = Budget(plan.budget_s or max(LEAST_BUDGET_S, ours), 20, plan.trials)
    found = []
    for name in names:
        began = perf_counter()
        with phase(name) as tell:
            for done, seed in enumerate(seeds):
                tell(done, len(seeds))
                rival = open_rival(name)
                rival.fit(history, seed, budget)
                found.append(Entry(name, seed, Trained(rival)))
                tell(done + 1, len(seeds))
        costs[name] = Cost(round(perf_counter() - began, 1), len(seeds))
    return found


def _some(done: Mapping[str, Deeds], most: int | None, seed: int) -> Mapping[str, Deeds]:
    if most is None or len(done) <= most:
        return done
    users = sorted(done)
    return {users[at]: done[users[at]] for at in sorted(np.random.default_rng(seed).permutation(len(users))[:most].tolist())}
